"""Several devices and several processes compute the losses and the weights of a single device.

They run on virtual CPUs, in processes of their own (see several_devices.py). Every run has the same batches.
RoIs and anchors are not sampled at random, since each device would sample others than the single one.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from toy_data import ToyConfig, toy_dataset

from mrcnn import backend
from mrcnn.backend import devices
from mrcnn.data.generator import DataGenerator

TESTS = Path(__file__).parent.parent
PATIENCE = 600  # seconds before a group of processes counts as hung

# Several devices add numbers in another order. After ten steps losses differ by 3e-7 and weights by 3e-8,
# unless rounding swaps two proposals of nearly equal score, for which the later tolerances leave room.
FIRST_TOLERANCE = 2e-5
LOSS_TOLERANCE = 1e-3
WEIGHT_TOLERANCE = 5e-5


def start(backend, job, environment=None, command=(sys.executable,)):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",  # the devices are virtual CPUs
        "JAX_PLATFORMS": "cpu",
        **(environment or {}),
    }
    return subprocess.Popen(
        [*command, str(TESTS / "several_devices.py"), json.dumps(job)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    """Wait for all processes; end them all if one hangs or fails."""
    try:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def job(folder, counts, virtual=1, task="train", runs="runs", **options):
    return {
        "task": task,
        "counts": counts,
        "virtual": virtual,
        "out": str(folder),
        "start": str(folder / "start.h5"),
        "folder": runs,
        **options,
    }


def single(backend, folder, **options):
    finish([start(backend, job(folder, [1], **options))])


def assert_trained_alike(folder, count, process=0):
    expected = np.load(folder / "train_1_0.npz")
    found = np.load(folder / f"train_{count}_{process}.npz")
    assert found.files == expected.files
    assert "loss" in found.files
    for name in found.files:
        if name.startswith("weight:"):
            np.testing.assert_allclose(
                found[name], expected[name], rtol=0, atol=WEIGHT_TOLERANCE, err_msg=name
            )
            continue
        np.testing.assert_allclose(found[name][0], expected[name][0], rtol=FIRST_TOLERANCE, err_msg=name)
        # Swapped proposals show most in small losses of few validation images.
        validation = name.startswith("val_")
        tolerance = {"rtol": LOSS_TOLERANCE, "atol": 5e-3 * validation}
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **tolerance)


def files_of(folder, runs, count):
    return sorted(path.name for path in (folder / runs / str(count)).rglob("*") if path.is_file())


def assert_only_the_first_wrote(folder, count, processes):
    first, *others = (files_of(folder, f"runs{process}", count) for process in range(processes))
    assert {"best.h5", "config.json", "mask_rcnn_toy_0001.h5", "mask_rcnn_toy_0002.h5"} <= set(first)
    assert any("tfevents" in name for name in first)
    assert others == [[]] * (processes - 1)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tested by test_more_devices")
def test_two_devices_train_as_one(tmp_path):
    finish([start("tensorflow", job(tmp_path, [1, 2], virtual=2))])
    assert_trained_alike(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_more_devices_train_and_validate_as_one(tmp_path, backend):
    for counts in ([1, 2], [4]):  # a process can have one group of TensorFlow devices
        finish([start(backend, job(tmp_path, counts, virtual=4, validate=True))])
    assert_trained_alike(tmp_path, 2)
    assert_trained_alike(tmp_path, 4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_several_devices_detect_as_one(tmp_path, backend):
    single(backend, tmp_path)
    finish([start(backend, job(tmp_path, [1, 2, 4], virtual=4, task="detect"))])
    expected = np.load(tmp_path / "detect_1_0.npz")
    for count in (2, 4):
        found = np.load(tmp_path / f"detect_{count}_0.npz")
        assert found.files == expected.files
        for name in found.files:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_several_devices_raise_errors_of_the_data(tmp_path, backend):
    finish([start(backend, job(tmp_path, [2], virtual=2, task="break off"))])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_parallel_model(tmp_path, backend):
    finish([start(backend, job(tmp_path, [1, 2], virtual=2, task="wrap"))])
    expected, found = (np.load(tmp_path / f"wrap_{count}.npz") for count in (1, 2))
    for name in ("found", "kernel", "loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
class TestProcesses:
    """Two processes on this machine, started as on two machines."""

    def test_tensorflow(self, tmp_path):
        single("tensorflow", tmp_path)
        workers = [f"localhost:{free_port()}" for _ in range(2)]
        processes = [
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)
        ]
        finish(
            [
                start(
                    "tensorflow", job(tmp_path, [2], runs=f"runs{index}"), {"TF_CONFIG": json.dumps(process)}
                )
                for index, process in enumerate(processes)
            ]
        )
        self.assert_alike(tmp_path)

    def test_jax(self, tmp_path):
        single("jax", tmp_path)
        common = {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"localhost:{free_port()}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
        }
        finish(
            [
                start(
                    "jax",
                    job(tmp_path, [2], runs=f"runs{index}"),
                    {**common, "KERAS_DISTRIBUTION_PROCESS_ID": str(index)},
                )
                for index in range(2)
            ]
        )
        self.assert_alike(tmp_path)

    def test_torch(self, tmp_path):
        single("torch", tmp_path)
        common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        finish(
            [
                start(
                    "torch",
                    job(tmp_path, [2], runs=f"runs{index}"),
                    {**common, "RANK": str(index), "LOCAL_RANK": str(index)},
                )
                for index in range(2)
            ]
        )
        self.assert_alike(tmp_path)

    def assert_alike(self, folder):
        for process in range(2):
            assert_trained_alike(folder, 2, process)
        assert_only_the_first_wrote(folder, 2, 2)


# Each of these lines fails after the framework has started.
CHOOSE_DEVICES = {
    "tensorflow": "import tensorflow as tf; tf.config.set_logical_device_configuration("
    "tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)",
    "jax": "import jax; jax.config.update('jax_num_cpu_devices', 2); assert len(jax.devices()) == 2",
}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="processes can connect at any time")
def test_importing_the_package_does_not_start_the_framework():
    """Machines cannot connect after it has started."""
    code = f"import mrcnn.model; {CHOOSE_DEVICES[keras.backend.backend()]}"
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "JAX_PLATFORMS": "cpu"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]


def several_devices():
    """Devices with a scope, of which this machine has only one."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        from mrcnn.backend.tensorflow_devices import TensorFlowDevices

        return TensorFlowDevices(tensorflow.distribute.MirroredStrategy(["/cpu:0"]))
    import jax

    from mrcnn.backend.jax_devices import JaxDevices

    return JaxDevices(jax.devices()[:1])


def has_scope():
    """Whether the current thread is in the scope of any devices."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.distribute.has_strategy()
    return keras.distribution.distribution() is not None


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="its devices have no scope")
class TestScopes:
    """What is built in a callback for other devices is not built for those that train."""

    def test_other_devices_leave_the_scope(self):
        several, other = several_devices(), backend.get_devices(1)
        with several.scope():
            assert has_scope()
            assert several.call_apart(has_scope)
            assert not other.call_apart(has_scope)
            assert has_scope()
        assert not has_scope() and not several.call_apart(has_scope)

    def test_a_call_gets_its_arguments_and_raises_its_errors(self):
        with several_devices().scope():
            assert backend.get_devices(1).call_apart(max, 2, -3, key=abs) == -3
            with pytest.raises(ZeroDivisionError):
                backend.get_devices(1).call_apart(divmod, 1, 0)

    def test_a_scope_of_the_program_stays(self):
        """A program may choose its devices by itself."""
        several = several_devices()
        chosen = getattr(several, "strategy", None) or several.distribution
        with chosen.scope():
            assert backend.get_devices(1).call_apart(has_scope)

    def test_a_scope_ends_with_an_error(self):
        with pytest.raises(ZeroDivisionError), several_devices().scope():
            raise ZeroDivisionError
        assert not has_scope()


def test_a_single_device():
    single = backend.get_devices(1)
    assert (single.count, single.processes, single.is_first_process) == (1, 1, True)


def test_fewer_devices_than_requested():
    with pytest.warns(UserWarning, match=r"GPU_COUNT=64, but \d+ device"):
        single = backend.get_devices(64)
    assert single.count == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_parts_of_a_batch_join_to_the_batch(shuffle):
    config = ToyConfig()
    config.IMAGES_PER_GPU, config.GPU_COUNT, config.SEED = 2, 2, 5
    whole, *parts = (
        DataGenerator(toy_dataset(), config, shuffle=shuffle, part=part) for part in ((0, 1), (0, 2), (1, 2))
    )
    for generator in (whole, *parts):
        generator.epoch = 1
    for index in range(len(whole)):
        expected = whole[index][0]
        inputs = [part[index][0] for part in parts]
        for name, array in expected.items():
            joined = np.concatenate([part[name] for part in inputs])
            np.testing.assert_array_equal(joined, array, err_msg=name)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TF_CONFIG belongs to TensorFlow")
class TestMachineIndex:
    @pytest.mark.parametrize(
        ("cluster", "task", "expected"),
        [
            ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 1}, (1, 2)),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, {"type": "worker", "index": 0}, (1, 3)),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, {"type": "chief", "index": 0}, (0, 3)),
        ],
    )
    def test_of_a_cluster(self, monkeypatch, cluster, task, expected):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert machine_index() == expected

    def test_without_a_cluster(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        assert machine_index() == (0, 1)


def machine_index():
    from mrcnn.backend import tensorflow_devices

    return tensorflow_devices.machine_index()


def test_check_count():
    devices.check_count(4, 4, 2)
    with pytest.raises(ValueError, match="GPU_COUNT=3, with 2 processes that have 4 devices"):
        devices.check_count(3, 4, 2)

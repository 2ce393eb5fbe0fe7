"""Batches built in other processes: the same ones, errors that say what happened, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from toy_data import ArrayDataset, ToyConfig, rectangles, toy_dataset

from mrcnn.data import processes
from mrcnn.data.batches import BatchBuilder
from mrcnn.data.generator import DataGenerator

# Classes of this module travel whole, as those of scripts and notebooks do: the processes need not import it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc and /dev/shm")


class FragileDataset(ArrayDataset):
    """Image 2 ends the process that loads it, unless it is the one that made the dataset."""

    def __init__(self, items):
        super().__init__(items)
        self.made_by = os.getpid()

    def load_image(self, image_id):
        if image_id == 2 and os.getpid() != self.made_by:
            os._exit(7)
        return super().load_image(image_id)


class BrokenDataset(ArrayDataset):
    """Every second image cannot be read."""

    def load_image(self, image_id):
        if image_id % 2:
            raise OSError(f"picture_{image_id}.png is broken")
        return super().load_image(image_id)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def loaders(parent):
    """Process ids of the loader processes of a process."""
    paths = Path(f"/proc/{parent}/task").glob("*/children")
    children = [pid for path in paths for pid in path.read_text().split()]
    return {
        pid for pid in children if b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes() and is_running(pid)
    }


def generator(dataset, workers=2, **options):
    return DataGenerator(dataset, ToyConfig(), workers=workers, use_multiprocessing=True, seed=3, **options)


def noisy(image, masks, rng):
    """An augmentation that no other process can import."""
    return image + rng.integers(0, 9, image.shape).astype(image.dtype), masks


@linux
def test_the_same_batches_as_in_turn_and_nothing_left_behind():
    loaders_before = loaders(os.getpid())
    options = {"steps": 4, "batch_size": 2, "seed": 3, "augmentation": noisy}
    in_turn = BatchBuilder(toy_dataset(), ToyConfig(), **options)
    source = processes.BatchProcesses(BatchBuilder(toy_dataset(), ToyConfig(), **options), 2)
    for epoch in range(2):
        for index in range(4):
            found, wanted = source.batch(epoch, index), in_turn.batch(epoch, index)
            assert found.keys() == wanted.keys()
            for name in wanted:
                np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
                assert found[name].dtype == wanted[name].dtype
    folder = Path(source.folder)
    children = loaders(os.getpid()) - loaders_before
    assert folder.is_dir()
    assert len(children) >= 2  # and what tracks their resources
    source.close()
    assert not folder.exists()
    assert len(children & loaders(os.getpid())) <= len(children) - 2


def test_a_generator_takes_its_batches_from_processes():
    batches = generator(toy_dataset(), augmentation=noisy, steps=4)
    in_turn = DataGenerator(toy_dataset(), ToyConfig(), augmentation=noisy, workers=0, seed=3, steps=4)
    with batches:
        batches.on_epoch_begin()
        for index in range(4):
            np.testing.assert_array_equal(batches[index][0]["input_image"], in_turn[index][0]["input_image"])


def test_without_room_for_files_arrays_come_through_the_pipe(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_folder", str(tmp_path), raising=False)
    monkeypatch.setattr(processes.np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left")))
    batch = {"a": np.arange(3)}
    assert processes._sent(batch) is batch
    assert list(tmp_path.iterdir()) == []


def test_failures_of_all_processes_are_counted_together(caplog):
    config = ToyConfig()
    config.MAX_IMAGE_ERRORS = 3
    dataset = BrokenDataset(map(rectangles, range(10)))
    batches = DataGenerator(dataset, config, shuffle=False, steps="all", workers=2, use_multiprocessing=True)
    try:
        assert batches[0][0]["input_image_meta"][:, 0].tolist() == [0, 2]
        assert list(batches.skipped) == [1]
        assert "picture_1.png" in batches.skipped[1]
        assert caplog.text.count("Skipped image id 1 (") == 1
        with pytest.raises(
            RuntimeError, match=r"4 images could not be loaded or augmented.*MAX_IMAGE_ERRORS=3"
        ):
            for index in range(5):
                batches[index]
    finally:
        batches.close()


def test_the_death_of_a_process_is_explained():
    batches = generator(FragileDataset(map(rectangles, range(4))), workers=1, shuffle=False, steps=2)
    batches[0]
    with pytest.raises(
        RuntimeError, match=r"(?s)ended unexpectedly at batch 1 of epoch 1.*memory.*LOADER_PROCESSES=False"
    ):
        batches[1]
    assert batches[0][0]["input_image_meta"][:, 0].tolist() == [0, 1]  # by a new process
    batches.close()


def test_a_dataset_that_cannot_travel_is_refused_with_advice():
    dataset = toy_dataset()
    dataset.connection = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot be sent to another process.*lock.*LOADER_PROCESSES=False"):
        generator(dataset)[0]


SCRIPT = """
import signal
from toy_data import ToyConfig, toy_dataset
from mrcnn.data.batches import BatchBuilder
from mrcnn.data.processes import BatchProcesses

class Mine(type(toy_dataset())):  # a class of the script, which has no __main__ guard
    pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores interrupts
dataset = Mine(toy_dataset().items)
source = BatchProcesses(BatchBuilder(dataset, ToyConfig(), steps=10, batch_size=2, seed=0), 1)
source.batch(0, 0)
print(source.folder, flush=True)
while True:
    source.batch(0, 0)
"""


@pytest.fixture
def started(tmp_path):
    """The SCRIPT in a session of its own, which is killed in the end, and the folder that it printed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    line = program.stdout.readline().strip()
    assert line, program.stderr.read()
    assert Path(line).is_dir()
    yield program, Path(line)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@linux
@pytest.mark.parametrize(
    "end", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_processes_end_with_the_one_that_started_them(end, started):
    """Ctrl-C, which reaches every process of the terminal, and the end of the first one alone."""
    program, folder = started
    children = loaders(program.pid)
    assert children
    os.killpg(program.pid, end) if end == signal.SIGINT else program.send_signal(end)
    assert program.wait(60) != 0
    errors = program.stderr.read() if end == signal.SIGINT else ""
    assert errors.count("Traceback") == (end == signal.SIGINT), errors  # the first process speaks alone
    assert wait_until(lambda: not any(map(is_running, children)))
    assert wait_until(lambda: not folder.exists())


@linux
def test_files_of_processes_that_were_all_killed_are_removed_at_the_next_start(started):
    program, folder = started
    processes.remove_abandoned_folders(folder.parent)
    assert any(folder.iterdir())  # it is in use
    children = loaders(program.pid)
    os.killpg(program.pid, signal.SIGSTOP)  # so that none of them can tidy up after another
    for pid in [*children, program.pid]:
        os.kill(int(pid), signal.SIGKILL)
    program.wait(60)
    assert wait_until(lambda: not any(map(is_running, children)))
    assert folder.is_dir()
    with generator(toy_dataset()) as batches:
        batches[0]
        assert not folder.exists()

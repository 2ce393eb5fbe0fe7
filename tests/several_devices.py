"""Train or detect with given numbers of devices, in a process of its own. Argument: the job, as JSON.

Virtual devices must be requested before a framework starts, and processes find each other by their
environment. See backend/test_devices.py.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def virtual_cpus(count):
    """Let the framework see this number of CPUs."""
    backend = os.environ["KERAS_BACKEND"]
    if backend == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    elif backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", count)


job = json.loads(sys.argv[1])
virtual_cpus(job["virtual"])

import keras  # noqa: E402
import numpy as np  # noqa: E402
from tiny_model import TinyConfig  # noqa: E402
from toy_data import ArrayDataset, rectangles  # noqa: E402

from mrcnn import backend  # noqa: E402
from mrcnn.backend.devices import Parts  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from mrcnn.parallel_model import ParallelModel  # noqa: E402
from mrcnn.training.callbacks import Evaluate, SaveBest  # noqa: E402

BATCH = 4
RATE = 0.002  # at higher rates, the large first losses make steps that amplify rounding


class TwoSources(ArrayDataset):
    """Images of two sources whose classes differ: the class loss reads those of the first image only."""

    def __init__(self, count):
        super().__init__(rectangles(seed) for seed in range(count))
        self.add_class("other", 1, "class 1 of another source")
        for info in self.image_info[::2]:
            info["source"] = "other"
        self.prepare()

    def load_mask(self, image_id):
        masks, class_ids = super().load_mask(image_id)
        return masks, np.full_like(class_ids, 4) if image_id % 2 == 0 else class_ids


def config(count):
    settings = TinyConfig()
    settings.NUM_CLASSES = 5
    settings.GPU_COUNT = count
    settings.IMAGES_PER_GPU = BATCH // count
    settings.STEPS_PER_EPOCH = 5
    return settings


def train(count, folder, start):
    """Train ten steps and write every weight and loss to a file.

    Args:
        count: Devices.
        folder: Of the runs.
        start: File of the first weights; created if it does not exist.
    """
    model = MaskRCNN("training", config(count), folder)
    for layer in model.keras_model.layers:
        if hasattr(layer, "shuffle"):
            layer.shuffle = False  # each device would sample by itself
    if start.exists():
        model.load_weights(start)
    else:
        model.keras_model.save_weights(start)
    validation = TwoSources(3) if job.get("validate") else None
    best = SaveBest(folder / "best.h5", monitor="loss", mode="min")
    on_one = Evaluate(model, TwoSources(2))
    on_all = Evaluate(model, TwoSources(2), config(count), every=2)
    history = model.train(
        TwoSources(7), validation, RATE, epochs=2, layers="all", custom_callbacks=[on_one, on_all, best]
    ).history
    np.testing.assert_array_equal(on_all.results["mask_AP"], on_one.results["mask_AP"])
    values = {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.keras_model.weights}
    out = Path(job["out"]) / f"train_{count}_{model.devices.process}.npz"
    np.savez(out, **{f"weight:{path}": value for path, value in values.items()}, **history)


def parts_of(outputs):
    """The number of devices that each have a part of a batch of outputs."""
    if isinstance(outputs, Parts):
        return len(outputs)
    shards = getattr(outputs, "addressable_shards", [])
    return len({shard.index[0].start for shard in shards}) if shards else 1


class BreaksOff(TwoSources):
    """Images that can be read a few times."""

    uses = 0

    def load_image(self, image_id):
        self.uses += 1
        if self.uses > 3 * BATCH:
            raise MemoryError("no memory for images")
        return super().load_image(image_id)


def break_off(count, folder, start):
    """Train on data that end with an error, and check that the training ends with this error."""
    for broken in range(2):
        datasets = [TwoSources(4), TwoSources(4)]
        datasets[broken] = BreaksOff(4)
        model = MaskRCNN("training", config(count), folder)
        with contextlib.suppress(MemoryError):
            model.train(*datasets, RATE, epochs=9, layers="heads")
            raise AssertionError("the training did not end with the error")


def detect(count, folder, start):
    """Detect in three images, then in one, and write the results to a file."""
    model = MaskRCNN("inference", config(count), folder)
    model.load_weights(start)
    to_numpy, seen = backend.to_numpy, set()
    backend.to_numpy = lambda outputs: (seen.add(parts_of(outputs)), to_numpy(outputs))[1]
    images = [rectangles(seed)[0] for seed in range(3)]
    results = model.detect(images) + model.detect(images[:1])
    backend.to_numpy = to_numpy
    assert seen == {1 if keras.backend.backend() == "torch" else count}, seen
    arrays = {
        f"{name} {index}": array for index, result in enumerate(results) for name, array in result.items()
    }
    np.savez(Path(job["out"]) / f"detect_{count}_{model.devices.process}.npz", **arrays)


def wrap(count, folder, start):
    """Train a small model ten steps, in a ParallelModel for several devices, and write its predictions."""
    x = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
    y = x @ np.arange(6, dtype="float32").reshape(3, 2)
    with backend.get_devices(count).scope():
        image = keras.Input((3,))
        dense = keras.layers.Dense(2, kernel_initializer="ones")
        model = keras.Model(image, dense(image))
        optimizer = keras.optimizers.SGD(0.1)
    if count > 1:
        model = ParallelModel(model, count)
    model.compile(optimizer=optimizer, loss="mse")
    history = model.fit(x, y, batch_size=4, epochs=1, shuffle=False).history
    path = Path(job["out"]) / f"wrap_{count}.npz"
    np.savez(path, found=model.predict(x), kernel=np.array(dense.kernel), loss=history["loss"])
    outside = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    if count > 1:
        with contextlib.suppress(ValueError):
            ParallelModel(outside, count)
            raise AssertionError("ParallelModel accepted weights that were created outside its scope")


keras.utils.set_random_seed(1)
for number in job["counts"]:
    task = {"train": train, "detect": detect, "wrap": wrap, "break off": break_off}[job["task"]]
    task(number, Path(job["out"]) / job["folder"] / str(number), Path(job["start"]))

"""Detect with the tiny network, after a training step if asked for.

Arguments: the package's folder, a file for results, and "train" or "detect". Runs in a process of its own,
see test_without_fast.py.
"""

import sys
from pathlib import Path

import numpy as np


def tiny_config(settings):
    """The tiny network with settings of its Config, and the same initial weights each time."""
    import keras
    from tiny_model import TinyConfig

    keras.utils.set_random_seed(1)
    config = TinyConfig()
    config.STEPS_PER_EPOCH = 1
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def detect(folder, **settings):
    """Detections in two images, as named arrays."""
    from mrcnn.model import MaskRCNN

    return detections(MaskRCNN("inference", tiny_config(settings), folder))


def train(folder, **settings):
    """Losses of a step, weights after it, and detections in two images, as named arrays."""
    from toy_data import toy_dataset

    from mrcnn.model import MaskRCNN

    model = MaskRCNN("training", tiny_config(settings), folder)
    history = model.train(toy_dataset(2), None, 0.002, 1, "all").history
    arrays = {f"loss {name}": np.array(values) for name, values in history.items()}
    for index, weights in enumerate(model.keras_model.get_weights()):
        arrays[f"weights {index}"] = np.asarray(weights)
    return arrays | detections(model.inference_model())


def detections(model):
    from toy_data import toy_dataset

    dataset = toy_dataset(2)
    found = model.detect([dataset.load_image(index) for index in range(2)])
    return {f"{name} {i}": np.asarray(x) for i, result in enumerate(found) for name, x in result.items()}


WORK = {"detect": detect, "train": train}


def use_package(folder):
    """Import mrcnn from a folder, also where the environment has an editable installation of it."""
    sys.meta_path[:] = [x for x in sys.meta_path if "__editable__" not in getattr(x, "__module__", "")]
    sys.path.insert(0, str(folder))
    import mrcnn

    assert Path(mrcnn.__file__).is_relative_to(folder), mrcnn.__file__


if __name__ == "__main__":
    package, results = (Path(argument) for argument in sys.argv[1:3])
    use_package(package)
    np.savez(results, **WORK[sys.argv[3]](results.parent / "runs"))

"""Train the tiny network for a step and detect with it. Arguments: the package's folder, a file for results.

Runs in a process of its own, see test_without_fast.py.
"""

import sys
from pathlib import Path

import numpy as np


def losses_and_detections(folder, **settings):
    """Losses of a step, weights after it, and detections in two images, as named arrays.

    Args:
        folder: Of the run.
        settings: Of the Config.
    """
    import keras
    from tiny_model import TinyConfig
    from toy_data import toy_dataset

    from mrcnn.model import MaskRCNN

    keras.utils.set_random_seed(1)
    config = TinyConfig()
    config.STEPS_PER_EPOCH = 1
    for name, value in settings.items():
        setattr(config, name, value)
    model = MaskRCNN("training", config, folder)
    dataset = toy_dataset(2)
    history = model.train(dataset, None, 0.002, 1, "all").history
    arrays = {f"loss {name}": np.array(values) for name, values in history.items()}
    for index, weights in enumerate(model.keras_model.get_weights()):
        arrays[f"weights {index}"] = np.asarray(weights)
    detections = model.inference_model().detect([dataset.load_image(index) for index in range(2)])
    for index, detection in enumerate(detections):
        arrays.update((f"{name} {index}", np.asarray(value)) for name, value in detection.items())
    return arrays


def use_package(folder):
    """Import mrcnn from a folder, also where the environment has an editable installation of it."""
    sys.meta_path[:] = [x for x in sys.meta_path if "__editable__" not in getattr(x, "__module__", "")]
    sys.path.insert(0, str(folder))
    import mrcnn

    assert Path(mrcnn.__file__).is_relative_to(folder), mrcnn.__file__


if __name__ == "__main__":
    package, results = (Path(argument) for argument in sys.argv[1:])
    use_package(package)
    np.savez(results, **losses_and_detections(results.parent / "runs"))

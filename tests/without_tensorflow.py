"""Train and detect in a process that cannot import TensorFlow. Argument: a folder for the run."""

import sys

sys.modules["tensorflow"] = None  # importing it raises ImportError

import numpy as np  # noqa: E402
from toy_data import ToyConfig, toy_dataset  # noqa: E402

from mrcnn.config import LightConfig  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402


class SmallConfig(ToyConfig, LightConfig):
    """The light network on pictures of 64 x 64."""

    NUM_CLASSES = 4
    IMAGES_PER_GPU = 1
    STEPS_PER_EPOCH = 1
    VALIDATION_STEPS = 1
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    DETECTION_MIN_CONFIDENCE = 0


def main(folder):
    model = MaskRCNN("training", SmallConfig(), folder)
    dataset = toy_dataset(2)
    history = model.train(dataset, dataset, 1e-3, 1, "all")
    assert np.isfinite(history.history["val_loss"]).all()
    [found] = model.inference_model().detect([dataset.load_image(0)])
    assert found["masks"].shape == (100, 120, len(found["rois"]))
    print("trained and detected")


if __name__ == "__main__":
    main(sys.argv[1])

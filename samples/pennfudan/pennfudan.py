"""Train on your own images: a folder (or zip) with images/ and label images labels/, no code but settings.

    python pennfudan.py --dataset=/path/to/pennfudan.zip --light --weights=scratch    # on a CPU
    python pennfudan.py --dataset=/path/to/folder --classes=leaf                      # from COCO weights

labels/<name>.png has 0 for the background and k for object k of images/<name>.jpg, as in the pedestrians of
PennFudan. A fifth of the images is held back to measure the result.
"""

import argparse
from pathlib import Path

from mrcnn import formats, utils
from mrcnn.config import Config, LightConfig
from mrcnn.model import MaskRCNN

COCO_WEIGHTS = Path(__file__).resolve().parents[2] / "mask_rcnn_coco.h5"
# Layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


class OwnConfig(Config):
    """ResNet-101 at the size of COCO."""

    NAME = "own"
    NUM_CLASSES = 1 + 1  # background and one class
    STEPS_PER_EPOCH = 100


class LightOwnConfig(LightConfig, OwnConfig):
    """A light network at half the size, for a CPU."""

    IMAGE_MIN_DIM = 384
    IMAGE_MAX_DIM = 512
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


def main() -> None:
    """Look at the data, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--dataset", type=Path, required=True, help="folder or zip file with images/, labels/"
    )
    parser.add_argument("--classes", default="person", help="name of the class")
    parser.add_argument("--weights", default="coco", help="coco or scratch")
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    parser.add_argument("--light", action="store_true", help="MobileNetV2, for a machine without a GPU")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="steps per epoch")
    arguments = parser.parse_args()

    dataset = formats.LabelImageDataset()
    dataset.load(arguments.dataset, classes=[arguments.classes])
    train_set, val_set = formats.split(dataset)
    formats.describe(train_set)["figure"].savefig("dataset.png")

    config = LightOwnConfig() if arguments.light else OwnConfig()
    config.STEPS_PER_EPOCH = arguments.steps
    model = MaskRCNN("training", config, arguments.logs)
    if arguments.weights == "coco":
        utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    layers = "heads" if arguments.weights == "coco" else "all"
    model.train(train_set, val_set, config.LEARNING_RATE, arguments.epochs, layers)

    config.IMAGES_PER_GPU = 1
    trained = MaskRCNN("inference", config, arguments.logs)
    trained.load_weights(model.find_last())
    trained.evaluate(val_set)


if __name__ == "__main__":
    main()

"""Train on your own images: a folder (or zip) with images/ and label images labels/, no code but settings.

    python pennfudan.py --dataset=/path/to/pennfudan.zip --light --weights=scratch    # on a CPU, minutes
    python pennfudan.py --dataset=/path/to/folder --classes=leaf                      # from COCO weights
    python pennfudan.py --dataset=/path/to/folder --light --weights=/path/to/other.h5 # from a light network's

labels/<name>.png has 0 for the background and k for object k of images/<name>.jpg, as in the pedestrians of
PennFudan. A fifth of the images is held back to measure the result, or those that --split names.
"""

import argparse
from pathlib import Path

from mrcnn import formats, utils
from mrcnn.config import Config, LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.model import MaskRCNN
from mrcnn.training.schedules import warm_up_and_decay

COCO_WEIGHTS = Path(__file__).resolve().parents[2] / "mask_rcnn_coco.h5"
# Layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


class OwnConfig(Config):
    """ResNet-101 at the size of COCO."""

    NAME = "own"
    NUM_CLASSES = 1 + 1  # background and one class
    STEPS_PER_EPOCH = 100


class LightOwnConfig(LightConfig, OwnConfig):
    """A light network for a CPU that learns from random weights; pictures become 256 pixels large.

    Objects of fewer than some 15 pixels want more: IMAGE_MAX_DIM = 512 takes four times as long.
    """

    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 256
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


Datasets = tuple[formats.LabelImageDataset, formats.LabelImageDataset]


def datasets_of(path: Path, class_name: str, split: Path | None) -> Datasets:
    """Images to train on, and those held back.

    split: a JSON file {"train": [{"id": name}, ...], "val": [...]} of images' names without ending; None
    holds a fifth back.
    """
    if split is None:
        dataset = formats.LabelImageDataset()
        dataset.load(path, classes=[class_name])
        return formats.split(dataset)
    parts = formats.files.read_json(split)
    train_set, val_set = formats.LabelImageDataset(), formats.LabelImageDataset()
    for dataset, part in ((train_set, "train"), (val_set, "val")):
        entries = formats.files.field(parts, part, list, split)
        names = [formats.files.field(entry, "id", str, f"{split}, {part}") for entry in entries]
        dataset.load(path, classes=[class_name], only=names)
        dataset.prepare()
    return train_set, val_set


def load_weights(model: MaskRCNN, choice: str) -> None:
    """Load "coco" or a path, without the layers that know its classes; nothing for "scratch"."""
    if choice == "scratch":
        return
    if choice == "coco":
        utils.download_trained_weights(COCO_WEIGHTS)
        choice = str(COCO_WEIGHTS)
    model.load_weights(choice, exclude=CLASS_LAYERS, resume=False)


def main() -> None:
    """Look at the data, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--dataset", type=Path, required=True, help="folder or zip file with images/, labels/"
    )
    parser.add_argument("--split", type=Path, help="JSON file of the images to train on and to hold back")
    parser.add_argument("--classes", default="person", help="name of the class")
    parser.add_argument("--weights", default="coco", help="coco, scratch, or a path to begin with")
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    parser.add_argument("--light", action="store_true", help="MobileNetV2, for a machine without a GPU")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100, help="steps per epoch")
    arguments = parser.parse_args()

    train_set, val_set = datasets_of(arguments.dataset, arguments.classes, arguments.split)
    formats.describe(train_set)["figure"].savefig("dataset.png")

    config = LightOwnConfig() if arguments.light else OwnConfig()
    config.STEPS_PER_EPOCH = arguments.steps
    model = MaskRCNN("training", config, arguments.logs)
    load_weights(model, arguments.weights)
    layers, rate = "heads", config.LEARNING_RATE
    if arguments.weights != "coco":
        layers, rate = "all", warm_up_and_decay(rate, arguments.epochs * arguments.steps)
    augmentation = camera_policy(any_orientation=False)
    model.train(train_set, val_set, rate, arguments.epochs, layers, augmentation)

    config.IMAGES_PER_GPU = 1
    config.DETECTION_MIN_CONFIDENCE = 0  # average precision weighs them by their scores
    model.inference_model(config).evaluate(val_set)


if __name__ == "__main__":
    main()

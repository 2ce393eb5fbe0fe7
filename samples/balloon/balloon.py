"""Balloons: train on outlines of the VGG Image Annotator, then keep balloons in colour, the rest in grey.

    # Train, starting from the published COCO weights; or go on with the last run
    python balloon.py train --dataset=/path/to/balloon --weights=coco
    python balloon.py train --dataset=/path/to/balloon --weights=last

    # Colour splash on an image, a video, or what camera 0 sees (Ctrl-C ends it)
    python balloon.py splash --weights=/path/to/weights.h5 --image=<file or address>
    python balloon.py splash --weights=last --video=<file, address or number of a camera>

    # A light network on a CPU: from scratch in minutes, or from another light network's weights; measure it
    python balloon.py train --dataset=/path/to/balloon --weights=scratch --light
    python balloon.py train --dataset=/path/to/balloon --weights=/path/to/other.h5 --light --new-classes
    python balloon.py evaluate --dataset=/path/to/balloon --weights=last --light

The data set is a folder with train/ and val/, each with pictures and via_region_data.json of VIA 1.x or 2.x.
"""

import argparse
import datetime
import os
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage.color import gray2rgb, rgb2gray

from mrcnn import formats, utils
from mrcnn.config import Config, LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.inference.video import detect_video
from mrcnn.model import MaskRCNN
from mrcnn.training.schedules import warm_up_and_decay

ROOT_DIR = Path(__file__).resolve().parents[2]
COCO_WEIGHTS = ROOT_DIR / "mask_rcnn_coco.h5"
# Layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
SUBSETS = ("train", "val")


class BalloonConfig(Config):
    """ResNet-101; a GPU of 12 GB holds two images."""

    NAME = "balloon"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1  # background and balloon
    STEPS_PER_EPOCH = 100
    DETECTION_MIN_CONFIDENCE = 0.9


class LightBalloonConfig(LightConfig, BalloonConfig):
    """A light network for a CPU that learns from random weights; pictures become 320 pixels large."""

    NAME = "balloon-light"
    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    IMAGE_MIN_DIM = 320
    IMAGE_MAX_DIM = 320
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    DETECTION_MIN_CONFIDENCE = 0.7
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class BalloonDataset(formats.ViaDataset):
    """Pictures with a polygon for each balloon."""

    def load_balloon(self, dataset_dir: str | Path, subset: str) -> None:
        """Add the images of a subset, train or val, that have a balloon.

        Raises ValueError for another subset, FileNotFoundError naming the annotation file if it is missing.
        """
        if subset not in SUBSETS:
            raise ValueError(f"subset must be one of {SUBSETS}. Received: subset={subset!r}")
        self.load(Path(dataset_dir) / subset / "via_region_data.json", classes=["balloon"], source="balloon")


def dataset_of(dataset_dir: Path, subset: str) -> BalloonDataset:
    """A prepared data set."""
    dataset = BalloonDataset()
    dataset.load_balloon(dataset_dir, subset)
    dataset.prepare()
    return dataset


def train(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Train the heads, which is enough after COCO; light or from scratch everything, with a warm-up."""
    rate = model.config.LEARNING_RATE
    epochs = arguments.epochs or (8 if arguments.light else 30)
    layers, augmentation = "heads", None
    if arguments.light or arguments.weights == "scratch":
        steps = max(1, epochs - model.epoch) * model.config.STEPS_PER_EPOCH
        layers, rate = "all", warm_up_and_decay(rate, steps)
        augmentation = camera_policy(any_orientation=False)
    datasets = [dataset_of(arguments.dataset, subset) for subset in SUBSETS]
    model.train(*datasets, learning_rate=rate, epochs=epochs, layers=layers, augmentation=augmentation)
    model.inference_model(config_for(arguments, "evaluate")).evaluate(datasets[1])


def color_splash(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image in grey, in colour where a mask is.

    image: uint8 [h, w, 3] RGB; mask: bool [h, w, N]. Returns uint8 [h, w, 3].
    """
    grey = (gray2rgb(rgb2gray(image)) * 255).astype(np.uint8)
    inside = np.any(mask, axis=-1, keepdims=True)
    return np.where(inside, image, grey)


def read_image(path: str) -> np.ndarray:
    """A picture from a file or an address as uint8 [h, w, 3] RGB, turned as viewers show it."""
    file = urllib.request.urlopen(path) if "://" in path else path
    with Image.open(file) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def detect_and_color_splash(
    model: MaskRCNN, image_path: str | None = None, video_path: str | None = None
) -> Path:
    """Splash an image (file or address) or a video (file, address or number of a camera).

    Writes splash_<time>.png or .avi into the current folder and returns its name. A video keeps its frame
    rate; Ctrl-C leaves no file, except with a camera, where it ends the recording.
    Raises ValueError without a source, OSError if it cannot be read.
    """
    if not (image_path or video_path):
        raise ValueError("Give an image_path or a video_path. Received: none")
    stem = f"splash_{datetime.datetime.now():%Y%m%dT%H%M%S}"
    if image_path:
        image = read_image(image_path)
        found = model.detect([image], verbose=1)[0]
        output = Path(f"{stem}.png")
        temporary = Path(f".{stem}.part.png")
        Image.fromarray(color_splash(image, found["masks"])).save(temporary)
        os.replace(temporary, output)
    else:
        output = Path(f"{stem}.avi")
        detect_video(
            video_path, output, model.detect, lambda frame, found: color_splash(frame, found["masks"])
        )
    print("Saved to", output)
    return output


def load_weights(model: MaskRCNN, choice: str, new_classes: bool = False) -> None:
    """Load "coco", "imagenet", "last", a path, or nothing for "scratch".

    new_classes: leave out the layers that know the classes of a path, and begin a new run.
    """
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    elif new_classes:
        model.load_weights(choice, by_name=True, exclude=CLASS_LAYERS, resume=False)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


def config_for(arguments: argparse.Namespace, command: str) -> Config:
    """The settings of a command."""
    config = LightBalloonConfig() if arguments.light else BalloonConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    if command != "train":
        config.GPU_COUNT = 1
        config.IMAGES_PER_GPU = 1
    if command == "evaluate":
        config.DETECTION_MIN_CONFIDENCE = 0  # average precision weighs detections by their scores
    return config


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "evaluate", "splash"])
    parser.add_argument("--dataset", type=Path, help="folder with train/ and val/")
    parser.add_argument("--weights", required=True, help="coco, imagenet, last, scratch, or a path")
    parser.add_argument("--logs", type=Path, default=ROOT_DIR / "logs")
    parser.add_argument("--image", help="file or address of an image to splash")
    parser.add_argument("--video", help="file or address of a video to splash, or number of a camera")
    parser.add_argument("--light", action="store_true", help="MobileNetV2, for a machine without a GPU")
    parser.add_argument("--new-classes", action="store_true", help="train: weights of other objects")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="steps per epoch")
    arguments = parser.parse_args()
    if arguments.command != "splash" and not arguments.dataset:
        parser.error(f"{arguments.command} needs --dataset")
    if arguments.command == "splash" and not (arguments.image or arguments.video):
        parser.error("splash needs --image or --video")

    config = config_for(arguments, arguments.command)
    config.display()
    model = MaskRCNN("training" if arguments.command == "train" else "inference", config, arguments.logs)
    load_weights(model, arguments.weights, arguments.new_classes)
    if arguments.command == "train":
        train(model, arguments)
    elif arguments.command == "evaluate":
        model.evaluate(dataset_of(arguments.dataset, "val"))
    else:
        detect_and_color_splash(model, arguments.image, arguments.video)


if __name__ == "__main__":
    main()

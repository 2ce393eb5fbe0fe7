"""Shapes: squares, circles and triangles drawn on the fly, a minimal dataset to train on.

    python samples/shapes/shapes.py train --weights=coco             # from the published COCO weights
    python samples/shapes/shapes.py train --light                    # from scratch on a CPU
    python samples/shapes/shapes.py detect --light --weights=last    # draw one prediction

Weights and shapes.png are written to the current folder.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import cv2
import numpy as np

import mrcnn
from mrcnn.training import runs

COCO_WEIGHTS = Path("mask_rcnn_coco.h5")  # downloaded to the current folder if it is missing
# The layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]

MARGIN = 20  # pixels between the center of a shape and the border; also half the side of the smallest shape

Color = tuple[int, int, int]
Dimensions = tuple[int, int, int]  # center x, center y and half size in pixels
Shape = tuple[str, Color, Dimensions]


class ShapesConfig(mrcnn.Config):
    """Small images, one GPU or CPU."""

    NAME = "shapes"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 8
    NUM_CLASSES = 1 + 3  # background and three shapes
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    TRAIN_ROIS_PER_IMAGE = 32
    STEPS_PER_EPOCH = 100
    VALIDATION_STEPS = 5


class LightShapesConfig(ShapesConfig, mrcnn.LightConfig):
    """The same data for a network that trains on a CPU."""

    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class ShapesDataset(mrcnn.Dataset):
    """Images of one to four shapes on a plain background. Python's `random` draws them."""

    def load_shapes(self, count: int, height: int, width: int) -> None:
        """Add `count` new images of a size in pixels. Sides must be at least 80 pixels."""
        for class_id, name in enumerate(("square", "circle", "triangle"), start=1):
            self.add_class("shapes", class_id, name)
        for number in range(count):
            bg_color, shapes = self.random_image(height, width)
            self.add_image(
                "shapes", number, path=None, width=width, height=height, bg_color=bg_color, shapes=shapes
            )

    def load_image(self, image_id: int) -> np.ndarray:
        """Draw the image from its description, uint8 `[height, width, 3]`."""
        info = self.image_info[image_id]
        image = np.full((info["height"], info["width"], 3), info["bg_color"], dtype=np.uint8)
        for shape, color, dims in info["shapes"]:
            image = self.draw_shape(image, shape, dims, color)
        return image

    def image_reference(self, image_id: int) -> list[Shape]:
        """Return the shapes of an image."""
        return self.image_info[image_id]["shapes"]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the visible part of each shape, bool `[height, width, shapes]`, and class ids, int32."""
        info = self.image_info[image_id]
        masks = []
        uncovered = np.ones((info["height"], info["width"]), dtype=bool)
        for shape, _, dims in reversed(info["shapes"]):  # the last shape is on top
            canvas = np.zeros((info["height"], info["width"], 1), dtype=np.uint8)
            inside = self.draw_shape(canvas, shape, dims, 1)[:, :, 0] > 0
            masks.append(inside & uncovered)
            uncovered &= ~inside
        class_ids = [self.class_names.index(shape) for shape, _, _ in info["shapes"]]
        return np.stack(masks[::-1], axis=-1), np.array(class_ids, dtype=np.int32)

    def draw_shape(self, image: np.ndarray, shape: str, dims: Dimensions, color: Color | int) -> np.ndarray:
        """Draw a filled shape into an image and return the image.

        Args:
            image: uint8 `[height, width, channels]`.
            shape: "square", "circle" or "triangle".
            dims: Center x, center y and half size in pixels.
            color: One value per channel, or one for all.

        Raises:
            ValueError: If `shape` is none of these.
        """
        x, y, size = dims
        if shape == "square":
            return cv2.rectangle(image, (x - size, y - size), (x + size, y + size), color, -1)
        if shape == "circle":
            return cv2.circle(image, (x, y), size, color, -1)
        if shape == "triangle":
            half_base = size / math.sin(math.radians(60))
            corners = [(x, y - size), (x - half_base, y + size), (x + half_base, y + size)]
            return cv2.fillPoly(image, [np.array(corners, dtype=np.int32)], color)
        raise ValueError(f'`shape` must be "square", "circle" or "triangle". Received: shape={shape!r}')

    def random_shape(self, height: int, width: int) -> Shape:
        """Return the name, the color and the dimensions of a random shape that fits an image size."""
        shape = random.choice(["square", "circle", "triangle"])
        color = (random.randint(0, 255), random.randint(0, 255), random.randint(0, 255))
        y = random.randint(MARGIN, height - MARGIN - 1)
        x = random.randint(MARGIN, width - MARGIN - 1)
        return shape, color, (x, y, random.randint(MARGIN, height // 4))

    def random_image(self, height: int, width: int) -> tuple[np.ndarray, list[Shape]]:
        """Return a background color and shapes. Of two shapes that overlap much, the later one stays."""
        bg_color = np.array([random.randint(0, 255) for _ in range(3)])
        shapes = [self.random_shape(height, width) for _ in range(random.randint(1, 4))]
        boxes = np.array([(y - s, x - s, y + s, x + s) for _, _, (x, y, s) in shapes])
        kept = mrcnn.utils.non_max_suppression(boxes, np.arange(len(shapes)), 0.3)
        return bg_color, [shape for number, shape in enumerate(shapes) if number in kept]


def load_dataset(count: int, config: mrcnn.Config) -> ShapesDataset:
    """Return `count` new images of the size in a config, prepared for training."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM)
    dataset.prepare()
    return dataset


def load_weights(model: mrcnn.MaskRCNN, choice: str) -> None:
    """Load "coco", "imagenet", "last" or a path into a model. "scratch" keeps random weights."""
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            mrcnn.utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


def train(config: mrcnn.Config, arguments: argparse.Namespace) -> None:
    """Train the heads of loaded weights; with --light or from scratch, all layers with the camera policy.

    With --light, the weights of a run continue its training where it stopped, if --epochs and --steps are the
    same. Without, they do not tell how the run began, and the heads train.
    """
    model = mrcnn.MaskRCNN("training", config, arguments.logs)
    load_weights(model, arguments.weights)
    stage, augmentation = mrcnn.schedules.Stage(config.LEARNING_RATE, arguments.epochs, "heads"), None
    if arguments.light or arguments.weights == "scratch":
        steps = arguments.epochs * config.STEPS_PER_EPOCH
        rate = mrcnn.schedules.warm_up_and_decay(config.LEARNING_RATE, steps)
        whole = [mrcnn.schedules.Stage(rate, arguments.epochs, "all")]
        # If nothing is left, `model.train` warns.
        (stage,) = mrcnn.schedules.remaining(whole, model.epoch, config.STEPS_PER_EPOCH) or whole
        augmentation = mrcnn.camera_policy(any_orientation=False)
    model.train(
        load_dataset(500, config), load_dataset(50, config), **stage._asdict(), augmentation=augmentation
    )


def detect(config: mrcnn.Config, arguments: argparse.Namespace) -> None:
    """Detect the shapes of one new image and write the drawing."""
    config.IMAGES_PER_GPU = 1
    model = mrcnn.MaskRCNN("inference", config, arguments.logs)
    load_weights(model, arguments.weights)
    dataset = load_dataset(1, config)
    image = dataset.load_image(0)
    result = model.detect([image])[0]
    drawing = mrcnn.visualize.overlay_instances(
        image,
        result["rois"],
        result["masks"],
        result["class_ids"],
        dataset.class_names,
        result["scores"],
        scale=4,
    )
    cv2.imwrite(str(arguments.output), cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR))
    print(f"Found {len(result['scores'])} shapes; there are {len(dataset.image_reference(0))}.")
    print(f"Picture: {arguments.output}")


def config_for(arguments: argparse.Namespace) -> mrcnn.Config:
    """Return the settings of a command line."""
    config = LightShapesConfig() if arguments.light else ShapesConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    return config


def parse_arguments() -> argparse.Namespace:
    """Read the command line. An invalid value ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], usage="%(prog)s {train,detect} [options]"
    )
    parser.add_argument("command", choices=["train", "detect"])
    parser.add_argument(
        "--weights",
        default="scratch",
        help="scratch, coco or imagenet (both without --light), last, or a path (scratch)",
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of training runs (logs)")
    parser.add_argument("--epochs", type=int, default=1, help="train: total number of epochs (1)")
    parser.add_argument("--steps", type=int, help="train: steps per epoch (100)")
    parser.add_argument("--light", action="store_true", help="use MobileNetV2, for a machine without a GPU")
    parser.add_argument("--output", type=Path, default=Path("shapes.png"), help="detect: image to write")
    arguments = parser.parse_args()
    error = argument_error(arguments)
    if error:
        parser.exit(2, f"{error}\n")
    return arguments


def argument_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about what is wrong with the arguments, if anything, without heavy imports."""
    for name in ("epochs", "steps"):
        count = getattr(arguments, name)
        if count is not None and count < 1:
            return f"--{name} must be at least 1. Received: {count}"
    if not arguments.output.absolute().parent.is_dir():
        return f"--output must be in an existing folder. Received: {arguments.output}"
    if arguments.light and arguments.weights in ("coco", "imagenet"):
        network = {"coco": "ResNet-101", "imagenet": "ResNet-50"}[arguments.weights]
        return (
            f"--weights={arguments.weights} is a {network}, which --light does not build. "
            "Use --weights=scratch, last or a path."
        )
    if arguments.weights == "last":
        try:
            runs.find_last(arguments.logs, config_for(arguments).NAME)
        except FileNotFoundError as error:
            return f"--weights=last: {error}"
    elif arguments.weights not in ("scratch", "coco", "imagenet") and not Path(arguments.weights).is_file():
        return f"--weights: there is no file {arguments.weights}."
    return None


def main() -> None:
    """Train, or detect."""
    arguments = parse_arguments()
    commands = {"train": train, "detect": detect}
    commands[arguments.command](config_for(arguments), arguments)


if __name__ == "__main__":
    main()

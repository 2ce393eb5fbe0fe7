"""Shapes: squares, circles and triangles drawn on the fly, the smallest data set to train on.

python samples/shapes/shapes.py train --weights=coco             # from the published COCO weights
python samples/shapes/shapes.py train --light                    # from scratch on a CPU
python samples/shapes/shapes.py detect --light --weights=last    # draw one prediction
"""

import argparse
import math
import random
from pathlib import Path

import cv2
import numpy as np

from mrcnn import utils, visualize
from mrcnn.config import Config, LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.model import MaskRCNN
from mrcnn.training.schedules import warm_up_and_decay

ROOT_DIR = Path(__file__).resolve().parents[2]
COCO_WEIGHTS = ROOT_DIR / "mask_rcnn_coco.h5"
# Layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]

MARGIN = 20  # pixels between a shape's centre and the border; also half the side of the smallest shape


class ShapesConfig(Config):
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


class LightShapesConfig(ShapesConfig, LightConfig):
    """The same data for a network that trains on a CPU."""

    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class ShapesDataset(utils.Dataset):
    """Images of one to four shapes on a plain background; all chance comes from Python's `random`."""

    def load_shapes(self, count: int, height: int, width: int) -> None:
        """Make up `count` images of the given size; sides must be at least 80 pixels."""
        for class_id, name in enumerate(("square", "circle", "triangle"), start=1):
            self.add_class("shapes", class_id, name)
        for number in range(count):
            bg_color, shapes = self.random_image(height, width)
            self.add_image(
                "shapes", number, path=None, width=width, height=height, bg_color=bg_color, shapes=shapes
            )

    def load_image(self, image_id: int) -> np.ndarray:
        """The image drawn from its description, uint8 [height, width, 3]."""
        info = self.image_info[image_id]
        image = np.full((info["height"], info["width"], 3), info["bg_color"], dtype=np.uint8)
        for shape, shape_color, dims in info["shapes"]:
            image = self.draw_shape(image, shape, dims, shape_color)
        return image

    def image_reference(self, image_id: int) -> list:
        """The list of shapes of an image."""
        return self.image_info[image_id]["shapes"]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The visible part of each shape, bool [height, width, N], and class ids int32 [N]."""
        info = self.image_info[image_id]
        masks = []
        free = np.ones((info["height"], info["width"]), dtype=bool)
        for shape, _, dims in reversed(info["shapes"]):  # the last is on top
            canvas = np.zeros((info["height"], info["width"], 1), dtype=np.uint8)
            inside = self.draw_shape(canvas, shape, dims, 1)[:, :, 0] > 0
            masks.append(inside & free)
            free &= ~inside
        class_ids = [self.class_names.index(shape) for shape, _, _ in info["shapes"]]
        return np.stack(masks[::-1], axis=-1), np.array(class_ids, dtype=np.int32)

    def draw_shape(self, image: np.ndarray, shape: str, dims: tuple, color: tuple | int) -> np.ndarray:
        """Paint a filled shape into the image: dims is (centre x, centre y, half size) in pixels."""
        x, y, size = dims
        if shape == "square":
            return cv2.rectangle(image, (x - size, y - size), (x + size, y + size), color, -1)
        if shape == "circle":
            return cv2.circle(image, (x, y), size, color, -1)
        if shape == "triangle":
            half_base = size / math.sin(math.radians(60))
            corners = [(x, y - size), (x - half_base, y + size), (x + half_base, y + size)]
            return cv2.fillPoly(image, [np.array(corners, dtype=np.int32)], color)
        raise ValueError(f"shape must be square, circle or triangle. Received: shape={shape!r}")

    def random_shape(self, height: int, width: int) -> tuple[str, tuple, tuple]:
        """Name, colour and (x, y, half size) of a shape that fits the image."""
        shape = random.choice(["square", "circle", "triangle"])
        shape_color = tuple(random.randint(0, 255) for _ in range(3))
        y = random.randint(MARGIN, height - MARGIN - 1)
        x = random.randint(MARGIN, width - MARGIN - 1)
        return shape, shape_color, (x, y, random.randint(MARGIN, height // 4))

    def random_image(self, height: int, width: int) -> tuple[np.ndarray, list]:
        """Background colour and shapes of an image; where two overlap much, the later one stays."""
        bg_color = np.array([random.randint(0, 255) for _ in range(3)])
        shapes = [self.random_shape(height, width) for _ in range(random.randint(1, 4))]
        boxes = np.array([(y - s, x - s, y + s, x + s) for _, _, (x, y, s) in shapes])
        kept = utils.non_max_suppression(boxes, np.arange(len(shapes)), 0.3)
        return bg_color, [shape for number, shape in enumerate(shapes) if number in kept]


def dataset_of(count: int, config: Config) -> ShapesDataset:
    """A prepared data set of `count` new images."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM)
    dataset.prepare()
    return dataset


def load_weights(model: MaskRCNN, choice: str) -> None:
    """Load "coco", "imagenet", "last", a path, or nothing for "scratch"."""
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


def train(config: Config, arguments: argparse.Namespace) -> None:
    """Train everything from scratch, under other light, too; with loaded weights the heads only."""
    model = MaskRCNN("training", config, arguments.logs)
    load_weights(model, arguments.weights)
    layers, rate, augmentation = "heads", config.LEARNING_RATE, None
    if arguments.weights == "scratch":
        layers, rate = "all", warm_up_and_decay(rate, arguments.epochs * config.STEPS_PER_EPOCH)
        augmentation = camera_policy(any_orientation=False)
    data = dataset_of(500, config), dataset_of(50, config)
    model.train(*data, rate, arguments.epochs, layers, augmentation)


def detect(config: Config, arguments: argparse.Namespace) -> None:
    """Find the shapes of one new image and write the picture."""
    config.IMAGES_PER_GPU = 1
    model = MaskRCNN("inference", config, arguments.logs)
    load_weights(model, arguments.weights)
    dataset = dataset_of(1, config)
    image = dataset.load_image(0)
    found = model.detect([image], verbose=1)[0]
    picture = visualize.overlay_instances(
        image,
        found["rois"],
        found["masks"],
        found["class_ids"],
        dataset.class_names,
        found["scores"],
        scale=4,
    )
    cv2.imwrite(str(arguments.output), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"Found {len(found['scores'])} shapes; there are {len(dataset.image_reference(0))}.")
    print(f"Picture: {arguments.output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "detect"])
    parser.add_argument("--weights", default="scratch", help="scratch, coco, imagenet, last, or a path")
    parser.add_argument("--logs", type=Path, default=ROOT_DIR / "logs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None, help="steps per epoch")
    parser.add_argument("--light", action="store_true", help="MobileNetV2, for a machine without a GPU")
    parser.add_argument("--output", type=Path, default=Path("shapes.png"))
    arguments = parser.parse_args()
    config = LightShapesConfig() if arguments.light else ShapesConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    {"train": train, "detect": detect}[arguments.command](config, arguments)


if __name__ == "__main__":
    main()

"""A small dataset held in memory, its configuration, and the recorded one of the same kind."""

import re

import numpy as np
from golden_files import text, unpack_bits

from mrcnn.config import Config
from mrcnn.dataset import Dataset


class ToyConfig(Config):
    NAME = "toy"
    NUM_CLASSES = 4
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 3
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MAX_GT_INSTANCES = 10


class ArrayDataset(Dataset):
    """Images, masks and class ids held in memory; one source `fix` with classes 1 to 3."""

    def __init__(self, items):
        super().__init__()
        for class_id in (1, 2, 3):
            self.add_class("fix", class_id, f"class {class_id}")
        self.items = list(items)
        for index in range(len(self.items)):
            self.add_image("fix", index, f"picture_{index}.png")
        self.prepare()

    def load_image(self, image_id):
        return self.items[image_id][0]

    def load_mask(self, image_id):
        return self.items[image_id][1:]


def rectangles(seed, count=3, shape=(100, 120)):
    """An image with bright rectangles, their masks and class ids."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (*shape, 3)).astype(np.uint8)
    masks = np.zeros((*shape, count), dtype=bool)
    for index in range(count):
        y, x = rng.integers(0, shape[0] - 30), rng.integers(0, shape[1] - 30)
        height, width = rng.integers(8, 30, 2)
        masks[y : y + height, x : x + width, index] = True
        image[y : y + height, x : x + width] = 150 + 10 * index
    return image, masks, rng.integers(1, 4, count).astype(np.int32)


def toy_dataset(count=7):
    return ArrayDataset(rectangles(seed) for seed in range(count))


def recorded_dataset(recording):
    """The images of a recording of the data pipeline."""
    count = sum(bool(re.fullmatch(r"in\d+_image", key)) for key in recording)
    return ArrayDataset(
        (
            recording[f"in{index}_image"],
            unpack_bits(recording, f"in{index}_mask")
            if f"in{index}_mask_shape" in recording
            else recording[f"in{index}_mask"].astype(bool),
            recording[f"in{index}_class_ids"],
        )
        for index in range(count)
    )


def recorded_config(recording, kind="sq"):
    """Its configuration in one of the recorded resize modes."""
    described = text(recording["cfg"])
    config = ToyConfig()
    for name, value in re.findall(r"([A-Z_]+) (\([\d,]+\)|\d+)", described["common"]):
        numbers = [int(number) for number in re.findall(r"\d+", value)]
        setattr(config, name, tuple(numbers) if value.startswith("(") else numbers[0])
    config.IMAGE_RESIZE_MODE = described[kind].split(";")[0]
    return config

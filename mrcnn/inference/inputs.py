"""Convert images to the inputs of the network: channels, value range, size, mean, and image meta."""

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.geometry import preprocessing
from mrcnn.geometry.image_meta import compose_image_meta
from mrcnn.geometry.images import (
    check_enlargement,
    check_molded_size,
    pad_after,
    padded_shape,
    resize_image,
)
from mrcnn.inference.reduced_images import ReducedImage
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config


@dataclass(frozen=True)
class MoldedImage:
    """One image as the network takes it, with the data to map its detections back.

    Attributes:
        pixels: float [H, W, channels], resized, padded and mean-subtracted.
        meta: Image meta [12 + classes].
        window: (y1, x1, y2, x2) in pixels of the molded image: the part that shows the original image.
        original_shape: (height, width, ...) of the original image, to whose coordinates detections are
            mapped.
        half_open, mask_pasting: See `half_open_boxes` and `mask_pasting` in `mrcnn.config.conventions`.
    """

    pixels: np.ndarray
    meta: np.ndarray
    window: tuple[int, ...]
    original_shape: tuple[int, ...]
    half_open: bool = False
    mask_pasting: str = "box"


# Sides of molded images, if each size compiles: these, then their doubles, and so on.
LADDER = (256, 384)


def on_ladder(image: MoldedImage, config: "Config") -> MoldedImage:
    """Pad a molded image at the bottom and on the right to one of few sizes.

    The window stays where it is. Near the padding, features and therefore scores change a little.

    Args:
        image: The molded image.
        config: Read for IMAGE_RESIZE_MODE and IMAGE_MAX_DIM, which may limit the sides of molded images.
    """
    largest = None
    if config.IMAGE_RESIZE_MODE != "none" and config.IMAGE_MAX_DIM:
        largest = -(-config.IMAGE_MAX_DIM // 64) * 64
    height, width = (ladder_side(side, largest) for side in image.pixels.shape[:2])
    pixels = pad_after(image.pixels, (height, width))
    meta = np.array(image.meta)
    meta[meta_fields.IMAGE_SHAPE] = pixels.shape
    return dataclasses.replace(image, pixels=pixels, meta=meta)


def ladder_side(side: int, largest: int | None = None) -> int:
    """Return the smallest side of the LADDER that holds a side. `largest` limits it, but not below `side`."""
    factor = 1
    while LADDER[-1] * factor < side:
        factor *= 2
    step = next(factor * step for step in LADDER if factor * step >= side)
    return step if largest is None else max(side, min(step, largest))


def box_rules(config: "Config") -> dict[str, Any]:
    """Return the conventions for mapping detections to boxes and masks of the original image."""
    conventions = config.conventions()
    return {"half_open": conventions.half_open_boxes, "mask_pasting": conventions.mask_pasting}


def whole_image_config(config: "Config") -> "Config":
    """Return a copy of a training Config that detects in one whole image at a time.

    If training crops images ("crop"), the copy pads them ("pad64").
    """
    config = copy.deepcopy(config)
    config.GPU_COUNT = config.IMAGES_PER_GPU = 1
    if config.IMAGE_RESIZE_MODE == "crop":
        config.IMAGE_RESIZE_MODE = "pad64"
    return config


def image_list(images: Image | ReducedImage | Iterable[Image | ReducedImage]) -> list[Any]:
    """Return images as a list. A single array [height, width] or [height, width, channels] is one image."""
    is_one_array = getattr(images, "ndim", None) in (2, 3)
    if is_one_array or not isinstance(images, Iterable):
        return [as_image(images)]
    return [as_image(image) for image in images]


def as_image(image: Any) -> Image | ReducedImage:
    """Return an image as an array, unless it is a `ReducedImage`.

    Raises:
        InvalidDataError: If it is not an array of numbers.
    """
    if isinstance(image, ReducedImage):
        return image
    try:
        return np.asarray(image)
    except ValueError as error:  # lists of different lengths
        raise InvalidDataError(f"An image must be an array of numbers: {error}") from error


def as_molded(pixels: np.ndarray, meta: np.ndarray, config: "Config") -> MoldedImage:
    """Return an image that the program has molded itself. Detections are mapped to its own pixels.

    Args:
        pixels: float [H, W, channels].
        meta: Image meta [12 + classes].
        config: The settings of the network.

    Raises:
        ValueError: If the size does not fit the network.
    """
    check_molded_size(pixels.shape, config.IMAGE_RESIZE_MODE)
    return MoldedImage(pixels, meta, (0, 0, *pixels.shape[:2]), pixels.shape, **box_rules(config))


def mold_inputs(images: Sequence[Image | ReducedImage], config: "Config") -> list[MoldedImage]:
    """Prepare images for the network: fit channels and value range, resize, subtract the mean.

    Args:
        images: Arrays [height, width, channels], or gray [height, width]; uint8, uint16 or float; or reduced
            images, whose detections refer to the whole image.
        config: Read for the IMAGE_* settings, CONTRAST_PERCENTILES, MEAN_PIXEL and NUM_CLASSES.

    Raises:
        ValueError: If an image has the wrong number of channels, or its molded size does not fit the network.
        InvalidDataError: If an image is so thin that its molded size would be huge.
    """
    return [_mold_input(image, config) for image in images]


def _mold_input(image: Image | ReducedImage, config: "Config") -> MoldedImage:
    size, image = image.shape[:2], image.pixels if isinstance(image, ReducedImage) else image
    original = preprocessing.as_network_image(image, config)
    check_enlargement((original.shape[0], original.shape[1]), config)
    if config.IMAGE_RESIZE_MODE == "shortest":
        original = original.astype(np.float32)  # interpolated values are not rounded
    resized, window, scale, _, _ = resize_image(
        original,
        min_dim=config.IMAGE_MIN_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        max_dim=config.IMAGE_MAX_DIM,
        mode=config.IMAGE_RESIZE_MODE,
    )
    pixels = preprocessing.network_pixels(resized, config)
    if config.IMAGE_RESIZE_MODE == "shortest":  # pad with the mean color, which is 0 now
        pixels = pad_after(pixels, padded_shape([pixels.shape]))
    check_molded_size(pixels.shape, config.IMAGE_RESIZE_MODE)
    no_active_classes = np.zeros([config.NUM_CLASSES], dtype=np.int32)
    scale *= original.shape[0] / size[0]  # of the whole image
    whole = (*size, *original.shape[2:])
    meta = compose_image_meta(0, whole, pixels.shape, window, scale, no_active_classes)
    return MoldedImage(pixels, meta, window, whole, **box_rules(config))

"""From an image to the input of an exported file."""

from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry.images import (
    SIZE_MULTIPLE,
    check_enlargement,
    image_scale,
    molded_size,
    resize_image,
)
from mrcnn.geometry.preprocessing import as_network_image, check_values, mold_image
from mrcnn.runtime.metadata import Metadata
from mrcnn.typing import Box, Image

if TYPE_CHECKING:
    from mrcnn.config import Config


def prepare(image: Image, metadata: Metadata, config: "Config") -> tuple[Image, Image, Box]:
    """Resize an image as the settings of a file say.

    Args:
        image: [height, width, channels], or gray [height, width].
        metadata: The description of the file.
        config: Its settings, as `Metadata.read_config` returns them.

    Returns:
        The original image with the channels of the network, the pixels [h, w, C] that the file takes, and the
        window of these pixels that shows the image.

    Raises:
        ValueError: If the image does not fit the settings, or is so thin that its molded size would be huge.
    """
    original = as_network_image(image, config)
    check_enlargement((original.shape[0], original.shape[1]), config)
    pixels, window, _, _, _ = resize_image(
        original.astype(np.float32) if config.IMAGE_RESIZE_MODE == "shortest" else original,
        min_dim=config.IMAGE_MIN_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        max_dim=config.IMAGE_MAX_DIM,
        mode=config.IMAGE_RESIZE_MODE,
    )
    check_values(mold_image(pixels, config))
    if metadata.size is None:  # the file pads by itself
        y1, x1, y2, x2 = window
        pixels, window = pixels[y1:y2, x1:x2], (0, 0, y2 - y1, x2 - x1)
    else:
        pixels = _pad(pixels, metadata, config)
    return original, as_dtype(pixels, metadata.dtype), window


def takes(size: tuple[int, int], metadata: Metadata, config: "Config") -> bool:
    """Return whether a file takes images of a size.

    Args:
        size: (height, width) of the original image.
        metadata: The description of the file.
        config: Its settings, as `Metadata.read_config` returns them.
    """
    return metadata.size is None or _fits(molded_size(size, config), metadata.size, metadata.padding)


def original_size(size: tuple[int, int], config: "Config") -> tuple[int, int]:
    """Return the (height, width) of an original image that is resized to the one size that a file takes.

    Args:
        size: The (height, width) that the file takes.
        config: Read for IMAGE_RESIZE_MODE, IMAGE_MIN_DIM, IMAGE_MAX_DIM and IMAGE_MIN_SCALE.

    Raises:
        ValueError: If images are always resized to other sizes.
    """
    mode, min_dim, min_scale = config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM, config.IMAGE_MIN_SCALE
    scale = max(1, image_scale(size, min_dim, config.IMAGE_MAX_DIM, min_scale, mode))
    short = max(1, int(min(size) / scale))
    original = (size[0] * short // min(size), size[1] * short // min(size))
    molded = molded_size(original, config)
    # With "shortest", the file pads smaller images.
    if molded == size or (mode == "shortest" and molded[0] <= size[0] and molded[1] <= size[1]):
        return original
    raise ValueError(
        f"`size` must be a size to which images are resized. Received: size={size}. With IMAGE_RESIZE_MODE="
        f"{mode!r}, IMAGE_MIN_DIM={min_dim} and IMAGE_MIN_SCALE={min_scale}, an image of {original[0]} x "
        f"{original[1]} pixels becomes {molded[0]} x {molded[1]}. Choose a larger size, or change these "
        "settings."
    )


def _pad(pixels: Image, metadata: Metadata, config: "Config") -> Image:
    """Fit an image into the one size that the file takes."""
    size = metadata.size
    assert size is not None
    height, width = pixels.shape[:2]
    if not _fits((height, width), size, metadata.padding):
        rows, columns = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (height, width))
        raise ValueError(
            f"This file takes images of {size[0]} x {size[1]} pixels. Received: an image of {height} x "
            f"{width} pixels after resizing. Export the model with size=({rows}, {columns}) "
            f"(--size {rows} {columns}), or without a size."
        )
    if metadata.padding != "after":
        return pixels
    padded = np.empty((*size, pixels.shape[2]), np.float32)
    padded[...] = config.MEAN_PIXEL
    padded[:height, :width] = pixels
    return padded


def _fits(molded: tuple[int, int], size: tuple[int, int], padding: str) -> bool:
    """Return whether a resized image fits into the one size that a file takes."""
    if padding == "after":
        return molded[0] <= size[0] and molded[1] <= size[1]
    return molded == size


def as_dtype(image: np.ndarray, dtype: str) -> np.ndarray:
    """Return an image in the dtype that a file takes.

    Raises:
        ValueError: If the file takes uint8 and the image is not uint8.
    """
    if dtype == "uint8" and image.dtype != np.uint8:
        raise ValueError(
            f"This file takes uint8 images. Received: an image that is {image.dtype} after preparation. "
            'Convert it, or export the model with dtype="float32".'
        )
    return np.ascontiguousarray(image, dtype=dtype)

"""Conversion of original images to the channels, contrast and value range of the network; the mean.

Axes: h, w original image; H, W molded image.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.geometry.value_range import SAMPLED_PIXELS, scaled, value_range
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config

ALPHA_CHANNELS = 4
NUMBER_KINDS = "buif"  # of dtypes: bool, unsigned and signed integers, floats
# An 8-bit channel with fewer gray levels than this is not stretched to the full range, which would be noise.
LEAST_LEVELS = 8
# Networks expect values near 0..255. Single pixels may be far brighter, but activations must not overflow.
LARGEST_VALUE = 1e9


def with_channels(image: Image, channels: int) -> Image:
    """Convert an image to the number of channels that the network takes.

    A gray image is repeated over three channels, three equal channels become one, and the alpha channel of
    an RGBA image is dropped.

    Args:
        image: [h, w] or [h, w, c], any dtype.
        channels: The number of channels, IMAGE_CHANNEL_COUNT.

    Returns:
        Array [h, w, channels] of the same dtype.

    Raises:
        InvalidDataError: If the image has another number of channels or no pixels, or is not an array of
            numbers.
    """
    image = np.asarray(image)
    if image.dtype.kind not in NUMBER_KINDS:
        raise InvalidDataError(
            f"An image must be an array of numbers. Received: image.dtype={image.dtype}, "
            f"image.shape={image.shape}. Read image files first, for instance with mrcnn.files.images."
        )
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if image.ndim == 3 and image.size == 0:
        raise InvalidDataError(f"An image must have at least one pixel. Received: image.shape={image.shape}")
    if image.ndim == 3 and image.shape[2] == channels:
        return image
    if image.ndim == 3 and image.shape[2] == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if image.ndim == 3 and image.shape[2] == ALPHA_CHANNELS and channels == 3:
        return image[:, :, :3]
    if channels == 1 and is_repeated_gray(image):
        return image[:, :, :1]
    raise InvalidDataError(
        f"An image must have shape (height, width, {channels}), because IMAGE_CHANNEL_COUNT={channels}. "
        f"Received: image.shape={image.shape}. Convert it, or set IMAGE_CHANNEL_COUNT and MEAN_PIXEL."
    )


def check_choice(channels: Sequence[int] | None, config: "Config") -> None:
    """Check that channels which were chosen for detection are as many as the network takes.

    Without this check, the fourth of four channels would count as the alpha channel, and be dropped.

    Args:
        channels: Numbers of the channels; None for no choice.
        config: Read for IMAGE_CHANNEL_COUNT.

    Raises:
        InvalidDataError: If they are more or fewer. A single one fits three, as a gray image.
    """
    if channels is None:
        return
    takes = config.IMAGE_CHANNEL_COUNT
    if len(channels) != takes and (len(channels), takes) != (1, 3):
        number = "3, or one for a gray image" if takes == 3 else str(takes)
        raise InvalidDataError(
            f"The model takes images of {takes} channels (IMAGE_CHANNEL_COUNT). Received: "
            f"channels={tuple(channels)}. Choose {number}.",
            field="channels",
        )


def is_repeated_gray(image: Image) -> bool:
    """Return whether an image [h, w, 3] has three equal channels, as `Dataset.load_image` gives gray ones."""
    return image.ndim == 3 and image.shape[2] == 3 and bool(np.all(image == image[:, :, :1]))


def check_values(image: Image) -> None:
    """Check that a network can take an image.

    Args:
        image: Float, any shape, mean subtracted.

    Raises:
        InvalidDataError: If a value is not finite, or its magnitude exceeds LARGEST_VALUE.
    """
    # Comparisons with NaN are False.
    if image.size and not -LARGEST_VALUE <= image.min() <= image.max() <= LARGEST_VALUE:
        raise InvalidDataError(
            f"The values of an image must be finite and at most {LARGEST_VALUE:,.0f} after MEAN_PIXEL is "
            f"subtracted. Received: values from {image.min()} to {image.max()}. Scale the image, usually "
            "to 0..255."
        )


def check_finite(image: Image, file: str | os.PathLike[str] | None = None) -> None:
    """Check that an image has no NaN or infinite values.

    Args:
        image: Any shape and dtype.
        file: Its file, for the error; None if it is not known.

    Raises:
        InvalidDataError: If a value is not finite.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        count = int(np.size(image) - np.isfinite(image).sum())
        raise InvalidDataError(
            f"The values of an image must be finite. Received: {count} of {image.size} values are NaN or "
            "infinite. Replace them first, for instance with numpy.nan_to_num.",
            file=file,
        )


def stretch_contrast(image: Image, percentiles: Sequence[float] | None) -> Image:
    """Shift and scale each channel so that two of its percentiles become 0 and 255.

    This removes differences of exposure, gain and tint. Values outside are clipped. A constant channel
    becomes 0. An 8-bit channel that spans fewer than LEAST_LEVELS levels is scaled as if it spanned that
    many.

    Args:
        image: [h, w, channels], any dtype; bool counts as 0 and 255.
        percentiles: (low, high) in 0..100. None changes nothing.

    Returns:
        uint8 array of the same shape; the image itself if `percentiles` is None or the image is empty.

    Raises:
        InvalidDataError: If a value is not finite.
    """
    if percentiles is None or image.size == 0:
        return image
    check_finite(image)
    return stretch_between(image, *contrast_limits(image, percentiles))


def contrast_limits(image: Image, percentiles: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return two percentiles of each channel: low and high, float32 [channels]; bool counts as 0 and 255."""
    image = _without_bool(image)
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / SAMPLED_PIXELS)))
    low, high = np.percentile(image[::step, ::step], percentiles, axis=(0, 1)).astype(np.float32)
    return low, high


def stretch_between(image: Image, low: np.ndarray, high: np.ndarray) -> Image:
    """Shift and scale each channel so that `low` and `high` [channels] become 0 and 255.

    See `stretch_contrast`.
    """
    image = _without_bool(image)
    if image.dtype != np.uint8:
        return _stretched(image, low, high, float(np.finfo(np.float32).tiny))
    # Of an 8-bit image, each value is stretched once and each pixel is looked up.
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], image.shape[-1], axis=1)
    return _looked_up(image, _stretched(values, low, high, LEAST_LEVELS))


def _without_bool(image: Image) -> Image:
    return image * np.uint8(255) if image.dtype == bool else image


def _stretched(values: np.ndarray, low: np.ndarray, high: np.ndarray, least: float) -> np.ndarray:
    """Stretch values [..., channels]. `least` is the smallest difference of `low` and `high` that counts."""
    scale = np.float32(255) / np.maximum(high - low, least)
    stretched: np.ndarray = np.clip((values - low) * scale + np.float32(0.5), 0, 255).astype(np.uint8)
    return stretched


def as_network_image(image: Image, config: "Config") -> Image:
    """Convert an original image to the channels, contrast and value range that a Config sets.

    Applies `with_channels` (IMAGE_CHANNEL_COUNT), `stretch_contrast` (CONTRAST_PERCENTILES) and the range of
    `mrcnn.geometry.value_range` (IMAGE_VALUE_RANGE).
    """
    image = with_channels(image, config.IMAGE_CHANNEL_COUNT)
    image = stretch_contrast(image, config.CONTRAST_PERCENTILES)
    return scaled(image, value_range(image, config))


def mold_image(images: np.ndarray, config: "Config") -> np.ndarray:
    """Subtract the mean.

    Args:
        images: [..., H, W, channels], RGB, values from 0 to 255, any dtype.
        config: Read for MEAN_PIXEL [channels].

    Returns:
        The images minus the mean; float32 if MEAN_PIXEL is a float32 array, else float64.
    """
    molded: np.ndarray = np.asarray(images).astype(np.float32) - config.MEAN_PIXEL
    return molded


def network_pixels(image: Image, config: "Config") -> np.ndarray:
    """Subtract the mean and convert to float32, the input of the network.

    Args:
        image: [H, W, channels], RGB, values from 0 to 255, any dtype.
        config: Read for MEAN_PIXEL [channels].

    Returns:
        float32 [H, W, channels], the values of `mold_image`.
    """
    if image.dtype != np.uint8:
        return mold_image(image, config).astype(np.float32, copy=False)
    # A table of all 256 values is many times faster than arithmetic on the pixels.
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(image.shape[2], axis=1)
    return _looked_up(image, mold_image(levels, config).astype(np.float32))


def _looked_up(image: Image, table: np.ndarray) -> np.ndarray:
    """Return the entries of a table [256, channels] for the pixels of a uint8 image [h, w, channels]."""
    try:
        import cv2
    except ImportError:  # exported models run without it
        columns = [np.take(column, image[..., index]) for index, column in enumerate(table.T)]
        return np.stack(columns, axis=-1)
    if image.size == 0:  # OpenCV takes no empty image
        return np.empty(image.shape, table.dtype)
    return cv2.LUT(np.ascontiguousarray(image), table[np.newaxis]).reshape(image.shape)


def unmold_image(normalized_images: np.ndarray, config: "Config") -> np.ndarray:
    """Add the mean again.

    Args:
        normalized_images: [..., H, W, channels] as `mold_image` returns them.
        config: Read for MEAN_PIXEL [channels].

    Returns:
        uint8 array. Fractions are truncated; values outside 0..255 wrap around.
    """
    # Through int64, because the direct cast of values outside 0..255 differs between machines.
    image: np.ndarray = (normalized_images + config.MEAN_PIXEL).astype(np.int64).astype(np.uint8)
    return image

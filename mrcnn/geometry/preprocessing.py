"""Pictures as files and cameras give them, brought to the channels and the scale of the network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ALPHA_CHANNELS = 4
# An 8-bit channel of fewer grey levels than this is not stretched to the full range: that would be noise.
LEAST_LEVELS = 8
# Percentiles are taken of every so many pixels of a large picture.
PIXELS_LOOKED_AT = 1 << 16


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """A picture with the wanted number of channels.

    picture: [h, w] or [h, w, c]. Grey becomes RGB by repetition, RGBA loses its alpha, [h, w] gets an axis.
    Returns [h, w, channels] of the same dtype. Raises ValueError where that would have to guess.
    """
    picture = np.asarray(picture)
    if picture.ndim == 2:
        picture = picture[:, :, np.newaxis]
    if picture.ndim == 3 and picture.shape[2] == channels:
        return picture
    if picture.ndim == 3 and picture.shape[2] == 1 and channels == 3:
        return np.repeat(picture, 3, axis=2)
    if picture.ndim == 3 and picture.shape[2] == ALPHA_CHANNELS and channels == 3:
        return picture[:, :, :3]
    raise ValueError(
        f"A picture must be [height, width, {channels}] (IMAGE_CHANNEL_COUNT = {channels}). "
        f"Received: shape {picture.shape}. Convert it, or set IMAGE_CHANNEL_COUNT and MEAN_PIXEL."
    )


def on_network_scale(picture: np.ndarray, mean_pixel: Any) -> np.ndarray:
    """Values on the scale of the mean colour, which is 0..255 for all published weights.

    picture: uint8, uint16, bool or float of any shape; mean_pixel: [channels]. If the mean is on the scale
    0..255, 16-bit values are divided by 257 and floats of 0..1 multiplied by 255; else, and for all other
    dtypes and ranges, nothing changes. Returns uint8 for uint8, float32 where values were changed.
    Raises ValueError if a value is not finite.
    """
    picture = np.asarray(picture)
    mean = np.asarray(mean_pixel)
    if np.issubdtype(picture.dtype, np.floating) and not np.isfinite(picture).all():
        raise ValueError("The picture has values that are not finite (NaN or infinite).")
    if picture.dtype == bool:
        picture = picture.astype(np.float32)
    if not 1.0 < mean.max() <= 255.0:
        return picture
    if picture.dtype == np.uint16 and picture.size and picture.max() > 255:
        return picture.astype(np.float32) / np.float32(257.0)
    if (
        np.issubdtype(picture.dtype, np.floating)
        and picture.size
        and 0 <= picture.min() <= picture.max() <= 1
    ):
        return picture.astype(np.float32) * np.float32(255.0)
    return picture


def stretch_contrast(picture: np.ndarray, percentiles: Sequence[float] | None) -> np.ndarray:
    """Each channel shifted and scaled so that two of its percentiles become 0 and 255.

    picture: [h, w, channels] of any dtype; percentiles: (low, high) in 0..100; None changes nothing.
    Takes away differences of exposure, gain and tint. Values outside are clipped. A channel of one value
    becomes 0; an 8-bit one that spans less than LEAST_LEVELS is scaled as if it spanned that.
    Returns uint8 of the same shape.
    """
    if percentiles is None or picture.size == 0:
        return picture
    step = max(1, int(np.sqrt(picture.shape[0] * picture.shape[1] / PIXELS_LOOKED_AT)))
    low, high = np.percentile(picture[::step, ::step], percentiles, axis=(0, 1)).astype(np.float32)
    least = LEAST_LEVELS if picture.dtype == np.uint8 else np.finfo(np.float32).tiny
    scale = np.float32(255) / np.maximum(high - low, least)
    return np.clip((picture - low) * scale + np.float32(0.5), 0, 255).astype(np.uint8)


def as_network_image(picture: np.ndarray, config: Any) -> np.ndarray:
    """A picture of any kind with the channels, the contrast and the scale that a Config asks for.

    `with_channels` by IMAGE_CHANNEL_COUNT, `stretch_contrast` by CONTRAST_PERCENTILES, `on_network_scale` by
    MEAN_PIXEL.
    """
    picture = with_channels(picture, config.IMAGE_CHANNEL_COUNT)
    return on_network_scale(stretch_contrast(picture, config.CONTRAST_PERCENTILES), config.MEAN_PIXEL)

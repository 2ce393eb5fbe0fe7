"""Pictures as files and cameras give them, brought to the channels and the scale of the network."""

from typing import Any

import numpy as np

ALPHA_CHANNELS = 4


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


def as_network_image(picture: np.ndarray, config: Any) -> np.ndarray:
    """`with_channels` and `on_network_scale` by config.IMAGE_CHANNEL_COUNT and config.MEAN_PIXEL."""
    return on_network_scale(with_channels(picture, config.IMAGE_CHANNEL_COUNT), config.MEAN_PIXEL)

"""Contrast and value range, determined for a whole image before its tiles are processed."""

import copy
import zlib
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry import preprocessing
from mrcnn.geometry.value_range import value_range
from mrcnn.tiles.grid import grid
from mrcnn.tiles.sources import ImageSource
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config

# Larger images are sampled in a grid of windows.
READ_WHOLE = 1 << 22  # pixels
WINDOWS, WINDOW, STEP = 8, 128, 4


def sample_of(source: ImageSource) -> Image:
    """Return a sample of pixels [h, w] or [h, w, channels] from the whole image.

    A small image is returned whole. Of a larger one, every fourth pixel of 8 x 8 evenly spaced windows of
    128 x 128 pixels is taken.
    """
    height, width = source.shape
    if height * width <= READ_WHOLE:
        return source.window(0, 0, height, width)
    rows = []
    for y in _starts(height):
        windows = [
            source.window(y, x, min(y + WINDOW, height), min(x + WINDOW, width))[::STEP, ::STEP]
            for x in _starts(width)
        ]
        rows.append(np.concatenate(windows, axis=1))
    return np.concatenate(rows, axis=0)


def fingerprint_of(source: ImageSource, side: int) -> int:
    """Return a number of all pixels, which are read in windows of this side, one by one."""
    number = 0
    for window in (window for row in grid(source.shape, side, 0) for window in row):
        number = zlib.crc32(np.ascontiguousarray(source.window(*window)).tobytes(), number)
    return number


def _starts(length: int) -> list[int]:
    if length <= WINDOW * WINDOWS:
        return list(range(0, length, WINDOW))
    return [round(place) for place in np.linspace(0, length - WINDOW, WINDOWS)]


class TilePreparation:
    """Prepare tiles with the contrast of the whole image.

    Args:
        source: The image.
        config: The settings of the model.
        batch: Tiles per batch.

    Attributes:
        settings: A copy of `config` for prepared tiles: the value range is that of the whole image, and the
            contrast is not stretched again.
        fingerprint: A number of the sampled pixels.

    Raises:
        InvalidDataError: If a value of the sample is not finite, or does not fit the settings.
    """

    def __init__(self, source: ImageSource, config: "Config", batch: int) -> None:
        self._file = source.path
        sample = sample_of(source)
        preprocessing.check_finite(sample, self._file)
        self.fingerprint = zlib.crc32(np.ascontiguousarray(sample).tobytes())
        self.settings = copy.deepcopy(config)
        self.settings.IMAGES_PER_GPU = batch
        self._channels = int(config.IMAGE_CHANNEL_COUNT)
        self._limits: tuple[np.ndarray, np.ndarray] | None = None
        sample = preprocessing.with_channels(sample, self._channels)
        if config.CONTRAST_PERCENTILES is not None:
            self._limits = preprocessing.contrast_limits(sample, config.CONTRAST_PERCENTILES)
            self.settings.CONTRAST_PERCENTILES = None
            return
        values = value_range(sample, config)
        if values is not None:
            self.settings.IMAGE_VALUE_RANGE = tuple(values)

    def prepare(self, tile: Image) -> Image:
        """Return a tile [h, w] or [h, w, channels] with the channels and the contrast for the model.

        Raises:
            InvalidDataError: If a value is not finite, or the tile has other channels.
        """
        preprocessing.check_finite(tile, self._file)
        if self._limits is None:
            return tile
        tile = preprocessing.with_channels(tile, self._channels)
        return preprocessing.stretch_between(tile, *self._limits)

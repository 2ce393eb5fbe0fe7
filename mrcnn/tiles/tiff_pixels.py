"""From the stored values of a TIFF file to the pixels that viewers show, window by window.

The pixels are those of `mrcnn.files.images.read_image`.

Axes: h, w window.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.files import tiff
from mrcnn.files.images import turned
from mrcnn.typing import Image

Window = tuple[int, int, int, int]
PALETTE = 3  # a photometric interpretation
MOST_COLORS = 1 << 8
# The steps of gray levels of fewer than 8 bits, so that the brightest level is 255.
STEPS = {1: 255, 2: 85, 4: 17}


@dataclass(frozen=True)
class Appearance:
    """How viewers show the stored values and rows of a TIFF file.

    Attributes:
        is_inverted: Whether 0 is white.
        bits: Bits of a value.
        colors: uint8 [colors, 3], the color of each value; None if the values are not indices.
        orientation: EXIF orientation 1..8 of the stored rows and columns.
    """

    is_inverted: bool = False
    bits: int = 8
    colors: np.ndarray | None = None
    orientation: int = 1

    def dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of the shown values."""
        if self.colors is not None or stored.kind == "b":
            return np.dtype(np.uint8)
        return stored.newbyteorder("=")

    def shown_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the image as viewers show it, for its stored height and width."""
        return (width, height) if self.orientation >= 5 else (height, width)

    def stored_window(self, window: Window, shape: tuple[int, int]) -> Window:
        """Return the window of the stored image for a window of the shown image of size `shape`."""
        y1, x1, y2, x2 = window
        height, width = shape
        if self.orientation in (3, 4, 7, 8):
            y1, y2 = height - y2, height - y1
        if self.orientation in (2, 3, 6, 7):
            x1, x2 = width - x2, width - x1
        return (x1, y1, x2, y2) if self.orientation >= 5 else (y1, x1, y2, x2)

    def shown(self, pixels: np.ndarray) -> Image:
        """Return the pixels of a stored window as viewers show them.

        Args:
            pixels: [h, w] or [h, w, channels], as stored.

        Returns:
            [h, w] or [h, w, channels], or [w, h, ...] if the orientation exchanges rows and columns; RGB if
            the values are indices of colors.
        """
        pixels = turned(pixels, self.orientation)
        if pixels.dtype == bool:
            pixels = pixels.view(np.uint8)
        if self.colors is not None:
            return self.colors[pixels]
        if self.is_inverted:
            pixels = pixels.dtype.type(2**self.bits - 1) - pixels
        if self.bits in STEPS:
            pixels = pixels * np.uint8(STEPS[self.bits])
        return pixels


def is_gray_with_alpha(page: Any) -> bool:
    """Return whether a page of tifffile has a gray channel and an alpha channel, which viewers leave out."""
    extra = tuple(page.extrasamples or ())
    return int(page.samplesperpixel) == 2 and len(extra) == 1 and extra[0] in tiff.ALPHA_SAMPLES


def appearance_of(file: Any, has_channels: bool) -> Appearance:
    """Return how the images of a TIFF file are shown.

    Args:
        file: A tifffile.TiffFile.
        has_channels: Whether channels are chosen. Their values are those in the file, only turned upright.
    """
    found = tiff.layout(file)
    page = found.pages[0]
    orientation = tiff.orientation(page)
    is_gray = int(page.samplesperpixel) == 1 or is_gray_with_alpha(page)
    if has_channels or not is_gray or page.dtype is None or page.dtype.kind not in "bu":
        return Appearance(orientation=orientation)
    bits = int(page.bitspersample)
    colors = None
    has_own_pages = found.frames <= len(found.pages)  # not a stack behind one page
    if int(page.photometric) == PALETTE and 2**bits <= MOST_COLORS and has_own_pages:
        colors = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
    is_inverted = int(page.photometric) == tiff.WHITE_IS_ZERO
    return Appearance(is_inverted, bits, colors, orientation)

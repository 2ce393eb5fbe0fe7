"""From the stored values of a TIFF file to the pixels that viewers show, window by window.

The pixels are those of `mrcnn.files.images.read_image`.

Axes: h, w window.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.files import tiff, tiff_tags
from mrcnn.files.colors import of_values
from mrcnn.files.images import turned
from mrcnn.typing import Box, Image

JPEG = {6, 7, 33007, 34892}  # compressions whose decoder converts YCbCr to RGB
GRAY = ("L", "La")  # names of colors
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
        raw_mode: Pillow's name of the colors, see `colors.of_values`, if they must be converted to gray or
            RGB; None if not.
        profile: The ICC profile of these colors, or None.
    """

    is_inverted: bool = False
    bits: int = 8
    colors: np.ndarray | None = None
    orientation: int = 1
    raw_mode: str | None = None
    profile: bytes | None = None

    @property
    def converted(self) -> list[int]:
        """The stored channels that are converted to gray or RGB together; none if each is shown by itself."""
        return [] if self.raw_mode is None or self.colors is not None else list(range(len(self.raw_mode)))

    def channels(self, stored: int) -> int:
        """Return the number of shown channels for a number of stored ones."""
        if self.raw_mode is not None:
            return 1 if self.raw_mode in GRAY else 3
        return stored if self.colors is None else 3

    def dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of the shown values."""
        if self.colors is not None or stored.kind == "b":
            return np.dtype(np.uint8)
        return stored.newbyteorder("=")

    def shown_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the image as viewers show it, for its stored height and width."""
        return (width, height) if self.orientation >= 5 else (height, width)

    def stored_window(self, window: Box, shape: tuple[int, int]) -> Box:
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
        pixels = self._leveled(pixels) if self.colors is None else self.colors[pixels]
        return pixels if self.raw_mode is None else of_values(pixels, self.raw_mode, self.profile)

    def _leveled(self, pixels: np.ndarray) -> np.ndarray:
        """Return gray levels of which 0 is black and the largest one of up to 8 bits is 255."""
        if self.is_inverted:
            pixels = pixels.dtype.type(2**self.bits - 1) - pixels
        return pixels * np.uint8(STEPS[self.bits]) if self.bits in STEPS else pixels


def is_gray_with_alpha(page: Any) -> bool:
    """Return whether a page of tifffile has a gray channel and an alpha channel, which viewers leave out."""
    extra = tuple(page.extrasamples or ())
    return int(page.samplesperpixel) == 2 and len(extra) == 1 and extra[0] in tiff.ALPHA_SAMPLES


def has_colors(page: Any) -> bool:
    """Return whether a page of tifffile is decoded to red, green and blue."""
    if int(page.photometric) == tiff_tags.YCBCR:
        return int(page.compression) in JPEG and not page.extrasamples and not tiff.has_planes(page)
    return int(page.photometric) == tiff_tags.RGB


def appearance_of(found: tiff.Layout, index: int, has_channels: bool) -> Appearance:
    """Return how an image of a TIFF file is shown.

    Args:
        found: The images of the file.
        index: The number of the image, from 0.
        has_channels: Whether channels are chosen. Their values are those in the file, only turned upright.
    """
    orientation = tiff.orientation(found.pages[0])
    has_own_pages = found.frames <= len(found.pages)  # not a stack behind one page
    page = found.pages[index if has_own_pages else 0]
    if has_channels or page.dtype is None:
        return Appearance(orientation=orientation)
    profile = page.tags.valueof(tiff_tags.ICC_PROFILE)
    raw_mode = _raw_mode(page, profile is not None) if has_own_pages else None
    is_gray = int(page.samplesperpixel) == 1 or is_gray_with_alpha(page)
    if not is_gray or page.dtype.kind not in "bu":
        return Appearance(orientation=orientation, raw_mode=raw_mode, profile=profile)
    bits = int(page.bitspersample)
    colors = None
    if int(page.photometric) == tiff_tags.PALETTE and 2**bits <= MOST_COLORS and has_own_pages:
        colors = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
    is_inverted = int(page.photometric) == tiff_tags.WHITE_IS_ZERO
    return Appearance(is_inverted, bits, colors, orientation, raw_mode, profile)


def _raw_mode(page: Any, has_profile: bool) -> str | None:
    """Return the name of the colors of a page if they must be converted, see `Appearance`."""
    samples, extra = int(page.samplesperpixel), tuple(page.extrasamples or ())
    photometric, has_planes = int(page.photometric), tiff.has_planes(page)
    if page.dtype != np.uint8:
        return None
    if photometric == tiff_tags.CMYK and samples == 4 + len(extra):
        return "CMYK"
    if photometric == tiff_tags.LAB and samples == 3 and not has_planes and int(page.compression) not in JPEG:
        return "LAB"
    if photometric == tiff_tags.RGB and samples == 4 and extra == (tiff_tags.MULTIPLIED_ALPHA,):
        return "RGBa"
    if is_gray_with_alpha(page):
        if has_planes:
            return None
        is_multiplied = extra == (tiff_tags.MULTIPLIED_ALPHA,) and photometric == tiff_tags.BLACK_IS_ZERO
        return "La" if is_multiplied else "L" if has_profile else None
    if not has_profile:
        return None
    if samples == 1:
        return "RGB" if photometric == tiff_tags.PALETTE else "L"
    return "RGB" if has_colors(page) else None

"""TIFF files that Pillow does not read exactly: stacks, 16-bit color, large integers, many channels.

Axes: h, w image as stored.
"""

import contextlib
import logging
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import tifffile

from mrcnn.errors import InvalidDataError, UnreadableFileError, reason
from mrcnn.files import tiff_tags

# Numbers of compressions.
UNCOMPRESSED, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 8, 32946, 32773
# Bytes that a pixel may have, on average, besides the limit on pixels.
MAX_BYTES_PER_PIXEL = 8
COLOR_CHANNELS = (3, 4)
ALPHA_SAMPLES = (tiff_tags.MULTIPLIED_ALPHA, tiff_tags.ALPHA)

# tifffile's remarks on damaged files would be printed beside the errors that are raised here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Layout:
    """The images of a TIFF file. Thumbnails and the levels of a pyramid do not count.

    Attributes:
        pages: The pages, as tifffile describes them.
        frames: Number of images, which exceeds the number of pages if a page holds a stack.
    """

    pages: list[Any]
    frames: int


@contextlib.contextmanager
def opened(stream: BinaryIO) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file with tifffile.

    Raises:
        UnreadableFileError: If it is damaged.
    """
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as tiff:
            yield tiff
    except tifffile.TiffFileError as error:
        raise UnreadableFileError(
            f"The TIFF file is damaged, or its format is unknown: {reason(error)}. Convert it to PNG."
        ) from error


def layout(tiff: tifffile.TiffFile) -> Layout:
    """Return the images of a TIFF file."""
    every_page: list[Any] = list(tiff.pages)
    # Once the series of an OME-TIFF file is known, its later pages are frames, without tags of their own.
    pages = [page for page in every_page if not getattr(page, "is_reduced", False)] or every_page
    if not pages:
        raise UnreadableFileError("The TIFF file has no pages.")
    frames = len(pages)
    # ImageJ, NIH Image, MetaMorph and tifffile write stacks behind a single page. Other kinds of series can
    # take data from other files.
    if frames == 1 and (tiff.is_imagej or tiff.is_nih or tiff.is_stk or tiff.is_shaped):
        frames = max(1, _size(tiff.series[0].shape) // max(1, _size(pages[0].shape)))
    elif frames == 1:
        frames = max(1, int(pages[0].imagedepth))
    return Layout(pages, frames)


def mode(page: Any) -> str:
    """Return the mode of a page, named as in `headers.Header`."""
    samples, dtype = int(page.samplesperpixel), page.dtype
    if dtype is None or dtype.kind not in "buif":
        raise UnreadableFileError(f"The TIFF file has pixels of an unsupported type: {dtype}.")
    if samples == 1:
        name = "F" if dtype.kind == "f" else "I"
    elif samples == 2:
        name = "LA"
    elif samples in COLOR_CHANNELS:
        name = "RGB" if samples == 3 else "RGBA"
    else:
        name = f"{samples} channels"
    return f"{name};16" if dtype == np.uint16 else name


def orientation(page: Any) -> int:
    """Return the orientation 1..8 of a page."""
    tag = page.tags.get(tiff_tags.ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def has_planes(page: Any) -> bool:
    """Return whether a page stores its channels one after another instead of pixel by pixel."""
    return int(page.samplesperpixel) > 1 and page.planarconfig == tiff_tags.SEPARATE_PLANES


def read_frame(tiff: tifffile.TiffFile, index: int, max_pixels: int | None) -> np.ndarray:
    """Decode one image: [h, w] or [h, w, channels], the values as stored; 0 and 1 for one-bit images.

    Raises:
        InvalidDataError: If it declares more data than allowed, or than the file holds.
        UnreadableFileError: If its compression is not supported.
    """
    found = layout(tiff)
    length = tiff.filehandle.size
    if found.frames > len(found.pages):
        series = tiff.series[0]
        _check_bytes(series.nbytes, min(length, _max_bytes(max_pixels) * found.frames), length)
        stack = series.asarray().reshape(found.frames, *found.pages[0].shape)
        return np.asarray(stack[index])
    page = found.pages[index]
    page = page.aspage() if isinstance(page, tifffile.TiffFrame) else page
    tile = int(page.tilewidth or 0) * int(page.tilelength or 0)  # small images may declare large tiles
    if max_pixels is not None and tile > max_pixels:
        raise InvalidDataError(
            f"The file declares tiles of {tile} pixels, but at most {max_pixels} are decoded."
        )
    _check_bytes(page.nbytes, _max_bytes(max_pixels), length)
    compression = int(page.compression)
    if compression == UNCOMPRESSED:
        bits = _size(page.shape) * int(page.bitspersample)
        _check_bytes(bits // 8, length, length)
    elif compression in (DEFLATE, OLD_DEFLATE):
        _check_segments(page)
    elif compression != PACKBITS:
        raise UnreadableFileError(
            f"TIFF compression {compression} is not supported for pixels of type {page.dtype}. Save the file "
            "without compression."
        )
    pixels: np.ndarray = page.asarray()
    if pixels.dtype == bool:
        pixels = pixels.view(np.uint8)
    if pixels.ndim == 3 and has_planes(page):
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels


def color_channels(page: Any, pixels: np.ndarray) -> np.ndarray:
    """Return the gray or color channels of a decoded page, as viewers show them.

    Args:
        page: The page.
        pixels: [h, w] or [h, w, channels].

    Returns:
        [h, w] or [h, w, 3].

    Raises:
        InvalidDataError: If the channels are not colors.
    """
    if page.photometric == tiff_tags.WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = pixels.dtype.type(2 ** int(page.bitspersample) - 1) - pixels
    if int(page.bitspersample) == 1:
        pixels = pixels * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        return pixels
    has_alpha = tuple(page.extrasamples or ())[:1] and page.extrasamples[0] in ALPHA_SAMPLES
    channels = pixels.shape[-1] if pixels.ndim == 3 else 0
    if channels == 2 and has_alpha:
        return pixels[..., 0]
    is_color = page.photometric == tiff_tags.RGB and channels in COLOR_CHANNELS
    # Three channels without colors keep their order, as nothing is lost.
    if is_color or (channels == 3 and page.planarconfig != tiff_tags.SEPARATE_PLANES):
        return pixels[..., :3]
    raise InvalidDataError(
        f"The file must hold a gray or color image. Received: {channels} channels that are not colors, shape "
        f"{pixels.shape}. Choose one or more with `channels`, such as channels=(0,).",
        field="channels",
    )


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(int(side) for side in shape)


def _max_bytes(max_pixels: int | None) -> int:
    return 1 << 62 if max_pixels is None else max_pixels * MAX_BYTES_PER_PIXEL


def _check_bytes(stated: int, limit: int, length: int) -> None:
    if stated > limit:
        raise InvalidDataError(
            f"The file ({length} bytes) declares {stated} bytes of pixels, but at most {limit} are "
            "possible here. It is damaged: save the image again."
        )


def _check_segments(page: Any) -> None:
    """Check that no compressed part of a page unpacks to more bytes than declared."""
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    columns = page.tilewidth if page.is_tiled else page.imagewidth
    depth = int(page.samplesperpixel) * int(page.bitspersample) // 8 + 1
    limit = int(rows) * int(columns) * depth + 1024
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        unpacker = zlib.decompressobj()
        unpacker.decompress(handle.read(count), limit)
        if unpacker.unconsumed_tail:
            raise InvalidDataError(
                "The TIFF data unpacks to more bytes than the header declares. Save the image again."
            )

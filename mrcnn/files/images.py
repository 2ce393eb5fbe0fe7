"""Read image files. The package opens and decodes them only here.

| function | reads |
|---|---|
| `read_header` | size, mode and orientation, without the pixels |
| `read_image` | gray or RGB as viewers show it |
| `read_values` | the numbers that the file stores |
| `read_labels` | a label image: exact integers |
| `read_mask` | the mask of an object |

The header is read first. A path that is not a file, content that is not an image, and an image that declares
more pixels than `pixel_limit` raise an error before anything is decoded. All errors are from `mrcnn.errors`
and name the file.

Axes: h, w image.
"""

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files import headers, tiff_tags
from mrcnn.files.arguments import CHOOSE_PAGE
from mrcnn.files.headers import Header as Header
from mrcnn.files.headers import pixel_limit as pixel_limit
from mrcnn.files.ordinary import check_ordinary
from mrcnn.typing import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from mrcnn.files.stacks import Stack

logger = logging.getLogger(__name__)

# A path, an http address, the content of a file, or an open file such as a member of a zip archive.
Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_DOWNLOAD = 1 << 30  # bytes
DOWNLOAD_TIMEOUT = 60  # seconds
# The EXIF orientations that exchange rows and columns, and that then reverse each row, and each column.
TRANSPOSED, MIRRORED, FLIPPED = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}
# The orientation that undoes each EXIF orientation.
UNDONE_BY = {**{value: value for value in range(1, 9)}, 6: 8, 8: 6}
# Values to which Pillow scales the steps of 2- and 4-bit images.
STEPS = {"L;2": 85, "L;4": 17}
HALF = 127  # of 255: pixels above it are inside a mask that was compressed as JPEG


def read_header(file: Source, name: str | None = None, *, entry: str | None = None) -> Header:
    """Read size, orientation and mode of an image file without decoding its pixels.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.
        entry: Description of the image in error messages, such as "image id 3".

    Raises:
        MissingFileError: If the file does not exist.
        UnreadableFileError: If it cannot be opened or is not an image.
        InvalidDataError: If it declares more pixels than `pixel_limit`.
    """
    with _opened(file, name, entry) as stream, headers.by_pillow(stream) as image:
        return headers.tiff_header(stream) if image is None else headers.header_of(image, stream)


def read_stack(file: Source, name: str | None = None) -> "Stack":
    """Return what the images of a file with several are, such as 3 slices of 2 channels.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_header`.
    """
    with _opened(file, name, None) as stream, headers.by_pillow(stream) as image:
        from mrcnn.files import stacks

        if image is None or image.format == "TIFF":
            return stacks.stack_of(stream)
        frames = headers.header_of(image, stream).frames
        return stacks.Stack((("frames", frames),) if frames > 1 else (), samples=1)


def read_image(
    file: Source,
    name: str | None = None,
    *,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    orientation: int | None = None,
    reduced: int = 1,
    entry: str | None = None,
) -> Image:
    """Decode an image file as viewers show it.

    Palettes and CMYK, YCbCr and LAB colors become RGB, and ICC profiles of 8-bit images are applied. An alpha
    channel is dropped. One-bit images become 0 and 255.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.
        page: Number of the image, from 0, in a file with several: pages of a TIFF file, slices of a stack,
            frames of an animation. With `channels`, pages are counted per channel.
        channels: Numbers of the channels to read, from 0, for images whose channels are not colors. The
            values are those in the file. A stack of channels counts as one image.
        orientation: The EXIF orientation, 1 to 8, to apply; 1 keeps the stored rows and columns. None applies
            the one in the file.
        reduced: 2, 4 or 8 decodes a JPEG file at a half, a quarter or an eighth of its size, rounded up,
            in a fraction of the time. Very narrow images, other formats and chosen `channels` are reduced
            less or not at all.
        entry: Description of the image in error messages, such as "image id 3".

    Returns:
        Gray [h, w] or RGB [h, w, 3], or the chosen channels [h, w] or [h, w, channels]; uint8, or another
        dtype if the file holds such values.

    Raises:
        MissingFileError: If the file does not exist.
        UnreadableFileError: If it cannot be opened or decoded, or is not an image.
        InvalidDataError: If it holds several images and `page` is None, has no such page, has channels that
            are not colors, or declares more pixels than `pixel_limit`.
    """
    with _opened(file, name, entry) as stream, headers.by_pillow(stream) as image:
        header = headers.tiff_header(stream) if image is None else headers.header_of(image, stream)
        if channels is not None:
            pixels = _read_channels(image, stream, header, page, channels)
            return np.ascontiguousarray(turned(pixels, orientation or header.orientation))
        index = _frame(header, page, image, stream)
        if image is None or image.format == "TIFF":
            pixels = _read_tiff(image, stream, header, index)
        else:
            image.seek(index)
            headers.check_pixels(image.size[0] * image.size[1])
            if reduced > 1:  # only JPEG decoders do anything
                image.draft(None, (max(1, header.width // reduced), max(1, header.height // reduced)))
            pixels = _read_deep_png(image, stream) if headers.is_deep_png(image) else _as_array(image)
        wanted = header.orientation if orientation is None else orientation
        return np.ascontiguousarray(turned(pixels, wanted))


def read_values(
    file: Source, name: str | None = None, *, page: int | None = None, entry: str | None = None
) -> np.ndarray:
    """Decode the numbers in an image file as stored, in the stored rows and columns.

    For palette images, these are the indices. Colors are neither converted nor dropped.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.
        page: Number of the image, from 0, in a file with several.
        entry: Description of the image in error messages, such as "image id 3".

    Returns:
        [h, w] or [h, w, channels]; 0 and 1 for one-bit images.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_image`; any channels are allowed.
    """
    with _opened(file, name, entry) as stream, headers.by_pillow(stream) as image:
        header = headers.tiff_header(stream) if image is None else headers.header_of(image, stream)
        index = _frame(header, page, image, stream)
        if image is None or image.format == "TIFF":
            return _read_tiff_values(image, stream, header, index)
        image.seek(index)
        headers.check_pixels(image.size[0] * image.size[1])
        if headers.is_deep_png(image):
            return _read_deep_png(image, stream)
        return _stored(image)


def read_labels(
    file: Source, name: str | None = None, *, page: int | None = None, entry: str | None = None
) -> np.ndarray:
    """Read a label image: 0 is the background, other numbers are objects or classes.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.
        page: Number of the image, from 0, in a file with several.
        entry: Description of the image in error messages, such as "image id 3".

    Returns:
        Integers [h, w], the exact numbers in the file, turned by its EXIF orientation; for palette images the
        indices.

    Raises:
        MissingFileError, UnreadableFileError: See `read_image`.
        InvalidDataError: See `read_image`. Also if the format is lossy, or the image has several channels or
            fractional values.
    """
    with _opened(file, name, entry) as stream:
        header = read_header(stream)
        if header.is_lossy:
            raise InvalidDataError(
                "A label image must be stored in a lossless format. JPEG and other lossy formats change "
                "its numbers, so noise becomes objects. Export the labels again as PNG."
            )
        labels = read_values(stream, page=page)
        if labels.ndim != 2 or labels.dtype.kind not in "biu":
            raise InvalidDataError(
                "A label image must have one channel of integers. Received: an array of shape "
                f"{labels.shape} and type {labels.dtype}."
            )
        return np.ascontiguousarray(turned(labels, header.orientation))


def read_mask(
    file: Source,
    name: str | None = None,
    *,
    page: int | None = None,
    warn: bool = True,
    entry: str | None = None,
) -> np.ndarray:
    """Read the mask of one object. Pixels that are not black are inside.

    In JPEG and other lossy formats, pixels above half of white are inside, and a warning names the file.

    Args:
        file: A path, a URL, the content of a file, or an open file.
        name: Name of the file in error messages, by default the path.
        page: Number of the image, from 0, in a file with several.
        warn: Whether to warn about lossy formats.
        entry: Description of the image in error messages, such as "image id 3".

    Returns:
        bool [h, w], turned by the EXIF orientation of the file.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_image`.
    """
    with _opened(file, name, entry) as stream:
        header = read_header(stream)
        pixels = read_image(stream, page=page)
    level = pixels.max(axis=-1) if pixels.ndim == 3 else pixels
    if not header.is_lossy:
        return np.asarray(level > 0 if level.dtype.kind == "f" else level != 0)
    if warn:
        _warn_of_lossy_mask(name or _path(file) or "a mask")
    return np.asarray(level > HALF)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror a stored image according to an EXIF orientation.

    Args:
        image: [h, w, ...].
        orientation: EXIF orientation 1..8.

    Returns:
        A view of the same data; [w, h, ...] for orientations 5 to 8.
    """
    if orientation in TRANSPOSED:
        image = image.swapaxes(0, 1)
    if orientation in MIRRORED:
        image = image[:, ::-1]
    if orientation in FLIPPED:
        image = image[::-1]
    return image


# --- Opening ---


@contextlib.contextmanager
def _opened(file: Source, name: str | None, entry: str | None) -> Iterator[BinaryIO]:
    """Yield an open file. Errors of decoders in the block become errors that name the file."""
    name = name or _path(file)
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(file, bytes):
                stream: BinaryIO = io.BytesIO(file)
            elif isinstance(file, str) and file.startswith(("http://", "https://")):
                stream = _download(file)
            elif isinstance(file, (str, os.PathLike)):
                check_ordinary(file)
                stream = stack.enter_context(open(file, "rb"))
            else:
                stream = file
            if not stream.seek(0, os.SEEK_END):
                raise UnreadableFileError("The file is empty.")
            stream.seek(0)
            yield stream
    except DataError as error:
        if (error.file is not None or name is None) and entry is None:
            raise
        message = str(error).removeprefix(f"{error.file}: ")
        raise type(error)(message, file=error.file or name, entry=entry, field=error.field) from error
    except FileNotFoundError as error:
        raise MissingFileError("There is no such file.", file=name, entry=entry) from error
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError, MemoryError and others
        raise UnreadableFileError(
            f"The image cannot be read: {reason(error)}", file=name, entry=entry
        ) from error


def _path(file: Source) -> str | None:
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else None


def _download(address: str) -> BinaryIO:
    from urllib.request import urlopen

    with urlopen(address, timeout=DOWNLOAD_TIMEOUT) as response:
        content = response.read(MAX_DOWNLOAD + 1)
    if len(content) > MAX_DOWNLOAD:
        raise UnreadableFileError(f"The image is larger than {MAX_DOWNLOAD} bytes.")
    return io.BytesIO(content)


@functools.lru_cache(maxsize=4096)
def _warn_of_lossy_mask(name: str) -> None:
    logger.warning(
        "%s: The mask is stored in a lossy format. Pixels above half of white are taken as inside. Export "
        "masks as PNG.",
        name,
    )


# --- Decoding ---


def _frame(header: Header, page: int | None, image: "PillowImage | None", stream: BinaryIO) -> int:
    if page is None and header.frames > 1:
        what, choice, option = f"{header.frames} frames", CHOOSE_PAGE, "page"
        if image is None or image.format == "TIFF":
            from mrcnn.files import stacks

            stack = stacks.stack_of(stream)
            what = str(stack)
            if "channels" in dict(stack.axes):
                option = "channels"
                page_too = " with a `page`, from 0" if stack.pages > 1 else ""
                choice = (
                    f"Choose `channels`, such as channels=(0,){page_too}; or `page` alone for one image "
                    "(--channels and --page on the command line)."
                )
        raise InvalidDataError(
            f"The file must hold one image. Received: {what} of {header.height} x {header.width} pixels. "
            f"{choice}",
            field=option,
        )
    index = page or 0
    if not 0 <= index < header.frames:
        raise InvalidDataError(
            f"`page` must be from 0 to {header.frames - 1}: the file has {header.frames} pages. "
            f"Received: page={page}",
            field="page",
        )
    return index


def _read_channels(
    image: "PillowImage | None", stream: BinaryIO, header: Header, page: int | None, channels: Sequence[int]
) -> np.ndarray:
    from mrcnn.files import stacks

    if image is None or image.format == "TIFF":
        return stacks.read_channels(stream, page, channels, pixel_limit())
    image.seek(_frame(header, page, image, stream))
    headers.check_pixels(image.size[0] * image.size[1])
    pixels = _read_deep_png(image, stream) if headers.is_deep_png(image) else _stored(image)
    return stacks.chosen(pixels, channels)


def _as_array(image: "PillowImage") -> Image:
    from mrcnn.files import colors

    image.load()
    if image.mode == "L" and _is_signed(image):
        return _stored(image)
    return colors.as_array(image)


def _stored(image: "PillowImage") -> np.ndarray:
    """Return the numbers of an image as stored.

    Pillow scales 2- and 4-bit values to 0..255, inverts values of TIFF files of up to 8 bits in which 0 is
    white, and takes signed values of 8 bits for unsigned ones.
    """
    raw_modes = (
        arguments if isinstance(arguments, str) else arguments[0]
        for arguments in headers.decoder_arguments(image)
        if arguments
    )
    # Letters behind the bits tell their order, which Pillow follows.
    step = max((STEPS.get(str(raw_mode)[:3], 1) for raw_mode in raw_modes), default=1)
    values = np.asarray(image)
    if image.mode not in ("1", "L"):
        return values
    values, white = values.astype(np.uint8) // np.uint8(step), (1 if image.mode == "1" else 255) // step
    if headers.tags(image).get(tiff_tags.PHOTOMETRIC) == tiff_tags.WHITE_IS_ZERO:
        values = np.uint8(white) - values
    return values.view(np.int8) if _is_signed(image) else values


def _read_deep_png(image: "PillowImage", stream: BinaryIO) -> Image:
    is_gray = any("LA" in str(arguments) for arguments in headers.decoder_arguments(image))
    image.load()  # OpenCV fills what is cut off; Pillow raises
    pixels = _by_opencv(stream)
    return np.ascontiguousarray(pixels[..., 0]) if is_gray and pixels.ndim == 3 else pixels


def _by_opencv(stream: BinaryIO) -> Image:
    """Decode 16-bit color: [h, w] or RGB [h, w, 3]."""
    import cv2

    stream.seek(0)
    pixels = cv2.imdecode(np.frombuffer(stream.read(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise UnreadableFileError("The pixels of the image cannot be decoded.")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])  # OpenCV has BGR


def _read_tiff(image: "PillowImage | None", stream: BinaryIO, header: Header, index: int) -> Image:
    from mrcnn.files import tiff

    if image is not None and _is_exact(image, header):
        return _tiff_by_pillow(image, stream, header, index, _as_array)
    with tiff.opened(stream) as file:
        page = tiff.layout(file).pages[0]
        try:
            pixels = tiff.read_frame(file, index, pixel_limit())
            return tiff.color_channels(page, pixels)
        except UnreadableFileError:
            if header.mode not in ("RGB;16", "RGBA;16") or header.frames > 1 or tiff.has_planes(page):
                raise
        orientation = tiff.orientation(page)
    # OpenCV knows more compressions. It takes planes for pixels, and turns the image whatever its flags say.
    return turned(_by_opencv(stream), UNDONE_BY[orientation])


def _read_tiff_values(
    image: "PillowImage | None", stream: BinaryIO, header: Header, index: int
) -> np.ndarray:
    from mrcnn.files import tiff

    if image is not None and _has_all_channels(image) and _is_exact(image, header):
        return _tiff_by_pillow(image, stream, header, index, _stored)
    with tiff.opened(stream) as file:
        return tiff.read_frame(file, index, pixel_limit())


def _has_all_channels(image: "PillowImage") -> bool:
    return len(image.getbands()) == headers.tags(image).get(tiff_tags.SAMPLES_PER_PIXEL, 1)


def _is_exact(image: "PillowImage", header: Header) -> bool:
    """Return whether Pillow decodes a TIFF file without loss."""
    tags, bits = headers.tags(image), headers.bits_of(image)
    if header.frames > int(getattr(image, "n_frames", 1)):
        return False  # a stack behind one page
    if image.mode in ("L", "LA") and tiff_tags.UNSPECIFIED in tags.get(tiff_tags.EXTRA_SAMPLES, ()):
        return False  # a second channel that is not alpha
    has_planes = tags.get(tiff_tags.PLANAR_CONFIGURATION) == tiff_tags.SEPARATE_PLANES
    if image.mode in ("LA", "LAB") and has_planes:
        return False  # Pillow refuses planes of gray and alpha, and does not shift a* and b* in planes
    if image.mode == "I":
        return _is_signed(image)
    return (
        bits <= 8 or image.mode.startswith("I;16") or image.mode == "CMYK" or (image.mode, bits) == ("F", 32)
    )


def _is_signed(image: "PillowImage") -> bool:
    """Return whether a TIFF file has signed integers."""
    sample_format = headers.tags(image).get(tiff_tags.SAMPLE_FORMAT, 1)
    return (sample_format if isinstance(sample_format, int) else sample_format[0]) == tiff_tags.SIGNED


def _tiff_by_pillow(
    image: "PillowImage", stream: BinaryIO, header: Header, index: int, convert: Any
) -> np.ndarray:
    """Decode a page of a TIFF file in its stored rows and columns."""
    from mrcnn.files import tiff

    if header.frames > 1:
        with tiff.opened(stream) as file:
            index = int(tiff.layout(file).pages[index].index)
    image.seek(index)
    headers.check_pixels(image.size[0] * image.size[1])
    orientation = int(headers.tags(image).get(tiff_tags.ORIENTATION, 1))
    pixels: np.ndarray = convert(image)
    # Newer versions of Pillow turn the image themselves, and remove the tag.
    is_turned = tiff_tags.ORIENTATION not in headers.tags(image)
    return turned(pixels, UNDONE_BY.get(orientation, 1)) if is_turned else pixels

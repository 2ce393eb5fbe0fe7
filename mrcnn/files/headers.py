"""The header of an image file: size, mode, orientation and number of images, available before decoding."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from mrcnn.errors import InvalidDataError, UnreadableFileError
from mrcnn.files import tiff_tags

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Pillow's messages about damaged files name no file, and would be printed in addition to the errors of this
# module. Programs that request them, with a log handler or a warnings filter, still get them.
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin", append=True)

# Formats that Pillow may open. Others would start programs, such as Ghostscript for EPS.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LOSSY_FORMATS = {"AVIF", "JPEG", "JPEG2000", "MPO"}


@dataclass(frozen=True)
class Header:
    """The facts in the header of an image file.

    Attributes:
        width: Pixels in a stored row.
        height: Stored rows.
        orientation: EXIF orientation 1..8; 1 if there is none.
        mode: Pillow's mode, such as "RGB", "P" or "I;16". ";16" is added for color of 16 bits.
        frames: Number of images in the file: pages of a TIFF file, frames of an animation.
        is_lossy: Whether the format changes pixel values, as JPEG does.
    """

    width: int
    height: int
    orientation: int
    mode: str
    frames: int = 1
    is_lossy: bool = False

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the rows and columns in the file."""
        return self.height, self.width

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) as viewers show the image, rotated by its EXIF orientation."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def pixel_limit() -> int | None:
    """Return the largest number of pixels of an image: twice PIL.Image.MAX_IMAGE_PIXELS, as in Pillow.

    None means that there is no limit.
    """
    import PIL.Image

    return None if PIL.Image.MAX_IMAGE_PIXELS is None else int(2 * PIL.Image.MAX_IMAGE_PIXELS)


@contextlib.contextmanager
def by_pillow(stream: BinaryIO) -> Iterator["PillowImage | None"]:
    """Open an image with Pillow. Return None for TIFF files that it does not support, such as 32-bit color.

    Raises:
        UnreadableFileError: If the file is not an image.
        InvalidDataError: If it declares more pixels than `pixel_limit`.
    """
    import PIL.Image

    stream.seek(0)
    try:
        image = PIL.Image.open(stream, formats=_formats())
    except PIL.UnidentifiedImageError:
        stream.seek(0)
        if stream.read(4) not in TIFF_STARTS:
            raise UnreadableFileError(
                "The file is not an image, or its format is unknown. Convert it to PNG."
            ) from None
        yield None
        return
    except PIL.Image.DecompressionBombError as error:
        raise InvalidDataError(f"The file declares too many pixels. {_too_large()}") from error
    try:
        yield image
    finally:
        if image.fp is not stream:
            image.close()


@functools.lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return those of the FORMATS that this version of Pillow knows."""
    import PIL.Image

    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def check_pixels(pixels: int) -> None:
    """Raise InvalidDataError if an image declares more pixels than `pixel_limit`."""
    limit = pixel_limit()
    if limit is not None and pixels > limit:
        raise InvalidDataError(f"The file declares {pixels:,} pixels. {_too_large()}")


def _too_large() -> str:
    return (
        f"At most {pixel_limit():,} are decoded, because a damaged file can declare any number. If the "
        "file is intact, detect in tiles (detect_large, --tile), or raise PIL.Image.MAX_IMAGE_PIXELS."
    )


def header_of(image: "PillowImage", stream: BinaryIO) -> Header:
    """Return the header of an image that Pillow has opened from a stream."""
    width, height = image.size
    frames = 1
    if image.format == "TIFF":
        # Pillow exchanges height and width by the orientation.
        width, height = (int(tags(image).get(tag, 0)) for tag in (tiff_tags.WIDTH, tiff_tags.HEIGHT))
        frames = _tiff_frames(image, stream)
    elif image.format != "MPO":  # the further images of an MPO are previews
        frames = int(getattr(image, "n_frames", 1))
    check_pixels(width * height)
    return Header(width, height, _orientation(image), _mode(image), frames, _is_lossy(image, stream))


def tags(image: "PillowImage") -> Any:
    """Return the tags of a TIFF file; none for other formats."""
    return getattr(image, "tag_v2", {})


def bits_of(image: "PillowImage") -> int:
    """Return the bits of a channel of a TIFF file."""
    bits = tags(image).get(tiff_tags.BITS_PER_SAMPLE, 1)
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _mode(image: "PillowImage") -> str:
    is_deep = is_deep_png(image) or (image.format == "TIFF" and bits_of(image) == 16)
    return f"{image.mode};16" if is_deep and ";16" not in image.mode else image.mode


def _orientation(image: "PillowImage") -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # the pixels would be decoded in search of one
    try:
        orientation = image.getexif().get(tiff_tags.ORIENTATION, 1)
    except Exception:  # of many kinds, and the image itself may be whole
        return 1
    return int(orientation) if orientation in range(1, 9) else 1


def _is_lossy(image: "PillowImage", stream: BinaryIO) -> bool:
    if image.format == "WEBP":
        stream.seek(0)
        return b"VP8 " in stream.read(1 << 16)  # the chunk of lossy pixels; VP8L is lossless
    return image.format in LOSSY_FORMATS or "jpeg" in str(image.info.get("compression"))


def _tiff_frames(image: "PillowImage", stream: BinaryIO) -> int:
    from mrcnn.files import tiff

    try:
        with tiff.opened(stream) as file:
            return tiff.layout(file).frames
    except Exception:  # tifffile reads some files less tolerantly than Pillow
        return int(getattr(image, "n_frames", 1))


def tiff_header(stream: BinaryIO) -> Header:
    """Return the header of a TIFF file of a kind that Pillow does not support."""
    from mrcnn.files import tiff

    with tiff.opened(stream) as file:
        found = tiff.layout(file)
        page = found.pages[0]
        width, height = int(page.imagewidth), int(page.imagelength)
        check_pixels(width * height)
        is_lossy = "JPEG" in str(page.compression)
        return Header(width, height, tiff.orientation(page), tiff.mode(page), found.frames, is_lossy)


def is_deep_png(image: "PillowImage") -> bool:
    """Return whether a PNG file has 16-bit color, which Pillow reduces to 8 bits."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA"):
        return False
    return any("16" in str(arguments) for arguments in decoder_arguments(image))


def decoder_arguments(image: "PillowImage") -> list[Any]:
    """Return the decoder's arguments for each part of an image that is not decoded yet, such as "RGB;16B"."""
    return [part[3] for part in getattr(image, "tile", ())]

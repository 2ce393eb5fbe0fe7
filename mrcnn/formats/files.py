"""Files of a data set: JSON with named errors, pictures' headers, folders and zip archives alike."""

import functools
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import tifffile
from PIL.TiffImagePlugin import TiffImageFile

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Numbers of tags.
EXIF_ORIENTATION = 274
BITS_PER_SAMPLE = 258

KIND_NAMES = {dict: "an object {...}", list: "a list", str: "a text", int: "a whole number"}


class BrokenEntryError(ValueError):
    """A field of an annotation file is missing or holds something else than it should."""


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises FileNotFoundError, or BrokenEntryError naming file, line and column if it is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BrokenEntryError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "Was it saved or copied to its end?"
        ) from error
    except UnicodeDecodeError as error:
        raise BrokenEntryError(
            f"{path} is not text in UTF-8: {error.reason} at byte {error.start}"
        ) from error


def field(entry: Any, name: str, kind: type | tuple[type, ...], where: Any) -> Any:
    """A field of a JSON object.

    kind: type or types that it may have; `where`: file and entry, for the message.
    Raises BrokenEntryError naming file, entry and field if it is missing or of another type.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted = " or ".join(KIND_NAMES.get(one, one.__name__) for one in kinds if one is not float)
    if not isinstance(entry, dict) or name not in entry:
        found = sorted(entry)[:8] if isinstance(entry, dict) else type(entry).__name__
        raise BrokenEntryError(f"{where}: field {name!r} ({wanted}) is missing. There is: {found}")
    value = entry[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise BrokenEntryError(f"{where}: field {name!r} must be {wanted}. Received: {str(value)[:60]!r}")
    return value


@dataclass(frozen=True)
class Header:
    """What the beginning of an image file says: size as stored, EXIF orientation 1..8, Pillow's mode.

    "RGB;16" is added to the modes, for colour of 16 bits.
    """

    width: int
    height: int
    orientation: int
    mode: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the rows and columns in the file."""
        return self.height, self.width

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) as viewers and browsers show the picture, its EXIF orientation followed."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(file: str | os.PathLike | BinaryIO) -> Header:
    """Size, orientation and mode of an image file; its pixels are not decoded.

    Raises OSError if the file is missing, no image, or larger than Pillow dares to decode.
    """
    try:
        with PIL.Image.open(file) as picture:
            width, height = picture.size
            return Header(width, height, _orientation(picture), _mode(picture))
    except PIL.UnidentifiedImageError:
        return _tiff_header(file)
    except PIL.Image.DecompressionBombError as error:
        raise OSError(
            f"{error}. Raise PIL.Image.MAX_IMAGE_PIXELS if the file is what it should be."
        ) from error


def _mode(picture: PIL.Image.Image) -> str:
    """Pillow's mode; for TIFF files of 16 bits, whose colours Pillow reads with 8, "RGB;16"."""
    bits = picture.tag_v2.get(BITS_PER_SAMPLE, ()) if isinstance(picture, TiffImageFile) else ()
    return f"{picture.mode};16" if 16 in bits and ";16" not in picture.mode else picture.mode


def _orientation(picture: PIL.Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none, or the EXIF data are broken."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # it would be decoded in search of one
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # of many kinds, and the picture itself may be whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _tiff_header(file: str | os.PathLike | BinaryIO) -> Header:
    """The header of a TIFF of a kind that Pillow does not know, such as colour of 16 bits.

    Raises OSError if it is none.
    """
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            width, height, dtype = page.imagewidth, page.imagelength, page.dtype
    except tifffile.TiffFileError as error:
        raise OSError(f"no image that Pillow or tifffile knows ({error})") from error
    is_single = page.samplesperpixel == 1
    mode = ("I" if np.issubdtype(dtype, np.integer) else "F") if is_single else "RGB"
    return Header(width, height, 1, f"{mode};16" if dtype == np.uint16 else mode)


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture [h, w, ...] as EXIF orientation 1..8 wants it shown; a view of the same data."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture


def open_member(path: str | os.PathLike, member: str) -> BinaryIO:
    """A file of a zip archive, read into memory.

    Raises FileNotFoundError naming both, OSError if it cannot be read.
    """
    try:
        return io.BytesIO(_archive(str(path), os.getpid()).read(member))
    except KeyError:
        raise FileNotFoundError(f"No file {member} in {path}") from None
    except zipfile.BadZipFile as error:
        raise OSError(f"Cannot read {member} in {path}: {error}") from error


@functools.lru_cache(maxsize=8)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """An open archive. Threads may share it, processes may not: their reads would move each other's place."""
    return zipfile.ZipFile(path)


def images_in(root: str | os.PathLike, folder: str) -> dict[str, str]:
    """Image files of a folder, or of a folder in a zip archive, by name without ending.

    root: a folder or a zip file. folder: below it; "" for itself. Returns paths below the root, in order of
    names; hidden files are left out. Raises FileNotFoundError if there is no such folder.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder or zip file {root}")
    if root.is_dir():
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"There is no folder {root / folder}")
        names = [PurePosixPath(folder, path.name) for path in (root / folder).iterdir()]
    else:
        members = [PurePosixPath(name) for name in _archive(str(root), os.getpid()).namelist()]
        names = [name for name in members if name.parent == PurePosixPath(folder)]
        if not names:
            raise FileNotFoundError(f"There is no folder {folder!r} in {root}")
    kept = [name for name in names if name.suffix.lower() in IMAGE_SUFFIXES and name.name[0] != "."]
    return {name.stem: str(name) for name in sorted(kept)}

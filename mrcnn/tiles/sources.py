"""Images that are read window by window: arrays, TIFF files, whole slides, map rasters, image files.

A source has `shape` (height, width), `channels`, `dtype` and `window(y1, x1, y2, x2)`. For other kinds of
images, derive a class with a method `read` from `ImageSource`.
"""

import abc
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files import stacks, tiff, tiff_tags
from mrcnn.files.arguments import CHOOSE_PAGE
from mrcnn.files.calibration import TIFF_SUFFIXES, Calibration, GeoReference, PixelSize, read_calibration
from mrcnn.files.images import read_image
from mrcnn.packages import require
from mrcnn.tiles.identity import identity_of
from mrcnn.tiles.tiff_pages import checked_page, is_slide, joint_series, series_of
from mrcnn.tiles.tiff_pixels import (
    Appearance,
    appearance_of,
    has_colors,
    is_gray_with_alpha,
)
from mrcnn.typing import Image

# Photometric interpretations whose colors are converted to RGB.
CONVERTED_COLORS = (tiff_tags.CMYK, tiff_tags.LAB, tiff_tags.YCBCR)
SLIDE_SUFFIXES = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"}
RASTER_SUFFIXES = {".vrt", ".jp2", ".img", ".asc"}
# What to do instead of choosing a part that an image does not have.
ADVICE = {
    "page": ", and pass the one image, such as array[0]",
    "channels": ", or convert the image to a TIFF file of its channels",
    "level": ", or shrink the image first",
}
# Bytes of the largest block of a file, which must be decoded as one.
LARGEST_BLOCK = 1 << 28


class ImageSource(abc.ABC):
    """An image that is read window by window. Use it in a `with` block, or call `close`.

    Args:
        shape: (height, width).
        channels: Values per pixel.
        dtype: Type of the values.
        path: The file; None for an image in memory.
        calibration: The pixel size and the place on a map, as far as known.

    Attributes:
        shape, channels, dtype, path, calibration: The arguments.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        dtype: Any,
        path: str | os.PathLike[str] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.channels = int(channels)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.path = path
        self.calibration = calibration or Calibration()
        if min(self.shape) < 1:
            raise InvalidDataError(
                f"An image must have at least one pixel. Received: shape={self.shape}", file=path
            )

    @abc.abstractmethod
    def read(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return the pixels [y2 - y1, x2 - x1] or [y2 - y1, x2 - x1, channels] of a window in the image."""

    def window(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return a part of the image.

        Args:
            y1, x1, y2, x2: The window in pixels; row y2 and column x2 are outside.

        Returns:
            [y2 - y1, x2 - x1] for one channel, else [y2 - y1, x2 - x1, channels], in the byte order of this
            machine.

        Raises:
            ValueError: If the window does not lie in the image.
            UnreadableFileError: If it cannot be decoded. The message names the file and the window.
        """
        height, width = self.shape
        if not (0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width):
            raise ValueError(
                f"A window must lie in the image of {height} x {width} pixels. "
                f"Received: (y1, x1, y2, x2)={(y1, x1, y2, x2)}"
            )
        try:
            pixels = np.asarray(self.read(y1, x1, y2, x2))
        except DataError:
            raise
        except Exception as error:  # decoders raise errors of many kinds
            raise UnreadableFileError(
                f"Rows {y1} to {y2} and columns {x1} to {x2} cannot be read: {reason(error)}. Copy or "
                "download the file again, or convert it.",
                file=self.path,
            ) from error
        if pixels.shape[:2] != (y2 - y1, x2 - x1):
            raise UnreadableFileError(
                f"Rows {y1} to {y2} and columns {x1} to {x2} cannot be read: the file returned an array "
                f"of shape {pixels.shape}.",
                file=self.path,
            )
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    def identity(self) -> dict[str, Any] | None:
        """Return what the pixels depend on, as JSON, see `mrcnn.tiles.identity`; None if it is not known.

        A run continues if it is the same. If it is not known, all pixels are read and compared.
        """
        return None

    def close(self) -> None:  # noqa: B027 (most sources have nothing to close)
        """Close the file."""

    def __enter__(self) -> "ImageSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArraySource(ImageSource):
    """An array in memory or on disk: NumPy, `numpy.memmap`, zarr, h5py, dask.

    Args:
        array: [height, width] or [height, width, channels]; it is only sliced.
        channels: Numbers of the channels to read, from 0. All by default.
        path: The file; None for an array in memory.

    Raises:
        InvalidDataError: If the array has another number of axes, or no such channel.
    """

    def __init__(
        self,
        array: Any,
        channels: Sequence[int] | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        shape = tuple(int(side) for side in array.shape)
        if len(shape) not in (2, 3):
            raise InvalidDataError(
                f"An image must have shape (height, width) or (height, width, channels). Received: {shape}. "
                "Take one slice of a stack, such as array[0].",
                file=path,
            )
        count = shape[2] if len(shape) == 3 else 1
        if channels is not None:
            stacks.check_channels(channels, count, f"{count} channels")
        calibration = Calibration() if path is None else read_calibration(path)
        super().__init__(shape, count if channels is None else len(channels), array.dtype, path, calibration)
        self._array, self._chosen = array, channels

    def read(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return the pixels of a window."""
        pixels = np.asarray(self._array[y1:y2, x1:x2])
        return pixels if self._chosen is None else stacks.chosen(pixels, self._chosen)

    def identity(self) -> dict[str, Any] | None:
        """Return what the pixels depend on; None for arrays in memory and in folders."""
        if self.path is None or not isinstance(self._array, np.memmap):
            return None
        return identity_of([self.path], channels=self._chosen)


class TiffSource(ImageSource):
    """A TIFF, BigTIFF or OME-TIFF file, tiled or not, by tifffile. Compressed files also need zarr.

    Pixels are those that viewers show: the orientation, color maps and ICC profiles are applied, CMYK and
    LAB colors become RGB, and white is the largest value. Chosen `channels` keep the values in the file.

    Args:
        path: The file.
        page: Number of the image, from 0, or None if there is only one. Images are counted as by
            `mrcnn.files.images.read_image`.
        channels: Numbers of the channels to read, from 0; None for gray and color images, without alpha.
        level: Level of a pyramid, 0 for the full size.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it is not a TIFF file, or is damaged.
        InvalidDataError: If it holds several images and `page` is None, has channels that are not colors and
            `channels` is None, has no such page, channel or level, or has a place on a map and stored rows or
            columns that must be turned.
        ImportError: If zarr is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        page: int | None = None,
        channels: Sequence[int] | None = None,
        level: int = 0,
    ) -> None:
        import tifffile

        if not Path(path).is_file():
            raise MissingFileError("There is no such file.", file=path)
        try:
            self._tiff = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises many kinds
            raise UnreadableFileError(
                f"The TIFF file cannot be opened: {reason(error)}. Copy or download it again, or convert it.",
                file=path,
            ) from error
        try:
            self._open(path, page, channels, level)
        except BaseException:
            self._tiff.close()
            raise

    def _open(
        self, path: str | os.PathLike[str], page: int | None, channels: Sequence[int] | None, level: int
    ) -> None:
        with open(path, "rb") as stream:
            stack = stacks.stack_of(stream)
        found, index = tiff.layout(self._tiff), 0
        if page is None and is_slide(self._tiff, found):
            page = 0
        series = joint_series(self._tiff, found)
        if series is None:
            index = checked_page(page, found.frames, stack, path)
            series, page = series_of(self._tiff, found.pages[index]), 0
        check_level(level, len(series.levels), path)
        series = series.levels[level]
        lengths = dict(zip(series.axes, series.shape, strict=True))
        if not {"Y", "X"} <= lengths.keys():
            raise InvalidDataError(
                f"An image needs the axes Y and X. Received: axes {series.axes}. Save it with both axes.",
                file=path,
            )
        self._channel_axis = "C" if "C" in lengths else "S" if "S" in lengths else None
        others = [axis for axis in series.axes if axis not in ("Y", "X", self._channel_axis)]
        place = checked_page(page, math.prod(int(lengths[axis]) for axis in others), stack, path)
        position = np.unravel_index(place, [lengths[axis] for axis in others]) if others else ()
        self._fixed = dict(zip(others, map(int, position), strict=True))
        look = self._appearance = appearance_of(found, index or place, channels is not None)
        count = int(lengths[self._channel_axis]) if self._channel_axis else 1
        self._chosen = self._channels(channels, count, found.pages[index], str(stack), path)
        self._file = path
        self._part: dict[str, Any] = {"page": index or place, "channels": channels, "level": level}
        self._axes = series.axes
        self._array = self._opened(series, path)
        super().__init__(
            look.shown_shape(lengths["Y"], lengths["X"]),
            look.channels(len(self._chosen)),
            look.dtype(series.dtype),
            path,
            _turned(_calibration(path, level), look.orientation, path),
        )

    def _channels(
        self,
        channels: Sequence[int] | None,
        count: int,
        page: Any,
        stack: str,
        path: str | os.PathLike[str],
    ) -> list[int]:
        """Return the stored channels to read."""
        if "S" in self._fixed:
            raise InvalidDataError(
                f"Each channel must be one value per pixel. Received: {stack}. Save each channel as a gray "
                "image.",
                file=path,
            )
        if channels is not None:
            stacks.check_channels(channels, count, stack)
            return list(channels)
        if self._appearance.converted and count == int(page.samplesperpixel):
            return self._appearance.converted
        if count == 1:
            return [0]
        if self._channel_axis == "S" and is_gray_with_alpha(page):
            return [0]
        if self._channel_axis == "S" and count in tiff.COLOR_CHANNELS and has_colors(page):
            return [0, 1, 2]
        if self._channel_axis == "S" and int(page.photometric) in CONVERTED_COLORS:
            raise InvalidDataError(
                "The colors of the file cannot be converted to RGB part by part. Received: "
                f"{page.photometric.name}, {page.dtype}, compression {int(page.compression)}. Save the image "
                "with RGB colors.",
                file=path,
            )
        raise InvalidDataError(
            f"The channels of the file are not colors. Received: {stack}. Choose one or more with "
            "`channels`, such as channels=(0,).",
            file=path,
        )

    def _opened(self, series: Any, path: str | os.PathLike[str]) -> Any:
        """Return an array of all axes that only reads sliced parts."""
        if series.dataoffset is not None:  # uncompressed, in one piece
            return np.memmap(
                path,
                series.dtype.newbyteorder(self._tiff.byteorder),
                "r",
                series.dataoffset,
                tuple(int(side) for side in series.shape),
            )
        zarr = require("zarr", "Compressed and tiled TIFF files need", extra="large")
        array = zarr.open(series.aszarr(), mode="r")
        if hasattr(array, "keys"):  # a group of pyramid levels
            array = array["0"]
        size = int(np.prod(array.chunks, dtype=np.int64)) * array.dtype.itemsize
        if size > LARGEST_BLOCK:
            raise InvalidDataError(
                f"The file has blocks of {size} bytes, and parts of a block cannot be read. At most "
                f"{LARGEST_BLOCK} are read at once. Save the image as a tiled TIFF file.",
                file=path,
            )
        return array

    def read(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return the pixels of a window."""
        y1, x1, y2, x2 = self._appearance.stored_window((y1, x1, y2, x2), self.shape)
        index: list[Any] = []
        for axis in self._axes:
            if axis == "Y":
                index.append(slice(y1, y2))
            elif axis == "X":
                index.append(slice(x1, x2))
            else:
                index.append(slice(None) if axis == self._channel_axis else self._fixed[axis])
        pixels = np.asarray(self._array[tuple(index)])
        left = [axis for axis in self._axes if axis not in self._fixed]
        pixels = pixels.transpose(sorted(range(len(left)), key=lambda axis: "YXCS".index(left[axis])))
        return self._appearance.shown(stacks.chosen(pixels, self._chosen))

    def identity(self) -> dict[str, Any]:
        """Return what the pixels depend on."""
        return identity_of([self._file], **self._part)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


class SlideSource(ImageSource):
    """A whole slide from a scanner, read by tiffslide or OpenSlide.

    Args:
        path: The file.
        level: Level of the pyramid, 0 for the full size.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it cannot be opened.
        InvalidDataError: If there is no such level.
        ImportError: If both packages are missing.
    """

    def __init__(self, path: str | os.PathLike[str], level: int = 0) -> None:
        if not Path(path).is_file():
            raise MissingFileError("There is no such file.", file=path)
        try:
            import tiffslide

            opened = tiffslide.TiffSlide
        except ImportError:
            opened = require("openslide", "Whole slides need", package="tiffslide", extra="slides").OpenSlide
        try:
            self._slide = opened(os.fspath(path))
        except Exception as error:
            raise UnreadableFileError(
                f"The slide cannot be opened: {reason(error)}. Copy or download it again, or convert it.",
                file=path,
            ) from error
        check_level(level, self._slide.level_count, path)
        self._file, self._level = path, level
        width, height = self._slide.level_dimensions[level]
        self._scale = float(self._slide.level_downsamples[level])
        super().__init__((height, width), 3, np.uint8, path, self._calibration())

    def _calibration(self) -> Calibration:
        properties: Any = self._slide.properties
        sizes: list[Any] = [properties.get(f"{self._kind}.mpp-{axis}") for axis in "yx"]
        try:
            height, width = (float(size) * self._scale for size in sizes)
            return Calibration(PixelSize(height, width))
        except (TypeError, ValueError):
            return Calibration()

    @property
    def _kind(self) -> str:
        return type(self._slide).__module__.partition(".")[0]

    def read(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return the pixels of a window."""
        place = (round(x1 * self._scale), round(y1 * self._scale))  # in pixels of level 0
        pixels = np.asarray(self._slide.read_region(place, self._level, (x2 - x1, y2 - y1)))
        if pixels.shape[-1] == 4:  # where nothing was scanned, alpha is 0: white, as viewers show it
            return np.where(pixels[..., 3:] == 0, np.uint8(255), pixels[..., :3])
        return pixels[..., :3]

    def identity(self) -> dict[str, Any] | None:
        """Return what the pixels depend on; None for kinds of slides whose other files have any names."""
        path = Path(self._file)
        suffix = path.suffix.lower()
        if suffix in {".vms", ".vmu"}:
            return None
        folder = path.with_suffix("")  # the pixels of a .mrxs file
        has_folder = suffix == ".mrxs" and folder.is_dir()
        others = [file for file in folder.iterdir() if file.is_file()] if has_folder else []
        return identity_of([path, *others], level=self._level)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


class RasterSource(ImageSource):
    """An image on a map, such as a GeoTIFF file, by rasterio.

    Pixels are those that viewers show, as in `TiffSource`.

    Args:
        path: Any path that rasterio opens.
        channels: Numbers of the bands to read, from 0, or None for a single band or red, green and blue
            bands, without alpha.

    Raises:
        UnreadableFileError: If it cannot be opened.
        InvalidDataError: If the bands are not colors and `channels` is None, there is no such band, or the
            stored rows and columns must be turned.
        ImportError: If rasterio is missing.
    """

    def __init__(self, path: str | os.PathLike[str], channels: Sequence[int] | None = None) -> None:
        rasterio = require("rasterio", "Rasters of maps need", extra="geo")
        try:
            self._raster = rasterio.open(os.fspath(path))
        except Exception as error:
            raise UnreadableFileError(
                f"The raster cannot be opened: {reason(error)}. Copy or download it again, or convert it.",
                file=path,
            ) from error
        raster = self._raster
        try:
            self._chosen, self._appearance = channels, self._shown(channels, path)
            self._bands = [number + 1 for number in self._channels(channels, path)]
            a, b, c, d, e, f = (float(value) for value in tuple(raster.transform)[:6])
            place = None
            if not raster.transform.is_identity:
                place = GeoReference(
                    (a, b, c, d, e, f), None if raster.crs is None else raster.crs.to_string()
                )
            super().__init__(
                raster.shape,
                self._appearance.channels(len(self._bands)),
                raster.dtypes[self._bands[0] - 1],
                path,
                Calibration(georeference=place),
            )
        except BaseException:
            raster.close()
            raise

    def _channels(self, channels: Sequence[int] | None, path: str | os.PathLike[str]) -> list[int]:
        count = int(self._raster.count)
        kinds = [str(kind.name) for kind in self._raster.colorinterp]
        if channels is not None:
            stacks.check_channels(channels, count, f"{count} bands ({', '.join(kinds)})")
            return list(channels)
        if self._appearance.converted:
            return self._appearance.converted
        if kinds[:3] == ["red", "green", "blue"] and count in tiff.COLOR_CHANNELS:
            return [0, 1, 2]
        if count == 1 or kinds == ["gray", "alpha"]:
            return [0]
        raise InvalidDataError(
            f"The bands of the file are not colors. Received: {count} bands ({', '.join(kinds)}). Choose one "
            "or more with `channels`, such as channels=(0, 1, 2).",
            file=path,
        )

    def _shown(self, channels: Sequence[int] | None, path: str | os.PathLike[str]) -> Appearance:
        """Return how the values are shown; rasterio gives them as stored."""
        if Path(path).suffix.lower() in TIFF_SUFFIXES and Path(path).is_file():
            import tifffile

            with tifffile.TiffFile(path) as file:
                found = tiff.layout(file)
                pages = [page for page in found.pages if not page.is_mask]
                look = appearance_of(found, 0, channels is not None)
            if len(pages) > 1:
                raise InvalidDataError(
                    f"The file must hold one image. Received: {len(pages)} pages. {CHOOSE_PAGE}",
                    file=path,
                )
            if look.orientation != 1:
                raise _turned_map(look.orientation, path)
            # GDAL has already converted LAB colors.
            return dataclasses.replace(look, raw_mode=None) if look.raw_mode == "LAB" else look
        kinds = [kind.name for kind in self._raster.colorinterp]
        if channels is not None or kinds != ["palette"] or self._raster.dtypes[0] != "uint8":
            return Appearance()
        colors = np.zeros((256, 3), np.uint8)
        for index, color in self._raster.colormap(1).items():
            colors[index] = color[:3]
        return Appearance(colors=colors)

    def read(self, y1: int, x1: int, y2: int, x2: int) -> Image:
        """Return the pixels of a window."""
        pixels = self._raster.read(self._bands, window=((y1, y2), (x1, x2)))
        return self._appearance.shown(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))

    def identity(self) -> dict[str, Any] | None:
        """Return what the pixels depend on: also the files to which a .vrt file refers."""
        # Programs that show a raster write these files. The pixels of the full size do not depend on them.
        files = [file for file in self._raster.files if not file.endswith((".aux.xml", ".ovr"))]
        is_known = files and all(map(os.path.isfile, files))
        return identity_of(files, channels=self._chosen) if is_known else None

    def close(self) -> None:
        """Close the file."""
        self._raster.close()


def open_source(
    source: Any,
    *,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    level: int = 0,
) -> ImageSource:
    """Open an image that is read window by window.

    | source | reader |
    |---|---|
    | an `ImageSource` | itself |
    | an array, also of zarr, h5py or dask, or `numpy.memmap` | `ArraySource` |
    | .tif, .tiff, .btf, OME-TIFF | `TiffSource`; `RasterSource` for a GeoTIFF file if rasterio is installed |
    | .svs, .ndpi, .mrxs, .scn, .vms, .bif | `SlideSource` |
    | .vrt, .jp2, .img | `RasterSource` |
    | .npy, .zarr | `ArraySource`, mapped from the disk |
    | other image files (PNG, JPEG) | `ArraySource`; they are decoded as a whole |

    Args:
        source: An image or its path.
        page: Number of the image, from 0, in a file with several.
        channels: Numbers of the channels to read, from 0, for images whose channels are not colors.
        level: Level of a pyramid, 0 for the full size.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it cannot be opened.
        InvalidDataError: If the page, the channels or the level must be chosen or do not exist, or cannot be
            chosen in this kind of image.
        ImportError: If the package that reads it is missing. The message names it.
    """
    choices: dict[str, Any] = {"page": page, "channels": channels, "level": level or None}
    if isinstance(source, ImageSource):
        _refuse(choices, "an opened source", "page", "channels", "level")
        return source
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "shape"):
            raise InvalidDataError(f"An image must be an array or a path. Received: {type(source).__name__}")
        _refuse(choices, "an array", "page", "level")
        return ArraySource(source, channels)
    path = Path(source)
    suffix = path.suffix.lower()
    if not path.exists():
        raise MissingFileError("There is no such file or folder.", file=path)
    if suffix in TIFF_SUFFIXES:
        if page is None and level == 0 and _is_map(path):
            return RasterSource(path, channels)
        return TiffSource(path, page, channels, level)
    if suffix in SLIDE_SUFFIXES:
        _refuse(choices, "a whole slide", "page", "channels", file=path)
        return SlideSource(path, level)
    if suffix in RASTER_SUFFIXES:
        _refuse(choices, "a raster of a map", "page", "level", file=path)
        return RasterSource(path, channels)
    if suffix == ".npy":
        _refuse(choices, "an array", "page", "level", file=path)
        return ArraySource(_mapped(path), channels, path)
    if suffix == ".zarr":
        _refuse(choices, "an array", "page", file=path)
        return _zarr_source(path, channels, level)
    _refuse(choices, "an image of one size", "level", file=path)
    return ArraySource(read_image(path, page=page, channels=channels), None, path)


def _refuse(
    choices: dict[str, Any], kind: str, *names: str, file: str | os.PathLike[str] | None = None
) -> None:
    """Raise InvalidDataError if one of the named choices is made, which this kind of image does not offer."""
    for name in names:
        if choices[name] is not None:
            raise InvalidDataError(
                f"`{name}` cannot be chosen in {kind}. Received: {name}={choices[name]!r}. Leave it out"
                f"{ADVICE[name]}.",
                file=file,
            )


def _zarr_source(path: Path, channels: Sequence[int] | None, level: int) -> ArraySource:
    array = require("zarr", "Zarr arrays need", extra="large").open(os.fspath(path), mode="r")
    if not hasattr(array, "keys"):
        check_level(level, 1, path)
        return ArraySource(array, channels, path)
    if str(level) not in array:
        raise InvalidDataError(
            f"`level` must be one of the arrays {sorted(array)}. Received: level={level}", file=path
        )
    return ArraySource(array[str(level)], channels, path)


def check_level(level: int, count: int, path: str | os.PathLike[str]) -> None:
    """Raise InvalidDataError unless a pyramid of `count` levels has this level."""
    if not 0 <= level < count:
        raise InvalidDataError(f"`level` must be from 0 to {count - 1}. Received: level={level}", file=path)


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableFileError(f"The array cannot be opened: {reason(error)}", file=path) from error


def _is_map(path: Path) -> bool:
    """Return whether a TIFF file has a place on a map, and rasterio is installed."""
    import importlib.util

    if importlib.util.find_spec("rasterio") is None:
        return False
    return read_calibration(path).georeference is not None


def _turned(calibration: Calibration, orientation: int, path: str | os.PathLike[str]) -> Calibration:
    """Return the calibration of an image that is turned by an EXIF orientation."""
    if orientation == 1:
        return calibration
    if calibration.georeference is not None:
        raise _turned_map(orientation, path)
    size = calibration.pixel_size
    if size is None or orientation < 5:
        return calibration
    return Calibration(PixelSize(size.width, size.height, size.unit))


def _turned_map(orientation: int, path: str | os.PathLike[str]) -> InvalidDataError:
    return InvalidDataError(
        "A file with a place on a map must be stored upright. Received: the orientation tag "
        f"{orientation}. Turn the image, and save it with the orientation 1.",
        file=path,
    )


def _calibration(path: str | os.PathLike[str], level: int) -> Calibration:
    return read_calibration(path) if level == 0 else Calibration()

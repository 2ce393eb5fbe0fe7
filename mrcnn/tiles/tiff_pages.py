"""The images of a TIFF file as `mrcnn.files.images.read_image` counts them, and the series that hold them.

tifffile joins images of one kind to a series. A file may hold several series, and a series may take images
from other files.
"""

import math
import os
from typing import Any

import tifffile

from mrcnn.errors import InvalidDataError
from mrcnn.files import tiff
from mrcnn.files.arguments import CHOOSE_PAGE
from mrcnn.files.stacks import Stack


def joint_series(file: tifffile.TiffFile, found: tiff.Layout) -> Any | None:
    """Return the series that holds all images of a file and no others, or None."""
    series = file.series[0]
    lengths = (length for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS")
    return series if not series.is_multifile and math.prod(lengths) == found.frames else None


def series_of(file: tifffile.TiffFile, page: Any) -> Any:
    """Return a series of one page: the one in the file, which may have levels, or a new one."""
    for series in file.series:
        keyframe = series.keyframe
        if len(series) == 1 and keyframe.parent is file and keyframe.offset == page.offset:
            return series
    return tifffile.TiffPageSeries([page], page.shape, page.dtype, page.axes, parent=file)


def is_slide(file: tifffile.TiffFile, found: tiff.Layout) -> bool:
    """Return whether the images of a file are the levels of the first one, and thumbnails.

    Scanners store levels this way. In other files, levels are marked and do not count as images.
    """
    series = file.series[0]
    levels = {page.offset for level in series.levels[1:] for page in level.pages if page is not None}
    return len(series) == 1 and any(page.offset in levels for page in found.pages)


def checked_page(page: int | None, count: int, stack: Stack, path: str | os.PathLike[str]) -> int:
    """Check `page`, and return it, or 0 if it is None and the file holds only one image.

    Args:
        page: The number, from 0, or None.
        count: The number of images.
        stack: What the images are, for the error.
        path: The file, for the error.

    Raises:
        InvalidDataError: If there are several images and `page` is None, or there is no such image.
    """
    if page is None and count > 1:
        raise InvalidDataError(f"The file must hold one image. Received: {stack}. {CHOOSE_PAGE}", file=path)
    if not 0 <= (page or 0) < count:
        raise InvalidDataError(f"`page` must be from 0 to {count - 1}. Received: page={page}", file=path)
    return page or 0

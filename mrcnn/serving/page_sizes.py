"""The sizes of the pages of a TIFF file and of the frames of an animation, before they are decoded."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tifffile

from mrcnn.errors import DataError, UnreadableFileError, reason
from mrcnn.files import headers, tiff

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


def sizes_until(content: bytes, page: int) -> Iterator[tuple[int, int]]:
    """Yield the stored (height, width) of each image but the first that has to be decoded to reach a page.

    A page of a TIFF file needs no other. A frame of an animation needs all frames before it. Each is decoded
    only after its size has been yielded, so the caller can stop before a frame that is too large.

    Args:
        content: The file. The size of its first image has been checked.
        page: Number of the image, from 0. There may be no such page.

    Raises:
        UnreadableFileError: If the file is damaged.
        InvalidDataError: If it declares more pixels than `mrcnn.files.images.pixel_limit`.
    """
    if not page:
        return
    stream = io.BytesIO(content)
    try:
        with headers.by_pillow(stream) as image:
            if image is not None and image.format != "TIFF":
                yield from _sizes_of_frames(image, min(page + 1, headers.header_of(image, stream).frames))
                return
        yield from _size_of_page(stream, page)
    except DataError:
        raise
    except Exception as error:  # decoders raise errors of many kinds
        raise UnreadableFileError(f"The image cannot be read: {reason(error)}") from error


def _sizes_of_frames(image: "PillowImage", end: int) -> Iterator[tuple[int, int]]:
    for frame in range(1, end):
        image.seek(frame)
        yield image.size[1], image.size[0]


def _size_of_page(stream: io.BytesIO, page: int) -> Iterator[tuple[int, int]]:
    with tiff.opened(stream) as file:
        pages = tiff.layout(file).pages
        if page < len(pages):
            found = pages[page]
            found = found.aspage() if isinstance(found, tifffile.TiffFrame) else found
            yield int(found.imagelength), int(found.imagewidth)

"""Read large JPEG files at a half, a quarter or an eighth of their size, which takes a fraction of the time.

With REDUCED_JPEG, this happens if the network's input is at most half as large as the image in the file.
Detections refer to the size in the file.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mrcnn.files.images import Source, read_header, read_image
from mrcnn.geometry.images import image_scale
from mrcnn.inference.test_time_augmentation import has_options
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config

REDUCTIONS = (8, 4, 2)  # of JPEG decoders, the largest first


@dataclass(frozen=True)
class ReducedImage:
    """An image that was decoded at a part of its size.

    Attributes:
        pixels: [h, w] or [h, w, channels].
        size: (height, width) of the whole image.
    """

    pixels: Image
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole image."""
        return (*self.size, *self.pixels.shape[2:])


def reduction(size: tuple[int, int], config: "Config") -> int:
    """Return 8, 4 or 2 if an image (height, width) may be decoded at that part of its size, otherwise 1.

    The reduced image is never smaller than the molded image.
    """
    if has_options(config):  # they work on whole images
        return 1
    scale = image_scale(
        size, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE
    )
    return next((part for part in REDUCTIONS if scale * part <= 1), 1)


def read_reduced(
    file: Source, name: str | None = None, *, config: "Config", **options: Any
) -> Image | ReducedImage:
    """Read an image file for detection, at reduced size if it is a JPEG file and `reduction` allows it.

    Args:
        file, name: See `mrcnn.files.images.read_image`.
        config: The settings of the model.
        options: Of `read_image`. With a page, channels or an orientation, the image is read whole.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_image`.
    """
    if any(options.get(choice) is not None for choice in ("page", "channels", "orientation")):
        return read_image(file, name, **options)
    size = read_header(file, name).shown_size
    pixels = read_image(file, name, reduced=reduction(size, config), **options)
    return pixels if pixels.shape[:2] == size else ReducedImage(pixels, size)

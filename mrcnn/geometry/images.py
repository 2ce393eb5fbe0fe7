"""Resizing images and masks to the size of the network.

Axes: H, W original image; H', W' resized image.
"""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.geometry import interpolation
from mrcnn.typing import Box

if TYPE_CHECKING:
    from mrcnn.config import Config

# The sides of a molded image must be multiples of this: the coarsest level of the pyramid has stride 64.
SIZE_MULTIPLE = 64
# With IMAGE_RESIZE_MODE "shortest" P6 has half the cells of P5, rounded up.
SHORTEST_MULTIPLE = 32
# An image is too thin if molding makes more pixels than LARGEST_ENLARGED of it, and THINNEST times as many as
# of a square image. The ratio exceeds 32 only for sides of more than 1:32 and an enlargement of more than 5:
# large images are not enlarged so much, and panoramas and line scans are wider. Below 16 million pixels, a
# network needs a few gigabytes.
LARGEST_ENLARGED = 16_000_000
THINNEST = 32

Padding = list[tuple[int, int]]
Crop = tuple[int, int, int, int]  # (y, x, height, width) of the scaled image


class WholeImage(NamedTuple):
    """The crop of mode "shortest": the whole scaled image. Its type tells `resize_mask` which grid to use."""

    y: int
    x: int
    height: int
    width: int


Resized = tuple[np.ndarray, Box, float, Padding, Crop | None]


def resize(
    image: np.ndarray,
    output_shape: Sequence[int],
    order: int = 1,
    mode: str = "constant",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool = False,
    anti_aliasing_sigma: float | Sequence[float] | None = None,
) -> np.ndarray:
    """Resize an image, by default with bilinear interpolation, no anti-aliasing, and zeros outside the image.

    Output pixel i samples the input at (i + 0.5) * H / H' - 0.5. In the default mode `cval` surrounds the
    image, so its borders fade when it is enlarged. This function computes the defaults itself, several times
    faster than scikit-image, and passes all other options to `skimage.transform.resize`.

    Args:
        image: [H, W] or [H, W, channels], any dtype; bool counts as 0.0 and 1.0.
        output_shape: (H', W'); further axes may follow.
        order: Order of the interpolation, as in scikit-image.
        mode: How to fill pixels outside the image, as in scikit-image.
        cval: Value outside the image if `mode` is "constant".
        clip: Whether to clip the result to the value range of the image.
        preserve_range: Whether to keep the values of integers. If False, they are converted to 0..1.
        anti_aliasing: Whether to blur before shrinking.
        anti_aliasing_sigma: Standard deviation of this blur, as in scikit-image.

    Returns:
        The resized image; float32 for float16 and float32 images, float64 for all others.

    Raises:
        ValueError: If the image has no pixels or the size is below 1.
    """
    image = np.asarray(image)
    height, width = output_shape[:2]
    _check_sizes(image, height, width)
    image = _as_floating(image, preserve_range)
    bilinear = order == 1 and mode == "constant" and cval == 0 and not anti_aliasing
    same_channels = tuple(output_shape[2:]) in ((), image.shape[2:])
    if bilinear and clip and same_channels:
        resized = np.empty((height, width, *image.shape[2:]), dtype=image.dtype)
        interpolation.bilinear_into(image, resized)
        return resized

    # Imported here because scikit-image and SciPy take longer to load than everything else together.
    from skimage.transform import resize as skimage_resize

    result: np.ndarray = skimage_resize(
        image,
        output_shape,
        order=order,
        mode=mode,
        cval=cval,
        clip=clip,
        preserve_range=preserve_range,
        anti_aliasing=anti_aliasing,
        anti_aliasing_sigma=anti_aliasing_sigma,
    )
    return result


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> Resized:
    """Resize an image to the input size of the network, keeping its aspect ratio.

    Args:
        image: [H, W, channels] of any dtype, which the result keeps. Integers are truncated, except in mode
            "shortest", which rounds them.
        min_dim: Length in pixels to which a shorter short side is enlarged.
        max_dim: Side of the square canvas, which limits the long side. Only modes "square" and "shortest" use
            it.
        min_scale: Smallest scale factor. `max_dim` takes precedence.
        mode: "none" returns the image unchanged. "square" pads it with zeros on all sides to
            [max_dim, max_dim]. "pad64" pads it to sides that are multiples of 64. "crop" cuts out a piece
            [min_dim, min_dim] at a position drawn from Python's `random`. "shortest" scales the short side to
            min_dim, or the long side to max_dim if it would be longer, rounds sizes down and does not pad.

    Returns:
        image: The resized image [H', W', channels].
        window: (y1, x1, y2, x2) in pixels, y2 and x2 outside: the part of the result that is not padding.
        scale: Side of the scaled image divided by the side of the original image, or the integer 1 if the
            image was not scaled.
        padding: [(top, bottom), (left, right), (0, 0)], for `resize_mask`.
        crop: (y, x, height, width) of the piece in the scaled image, or None, for `resize_mask`.

    Raises:
        ValueError: If `mode` is unknown, `image` does not have shape (height, width, channels) or has no
            pixels, or a setting that the mode needs is missing or not a multiple of 64.
    """
    image = np.asarray(image)
    _check_request(image, mode)
    height, width = image.shape[:2]
    if mode == "none":
        return image, (0, 0, height, width), 1, [(0, 0)] * 3, None
    scale = image_scale((height, width), min_dim, max_dim, min_scale, mode)
    if mode == "shortest":
        return _scale_shortest(image, scale)
    if mode == "crop":
        return _scale_and_crop(image, scale, _required("min_dim", min_dim, mode))
    if mode == "square":
        side = _required("max_dim", max_dim, mode)
        return _scale_and_pad(
            image, scale, side - scaled_side(height, scale), side - scaled_side(width, scale)
        )
    _check_multiple(min_dim)
    return _scale_and_pad(
        image,
        scale,
        -scaled_side(height, scale) % SIZE_MULTIPLE,
        -scaled_side(width, scale) % SIZE_MULTIPLE,
    )


def resize_mask(
    mask: np.ndarray,
    scale: float,
    padding: Padding,
    crop: Crop | None = None,
) -> np.ndarray:
    """Resize masks as `resize_image` resized their image.

    This takes the nearest neighbor on the grid that maps corner pixels to corner pixels,
    in = out * (in_side - 1) / (out_side - 1). The grid of `resize_image` differs from it by up to a pixel.
    Published weights were trained with this combination. In mode "shortest", it takes the input pixel
    floor(out * in_side / out_side), as torchvision does: an edge at x moves to x * out_side / in_side,
    rounded up.

    Args:
        mask: [H, W, instances], any dtype, which is kept.
        scale: The scale that `resize_image` returned.
        padding: The padding that it returned.
        crop: The crop that it returned. With a crop, no padding is added.

    Returns:
        Masks [H', W', instances].

    Raises:
        ValueError: If `mask` does not have three axes.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(
            f"`mask` must have shape (height, width, instances). Received: mask.shape={mask.shape}. Add the "
            "axis of instances."
        )
    rows, columns = mask_indices((mask.shape[0], mask.shape[1]), scale, padding, crop)
    part = mask.take(rows[rows >= 0], axis=0).take(columns[columns >= 0], axis=1)
    top, left = (0, 0) if crop is not None else (padding[0][0], padding[1][0])
    resized = np.zeros((len(rows), len(columns), mask.shape[2]), dtype=mask.dtype)
    resized[top : top + part.shape[0], left : left + part.shape[1]] = part
    return resized


def mask_indices(
    shape: tuple[int, int], scale: float, padding: Padding, crop: Crop | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns of a mask that `resize_mask` reads.

    Args:
        shape: (height, width) of the mask.
        scale: The scale that `resize_image` returned.
        padding: The padding that it returned.
        crop: The crop that it returned. With a crop, no padding is added.

    Returns:
        Two int arrays with one entry per row and per column of the result: a row or column of the mask, or -1
        in the padding.
    """
    if isinstance(crop, WholeImage):
        rows, columns = (
            np.arange(side) * whole // side
            for whole, side in zip(shape, (crop.height, crop.width), strict=True)
        )
        return rows, columns
    rows = _mask_index(shape[0], scale, padding[0], crop and (crop[0], crop[2]))
    return rows, _mask_index(shape[1], scale, padding[1], crop and (crop[1], crop[3]))


def _mask_index(
    side: int, scale: float, padding: tuple[int, int], crop: tuple[int, int] | None
) -> np.ndarray:
    """Return the rows or the columns; `crop` is (first, length)."""
    index = interpolation.nearest_index(side, scaled_side(side, scale))
    if crop is not None:
        return index[crop[0] : crop[0] + crop[1]]
    return np.pad(index, padding, constant_values=-1)


def check_molded_size(shape: Sequence[int], mode: str = "square") -> None:
    """Raise ValueError unless the network can take a molded image of shape (height, width, ...).

    Args:
        shape: Shape of the image.
        mode: IMAGE_RESIZE_MODE. The sides must be multiples of 32 with "shortest", of 64 otherwise.
    """
    height, width = shape[:2]
    multiple = SHORTEST_MULTIPLE if mode == "shortest" else SIZE_MULTIPLE
    if height % multiple or width % multiple:
        smaller = [max(multiple, side - side % multiple) for side in (height, width)]
        raise ValueError(
            f"The height and width of a molded image must be multiples of {multiple}. "
            f'Received: {height} x {width}. Set IMAGE_RESIZE_MODE to "square" or "pad64", which pad the '
            f"image, or resize it first, for instance to {smaller[0]} x {smaller[1]}."
        )


def scaled_side(side: int, scale: float) -> int:
    """Return a side in pixels after scaling, rounded half to even, and at least 1 unless it was 0."""
    return max(round(side * scale), min(side, 1))


def _check_sizes(image: np.ndarray, height: int, width: int) -> None:
    if image.ndim < 2 or image.size == 0 or height < 1 or width < 1:
        raise ValueError(
            "`image` must have shape (height, width, ...), and both it and the output must have at least "
            f"one pixel. Received: image.shape={image.shape}, output size {height} x {width}"
        )


def _check_request(image: np.ndarray, mode: str) -> None:
    if mode not in ("none", "square", "pad64", "crop", "shortest"):
        raise ValueError(
            f'`mode` must be "none", "square", "pad64", "crop" or "shortest". Received: mode={mode!r}'
        )
    if image.ndim != 3 or image.size == 0:
        raise ValueError(
            "`image` must have shape (height, width, channels) with at least one pixel. Received: "
            f"image.shape={image.shape}. Add the axis of channels to a gray image."
        )


def _required(name: str, side: int | None, mode: str) -> int:
    if not side:
        raise ValueError(f'Mode "{mode}" needs `{name}`, a side in pixels. Received: {name}={side}')
    return side


def _check_multiple(min_dim: int | None) -> None:
    if min_dim and min_dim % SIZE_MULTIPLE:
        lower = min_dim - min_dim % SIZE_MULTIPLE
        raise ValueError(
            f'In mode "pad64", `min_dim` must be a multiple of {SIZE_MULTIPLE} or None. '
            f"Received: {min_dim=}. The nearest multiples are {lower} and {lower + SIZE_MULTIPLE}."
        )


def image_scale(
    size: tuple[int, int],
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> float:
    """Return the factor by which `resize_image` scales an image of size (height, width); 1 in mode "none".

    The other arguments are those of `resize_image`.

    Raises:
        ValueError: If a setting that the mode needs is missing.
    """
    if mode == "none":
        return 1
    if mode == "shortest":
        shortest, longest = _required("min_dim", min_dim, mode), _required("max_dim", max_dim, mode)
        return min(shortest / min(size), longest / max(size))
    limit = _required("max_dim", max_dim, mode) if mode == "square" else None
    return _scale(*size, min_dim, limit, min_scale)


def molded_size(size: tuple[int, int], config: "Config") -> tuple[int, int]:
    """Return (height, width) of the image that the network takes for an image of size (height, width).

    Args:
        size: Of the original image.
        config: Read for IMAGE_RESIZE_MODE, IMAGE_MIN_DIM, IMAGE_MAX_DIM and IMAGE_MIN_SCALE.

    Raises:
        ValueError: If a setting that the mode needs is missing.
    """
    mode = config.IMAGE_RESIZE_MODE
    scale = image_scale(size, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, mode)
    if mode == "square":
        side = _required("max_dim", config.IMAGE_MAX_DIM, mode)
        return side, side
    if mode == "crop":
        side = _required("min_dim", config.IMAGE_MIN_DIM, mode)
        return side, side
    if mode == "shortest":
        return padded_shape([[max(int(side * scale), 1) for side in size]])
    height, width = (scaled_side(side, scale) for side in size)
    if mode == "pad64":
        return height + -height % SIZE_MULTIPLE, width + -width % SIZE_MULTIPLE
    return height, width


def check_enlargement(size: tuple[int, int], config: "Config") -> None:
    """Check that a thin image does not become huge because its short side is enlarged.

    Args:
        size: (height, width) of the original image.
        config: See `molded_size`.

    Raises:
        InvalidDataError: If the molded image has more than LARGEST_ENLARGED pixels, and more than THINNEST
            times as many as that of a square image with the pixels of this one.
    """
    height, width = molded_size(size, config)
    if height * width <= LARGEST_ENLARGED:
        return
    side = math.isqrt(size[0] * size[1] - 1) + 1
    square = math.prod(molded_size((side, side), config))
    if height * width > THINNEST * square:
        raise InvalidDataError(
            f"The image of {size[0]} x {size[1]} pixels is too thin: with IMAGE_RESIZE_MODE="
            f"{config.IMAGE_RESIZE_MODE!r} and IMAGE_MIN_DIM={config.IMAGE_MIN_DIM}, the network would take "
            f"{height} x {width} pixels. Pad its short side, cut it into pieces, or lower IMAGE_MIN_DIM."
        )


def _scale(
    height: int, width: int, min_dim: int | None, max_dim: int | None, min_scale: float | None
) -> float:
    scale: float = 1
    if min_dim:
        scale = max(1, min_dim / min(height, width))
    if min_scale:
        scale = max(scale, min_scale)
    if max_dim:
        long_side = max(height, width)
        if round(long_side * scale) > max_dim:
            scale = max_dim / long_side
    return scale


def pad_after(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Pad an image [H, W, ...] with zeros on the right and at the bottom to (height, width)."""
    rows, columns = shape[0] - image.shape[0], shape[1] - image.shape[1]
    return np.pad(image, [(0, rows), (0, columns), *[(0, 0)] * (image.ndim - 2)])


def padded_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the smallest multiples of 32 that hold images of these shapes (height, width, ...)."""
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    return height + -height % SHORTEST_MULTIPLE, width + -width % SHORTEST_MULTIPLE


def _scale_shortest(image: np.ndarray, scale: float) -> Resized:
    height, width = (max(int(side * scale), 1) for side in image.shape[:2])
    resized = np.empty((height, width, image.shape[2]), dtype=image.dtype)
    interpolation.bilinear_into(image, resized, edge="repeat")
    crop = WholeImage(0, 0, height, width)
    return resized, (0, 0, height, width), scale, [(0, 0)] * 3, crop


def _scale_and_crop(image: np.ndarray, scale: float, side: int) -> Resized:
    height, width = scaled_side(image.shape[0], scale), scaled_side(image.shape[1], scale)
    y = random.randint(0, height - side)
    x = random.randint(0, width - side)
    piece = np.empty((side, side, image.shape[2]), dtype=image.dtype)
    if image.shape[:2] == (height, width):
        piece[...] = image[y : y + side, x : x + side]
    else:
        breaks_ties = image.dtype.kind in "iu"
        interpolation.bilinear_into(image, piece, breaks_ties, size=(height, width), corner=(y, x))
    return piece, (0, 0, side, side), scale, [(0, 0)] * 3, (y, x, side, side)


def _scale_and_pad(image: np.ndarray, scale: float, rows: int, columns: int) -> Resized:
    """Scale, then add rows and columns of zeros, half of them on each side."""
    height, width = scaled_side(image.shape[0], scale), scaled_side(image.shape[1], scale)
    padding = [_split(rows), _split(columns), (0, 0)]
    top, left = padding[0][0], padding[1][0]
    canvas = np.zeros((height + rows, width + columns, image.shape[2]), dtype=image.dtype)
    _scale_into(image, canvas[top : top + height, left : left + width])
    return canvas, (top, left, top + height, left + width), scale, padding, None


def _split(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _as_floating(image: np.ndarray, preserve_range: bool) -> np.ndarray:
    if image.dtype == np.float16:
        return image.astype(np.float32)
    if image.dtype.kind == "f":
        return image
    if preserve_range or image.dtype.kind == "b":
        return image.astype(np.float64)
    from skimage.util import img_as_float64

    floating: np.ndarray = img_as_float64(image)
    return floating


def _scale_into(image: np.ndarray, out: np.ndarray) -> None:
    if image.shape == out.shape:
        out[...] = image
    else:
        interpolation.bilinear_into(image, out, break_ties=image.dtype.kind in "iu")

"""Images: resizing to the size of the network, and mean removal."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.geometry import interpolation

# The sides of a molded image must be multiples of this: the coarsest level of the pyramid has stride 64.
SIZE_MULTIPLE = 64

Padding = list[tuple[int, int]]
Rectangle = tuple[int, int, int, int]
Resized = tuple[np.ndarray, Rectangle, float, Padding, Rectangle | None]


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
    """Resize an image; by default bilinear, without anti-aliasing and with zeros around it.

    image: [H, W] or [H, W, channels], any dtype; bool counts as 0.0 and 1.0.
    output_shape: (height, width), further axes may follow.
    order, mode, cval, clip, preserve_range, anti_aliasing, anti_aliasing_sigma: as in
    skimage.transform.resize. With preserve_range=False integers are brought to 0..1 first.

    Output pixel i samples the input at (i + 0.5) * in / out - 0.5; with the default mode what lies
    outside is `cval`, so borders fade when enlarging, and `clip` then limits the result to the
    input's range of values.

    Returns float32 for float16 and float32 images, else float64. The defaults are computed here,
    several times faster than by scikit-image; every other choice is handed over to it.
    Raises ValueError for an image without pixels or a size below 1.
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

    # Here and not above: scikit-image and SciPy take longer to load than everything else together.
    from skimage.transform import resize as skimage_resize

    return skimage_resize(
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


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> Resized:
    """Resize an image to the size the network takes, keeping its aspect ratio.

    image: [H, W, channels], any dtype, which is kept; integers are truncated, not rounded.
    min_dim: the short side is enlarged to it. max_dim: side of the square canvas, the long side
    shrinks to it; read in mode "square" only. min_scale: smallest scale, overruled by max_dim.
    mode:
    - "none": the image as it is.
    - "square": padded with zeros, centred, to [max_dim, max_dim].
    - "pad64": padded with zeros, centred, to sides that are multiples of 64.
    - "crop": a random [min_dim, min_dim] piece, placed by Python's `random`.

    Returns
    - image [H', W', channels]
    - window (y1, x1, y2, x2): the part of it that is no padding, pixels, y2 and x2 outside
    - scale: resized / original side, the integer 1 if nothing was scaled
    - padding [(top, bottom), (left, right), (0, 0)] for `resize_mask`
    - crop (y, x, height, width) of the scaled image, or None, for `resize_mask`

    Raises ValueError for an unknown mode, an image that is not [H, W, channels] or has no pixels,
    "square" without max_dim, "pad64" with a min_dim that is no multiple of 64, "crop" without
    min_dim.
    """
    image = np.asarray(image)
    _check_request(image, mode)
    height, width = image.shape[:2]
    if mode == "none":
        return image, (0, 0, height, width), 1, [(0, 0)] * 3, None
    if mode == "crop":
        side = _required(min_dim, 'Mode "crop" wants min_dim, the side of the piece.')
        return _scale_and_crop(image, _scale(height, width, min_dim, None, min_scale), side)
    if mode == "square":
        side = _required(max_dim, 'Mode "square" wants max_dim, the side of the canvas.')
        scale = _scale(height, width, min_dim, side, min_scale)
        return _scale_and_pad(
            image, scale, side - scaled_side(height, scale), side - scaled_side(width, scale)
        )
    _check_multiple(min_dim)
    scale = _scale(height, width, min_dim, None, min_scale)
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
    crop: Rectangle | None = None,
) -> np.ndarray:
    """Resize masks as `resize_image` resized their image; scale, padding and crop are its results.

    mask: [H, W, instances], any dtype, which is kept. Nearest neighbour on the grid that maps
    corner pixels onto corner pixels, in = out * (in_side - 1) / (out_side - 1), as in the original;
    this is not the grid of `resize_image`, the two are up to a pixel apart.
    crop: (y, x, height, width) of the scaled mask to cut out; the padding is not added then.

    Returns [H', W', instances].
    Raises ValueError if the mask has not three axes.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(
            "resize_mask wants [height, width, instances]. "
            f"Received: mask of shape {mask.shape}. Add the axis of instances."
        )
    rows = mask_index(mask.shape[0], scale, padding[0], crop and (crop[0], crop[2]))
    columns = mask_index(mask.shape[1], scale, padding[1], crop and (crop[1], crop[3]))
    part = mask.take(rows[rows >= 0], axis=0).take(columns[columns >= 0], axis=1)
    top, left = (0, 0) if crop is not None else (padding[0][0], padding[1][0])
    resized = np.zeros((len(rows), len(columns), mask.shape[2]), dtype=mask.dtype)
    resized[top : top + part.shape[0], left : left + part.shape[1]] = part
    return resized


def mask_index(
    side: int, scale: float, padding: tuple[int, int], crop: tuple[int, int] | None = None
) -> np.ndarray:
    """Where `resize_mask` reads a mask along one axis.

    side: pixels of the mask; scale: of `resize_image`; padding: (before, after) in pixels; crop: (first,
    length) of the scaled mask to cut out, or None; the padding is not added then.

    Returns int [pixels of the result]: row or column of the mask, -1 in the padding.
    """
    index = interpolation.nearest_index(side, scaled_side(side, scale))
    if crop is not None:
        return index[crop[0] : crop[0] + crop[1]]
    return np.pad(index, padding, constant_values=-1)


def mold_image(images: np.ndarray, config: Any) -> np.ndarray:
    """Subtract the mean colour.

    images: [..., H, W, channels], RGB, 0..255, any dtype; config.MEAN_PIXEL: [channels].

    Returns the images as float32 minus the mean; float64 where the mean is float64.
    """
    return np.asarray(images).astype(np.float32) - config.MEAN_PIXEL


def unmold_image(normalized_images: np.ndarray, config: Any) -> np.ndarray:
    """Add the mean colour again.

    normalized_images: [..., H, W, channels] as `mold_image` gives; config.MEAN_PIXEL: [channels].

    Returns uint8: fractions are cut off, values outside 0..255 wrap around.
    """
    # By way of int64, because the direct cast of values outside 0..255 differs between machines.
    return (normalized_images + config.MEAN_PIXEL).astype(np.int64).astype(np.uint8)


def check_molded_size(shape: Sequence[int]) -> None:
    """Raise ValueError unless both sides of a molded image (height, width, ...) suit the network."""
    height, width = shape[:2]
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
        smaller = [max(SIZE_MULTIPLE, side - side % SIZE_MULTIPLE) for side in (height, width)]
        raise ValueError(
            f"The height and width of a molded image must be multiples of {SIZE_MULTIPLE}. "
            f'Received: {height} x {width}. Set IMAGE_RESIZE_MODE to "square" or "pad64", which pad the '
            f"image, or resize it first, for instance to {smaller[0]} x {smaller[1]}."
        )


def scaled_side(side: int, scale: float) -> int:
    """A side in pixels after scaling: rounded half to even, at least 1 if it was."""
    return max(round(side * scale), min(side, 1))


def _check_sizes(image: np.ndarray, height: int, width: int) -> None:
    if image.ndim < 2 or image.size == 0 or height < 1 or width < 1:
        raise ValueError(
            "Resizing wants an image with pixels, [height, width, ...], and a size of at least "
            f"1 x 1. Received: image of shape {image.shape}, size {height} x {width}."
        )


def _check_request(image: np.ndarray, mode: str) -> None:
    if mode not in ("none", "square", "pad64", "crop"):
        raise ValueError(f'mode must be "none", "square", "pad64" or "crop". Received: mode={mode!r}.')
    if image.ndim != 3 or image.size == 0:
        raise ValueError(
            "resize_image wants an image with pixels, [height, width, channels]. "
            f"Received: image of shape {image.shape}. Add the axis of channels to a grey image."
        )


def _required(side: int | None, wanted: str) -> int:
    if not side:
        raise ValueError(f"{wanted} Received: {side}.")
    return side


def _check_multiple(min_dim: int | None) -> None:
    if min_dim and min_dim % SIZE_MULTIPLE:
        lower = min_dim - min_dim % SIZE_MULTIPLE
        raise ValueError(
            f'Mode "pad64" wants min_dim to be a multiple of {SIZE_MULTIPLE} or None. '
            f"Received: {min_dim=}. The nearest are {lower} and {lower + SIZE_MULTIPLE}."
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


def _scale_and_crop(image: np.ndarray, scale: float, side: int) -> Resized:
    height, width = scaled_side(image.shape[0], scale), scaled_side(image.shape[1], scale)
    y = random.randint(0, height - side)
    x = random.randint(0, width - side)
    scaled = np.empty((height, width, image.shape[2]), dtype=image.dtype)
    _scale_into(image, scaled)
    piece = scaled[y : y + side, x : x + side]
    return piece, (0, 0, side, side), scale, [(0, 0)] * 3, (y, x, side, side)


def _scale_and_pad(image: np.ndarray, scale: float, rows: int, columns: int) -> Resized:
    """Scale, then add so many rows and columns of zeros around."""
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

    return img_as_float64(image)


def _scale_into(image: np.ndarray, out: np.ndarray) -> None:
    if image.shape == out.shape:
        out[...] = image
    else:
        interpolation.bilinear_into(image, out, break_ties=image.dtype.kind in "iu")

"""Resampling of pixel arrays: bilinear for images, nearest neighbor for masks.

Axes: H, W input; H', W' output; further axes, such as channels, follow.
"""

from collections.abc import Iterator

import numpy as np

# Number of values to interpolate at a time, so that float64 scratch arrays fit into the processor's cache.
VALUES_AT_A_TIME = 1 << 15

# The Keras 2 library resized with scikit-image, which fits its sampling positions by least squares. Rounding
# noise moves them by about 1e-14 pixels, mostly columns to the left and rows down. This determines the result
# if a value exactly on an integer is truncated, or a value exactly on a half is compared. The shifts
# reproduce these results, because published weights were trained with them.
TIE_SHIFT_ROWS, TIE_SHIFT_COLUMNS = 1e-13, -1e-12

# Along one axis, for each output position: indices of its two neighbors, the weight of the second, and a
# factor for both, below 1 next to the border.
Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def bilinear_into(
    image: np.ndarray,
    out: np.ndarray,
    break_ties: bool = False,
    edge: str = "zero",
    size: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> None:
    """Resize an image, or a part of it, into `out`, with bilinear interpolation and no anti-aliasing.

    Pixel i of the resized image samples the input at (i + 0.5) * H / H' - 0.5. The result is clipped to the
    value range of the image and then cast to the dtype of `out`. All arithmetic is in float64, but sampling
    positions for float16 and float32 images are rounded to float32, as in scikit-image. The axes are
    interpolated one after the other, some rows at a time.

    Args:
        image: [H, W, ...].
        out: The resized image or a part of it, any dtype and memory layout.
        break_ties: Whether to move positions by TIE_SHIFT_ROWS and TIE_SHIFT_COLUMNS, so that values exactly
            between two integers or classes are mostly rounded as in scikit-image.
        edge: Values outside the image: "zero", or "repeat" to repeat its outermost pixels. With "repeat",
            positions are rounded to float32, as in PyTorch, and an integer `out` gets rounded values.
        size: (H', W') of the resized image, by default that of `out`.
        corner: (y, x) of the first pixel of `out` in the resized image. Only this part is computed.
    """
    height, width = out.shape[:2]
    channels = int(np.prod(image.shape[2:]))
    low, high = float(image.min()), float(image.max())
    single = image.dtype in (np.float16, np.float32)
    shift_y, shift_x = (TIE_SHIFT_ROWS, TIE_SHIFT_COLUMNS) if break_ties else (0.0, 0.0)
    full_height, full_width = size or (height, width)
    along_y, rows = _part(_taps(image.shape[0], full_height, single, shift_y, edge), corner[0], height)
    along_x, columns = _part(_taps(image.shape[1], full_width, single, shift_x, edge), corner[1], width)
    along_x = _per_channel(along_x, channels)
    pixels = image[rows, columns]
    pixels = pixels.reshape(len(pixels), -1)
    step = max(1, VALUES_AT_A_TIME // max(pixels.shape[1], width * channels))

    # The axis that shrinks comes first, the one that grows last: the array in between is the smallest.
    grows = full_height > image.shape[0]
    if grows:
        blocks = _slices(len(pixels), step)
        pixels = np.concatenate([_blend(pixels[block], along_x, axis=1) for block in blocks])
    for block in _slices(height, step):
        lower, upper, weight, fade = along_y
        taps = (lower[block], upper[block], weight[block, None], fade[block, None])
        values = _blend(pixels, taps, axis=0)
        if not grows:
            values = _blend(values, along_x, axis=1)
        np.clip(values, low, high, out=values)
        if edge == "repeat" and out.dtype.kind in "iu":
            np.rint(values, out=values)
        out[block] = values.reshape(-1, *out.shape[1:])


def nearest_index(in_side: int, out_side: int) -> np.ndarray:
    """Return the index of the nearest input pixel for every output pixel; corners map to corners.

    Output pixel i lies at i * (in_side - 1) / (out_side - 1) of the input; halves are rounded up.

    Args:
        in_side: Pixels of the input along the axis.
        out_side: Pixels of the output along the axis.
    """
    if out_side <= 1:
        return np.zeros(out_side, dtype=np.intp)
    position = np.arange(out_side) * ((in_side - 1) / (out_side - 1))
    index: np.ndarray = np.floor(position + 0.5).astype(np.intp)
    return index


def _taps(in_side: int, out_side: int, single: bool, shift: float, edge: str) -> Taps:
    step = in_side / out_side
    if edge == "repeat":
        half = np.float32(0.5)
        position = np.float32(step) * (np.arange(out_side, dtype=np.float32) + half) - half
    elif single:
        first = np.float32(0.5 * step - 0.5)
        position = np.float32(step) * np.arange(out_side, dtype=np.float32) + first
    else:
        position = (np.arange(out_side) + 0.5) * step - 0.5
    position = position.astype(np.float64)
    lower = np.floor(position).astype(np.intp)
    weight = position - lower
    before, after = lower < 0, lower + 1 >= in_side
    # A neighbor outside the image is a zero, so the other one, taken twice, fades with its distance.
    fade = np.where(before, weight, np.where(after, 1 - weight, 1.0))
    if edge == "repeat":
        fade = np.ones(out_side)
    # Samples at the border and exactly on a pixel stay exact.
    weight[~before & ~after & (weight > 0)] += shift
    return np.maximum(lower, 0), np.minimum(lower + 1, in_side - 1), weight, fade


def _part(taps: Taps, first: int, count: int) -> tuple[Taps, slice]:
    """Return the taps of some output positions, and the input that they read, from which they count."""
    lower, upper, weight, fade = (values[first : first + count] for values in taps)
    start = int(lower.min())
    return (lower - start, upper - start, weight, fade), slice(start, int(upper.max()) + 1)


def _per_channel(taps: Taps, channels: int) -> Taps:
    # Rows of interleaved channels: taking single values is faster than taking pixels.
    lower, upper, weight, fade = taps
    channel = np.arange(channels)
    return (
        (lower[:, None] * channels + channel).ravel(),
        (upper[:, None] * channels + channel).ravel(),
        np.repeat(weight, channels),
        np.repeat(fade, channels),
    )


def _blend(values: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    lower, upper, weight, fade = taps
    start, end = _picked(values, lower, axis), _picked(values, upper, axis)
    # start + (end - start) * weight leaves flat regions exactly as they are.
    blended: np.ndarray = np.subtract(end, start, dtype=np.float64)
    blended *= weight
    blended += start
    if np.any(fade != 1):
        blended *= fade
    return blended


def _picked(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    # `take` is the faster one for columns, but first copies all of an array that is a part of a wider one.
    return values[index] if axis == 0 else values.take(index, axis=1)


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, length, step))

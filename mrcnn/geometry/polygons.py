"""Polygons and the masks inside them.

Axes: P points; a point is (x, y) in pixels, counted from the upper left corner of the image, so that the
first pixel reaches from 0 to 1. pycocotools fills the polygons, as it does for COCO.

pycocotools allocates memory for every pixel along an outline and does not check its input. Therefore this
module clips and measures every polygon before pycocotools gets it.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrcnn.errors import InvalidDataError
from mrcnn.typing import Masks

Polygon: TypeAlias = NDArray[np.float64]

ELLIPSE_CORNERS = 72
# Number of pixels by which an outline may reach outside its image without being reported.
TOLERANCE = 1.0
# Longest outline after clipping, in pixels. Filling it takes 40 bytes per pixel.
MAX_OUTLINE_LENGTH = 2_000_000
# Coordinates beyond this lose their fraction; infinite ones would become NaN.
LARGEST_COORDINATE = 1e15
# Number of parts of an object to unite in one step. Uniting many parts one at a time takes quadratic time.
PARTS_AT_A_TIME = 32


def rectangle(x: float, y: float, width: float, height: float) -> Polygon:
    """Return the corners [4, (x, y)] of an upright rectangle with the upper left corner (x, y)."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], dtype=np.float64)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> Polygon:
    """Return the corners [72, (x, y)] of a polygon that approximates an ellipse around (x, y).

    Args:
        x: x of the center, in pixels.
        y: y of the center, in pixels.
        radius_x: Half the width before the rotation, in pixels.
        radius_y: Half the height before the rotation, in pixels.
        angle: Rotation in radians, clockwise on the screen.
    """
    angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
    across, down = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1)


def joined(rings: Sequence[Polygon]) -> Polygon:
    """Return rings as one polygon [P, (x, y)], connected by lines of no width.

    Filled by the even-odd rule, the polygon covers the points that an odd number of rings cover: a ring
    inside another one is a hole, and a ring beside another one is a second part.

    Args:
        rings: One or more rings [P, (x, y)], open: the last point is not the first one again.
    """
    first = rings[0]
    pieces = [first]
    for ring in rings[1:]:
        pieces += [first[:1], ring, ring[:1]]
    if len(rings) > 1:
        pieces.append(first[:1])
    return np.concatenate(pieces)


def area(points: Polygon) -> float:
    """Return the area of a polygon [P, (x, y)] in square pixels. It is NaN if a coordinate is not finite."""
    x, y = np.asarray(points, dtype=np.float64).T
    with np.errstate(over="ignore", invalid="ignore"):
        open_sum = np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])
        return abs(float(open_sum + x[-1] * y[0] - y[-1] * x[0])) / 2


def reaches_outside(parts: Sequence[Polygon], size: tuple[int, int]) -> bool:
    """Return whether a polygon has a corner more than a pixel outside an image of (height, width)."""
    limit = np.array([size[1], size[0]]) + TOLERANCE
    return any(bool((points < -TOLERANCE).any() or (points > limit).any()) for points in parts)


def parse(segmentation: Any) -> list[Polygon]:
    """Return the polygons of a COCO segmentation.

    Args:
        segmentation: A list of polygons [x, y, x, y, ...] or [[x, y], [x, y], ...], or a single polygon
            [x, y, x, y, ...].

    Raises:
        InvalidDataError: If a part is not an even number of finite numbers.
    """
    if not isinstance(segmentation, (list, tuple)):
        raise InvalidDataError(f"A polygon must be a list of numbers. Received: {segmentation!r:.60}")
    is_flat = len(segmentation) > 0 and isinstance(segmentation[0], (int, float))
    return [_parse_part(part) for part in ([segmentation] if is_flat else segmentation)]


def _parse_part(part: Any) -> Polygon:
    try:
        values = np.array(part)
    except (ValueError, OverflowError):  # lists of different lengths
        values = np.array(None)
    is_numeric = values.dtype.kind in "iuf" or values.size == 0
    is_paired = (values.ndim == 1 and values.size % 2 == 0) or (values.ndim == 2 and values.shape[1] == 2)
    if not (isinstance(part, (list, tuple)) and is_numeric and is_paired):
        raise InvalidDataError(
            f"A polygon must be a list of numbers [x, y, x, y, ...]. Received: {str(part)[:60]}"
        )
    points: Polygon = values.astype(np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise InvalidDataError(f"The coordinates of a polygon must be finite. Received: {str(part)[:60]}")
    return points


def clip(points: Polygon, size: tuple[int, int]) -> Polygon:
    """Cut off parts far outside the image, so that coordinates and lengths are bounded.

    A polygon that reaches no farther from the image than its longer side is returned unchanged. Clipping does
    not change the area inside the image (Sutherland and Hodgman, Reentrant polygon clipping, 1974).

    Args:
        points: [P, (x, y)] in pixels.
        size: (height, width) of the image.

    Returns:
        [P', (x, y)], without points if the polygon is completely outside.
    """
    margin = max(size)
    low, high = (-margin, -margin), (size[1] + margin, size[0] + margin)
    if (points >= low).all() and (points <= high).all():
        return points
    points = np.clip(points, -LARGEST_COORDINATE, LARGEST_COORDINATE)
    for axis in (0, 1):
        for bound, sign in ((low[axis], -1), (high[axis], 1)):
            points = _clip_at(points, axis, bound, sign)
    return points


def _clip_at(points: Polygon, axis: int, bound: float, sign: int) -> Polygon:
    """Keep the part below a line (sign 1) or above it (sign -1)."""
    position = points[:, axis]
    is_kept = sign * position <= sign * bound
    if is_kept.all():  # also if no point is left
        return points
    following = np.roll(points, -1, axis=0)
    is_crossing = is_kept != np.roll(is_kept, -1)
    step = following[:, axis] - position
    share = (bound - position) / np.where(step == 0, 1, step)
    crossings = points + share[:, np.newaxis] * (following - points)
    crossings[:, axis] = bound
    # Each corner, if it is kept, comes before the crossing of the edge that begins there.
    both = np.stack([points, crossings], axis=1)
    corners: Polygon = both[np.stack([is_kept, is_crossing], axis=1)]
    return corners


def rasterize(
    parts: Sequence[Polygon], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]] | None:
    """Return the mask of one object, cropped to its box.

    Args:
        parts: Polygons [P, (x, y)] in pixels; the object is their union.
        size: (height, width) of the image. Parts outside the image are cut off.

    Returns:
        The mask, bool [h, w], and (row, column) of its first pixel in the image. None if the object has no
        pixel in the image.

    Raises:
        InvalidDataError: If an outline is too long to fill.
    """
    clipped = _clipped(parts, size)
    if not clipped:
        return None
    corners = np.concatenate(clipped)
    low = np.clip(np.floor(corners.min(axis=0)), 0, (size[1], size[0])).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, (size[1], size[0])).astype(int)
    width, height = (int(side) for side in high - low)
    if width <= 0 or height <= 0:
        return None
    from pycocotools import mask as run_lengths

    code = _encode_clipped([points - low for points in clipped], (height, width))
    mask: Masks = run_lengths.decode(code).astype(bool)
    return mask, (int(low[1]), int(low[0]))


def encode(parts: Sequence[Polygon], size: tuple[int, int]) -> dict[str, Any]:
    """Return the COCO run lengths of an object, the union of polygons [P, (x, y)].

    Args:
        parts: Polygons [P, (x, y)] in pixels.
        size: (height, width) of the image.

    Returns:
        Dict of `size` [height, width] and `counts`, compressed, as bytes.

    Raises:
        InvalidDataError: If an outline is too long to fill.
    """
    clipped = _clipped(parts, size)
    if clipped:
        return _encode_clipped(clipped, size)
    from pycocotools import mask as run_lengths

    empty = {"size": list(size), "counts": [size[0] * size[1]]}
    code: dict[str, Any] = run_lengths.frPyObjects(empty, *size)
    return code


def _clipped(parts: Sequence[Polygon], size: tuple[int, int]) -> list[Polygon]:
    """Return the parts that may have pixels in the image. pycocotools would take two points for a box."""
    return [points for part in parts if len(points := clip(part, size)) >= 3]


def _encode_clipped(parts: Sequence[Polygon], size: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask as run_lengths

    for points in parts:
        length = np.abs(np.roll(points, -1, axis=0) - points).max(axis=1).sum()
        if not length <= MAX_OUTLINE_LENGTH:
            raise InvalidDataError(
                f"The outline of an object may be at most {MAX_OUTLINE_LENGTH} pixels long. "
                f"Received: {length:.0f} pixels, with {len(points)} corners."
            )
    codes = run_lengths.frPyObjects([points.ravel().tolist() for points in parts], *size)
    while len(codes) > 1:
        starts = range(0, len(codes), PARTS_AT_A_TIME)
        codes = [run_lengths.merge(codes[start : start + PARTS_AT_A_TIME]) for start in starts]
    merged: dict[str, Any] = codes[0]
    return merged

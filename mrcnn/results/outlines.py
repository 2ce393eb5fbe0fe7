"""Masks as polygons, whose edges follow the edges of the pixels.

Points are (x, y) in pixels, counted from the upper left corner of the image: the first pixel reaches from 0
to 1. Filled again, the polygons give the same mask.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon
from mrcnn.typing import Box, Masks


def shape_of(box: Box, crop: Masks, tolerance: float = 0.0) -> Any:
    """Return a mask as a shapely geometry.

    Args:
        box: (y1, x1, y2, x2) of the crop in the image, in pixels.
        crop: bool [y2 - y1, x2 - x1].
        tolerance: How far the outline may lie from the edges of the pixels, in pixels. Larger values give
            fewer points; 0 is exact.

    Returns:
        A valid Polygon, or a MultiPolygon of several parts; empty if the mask has no pixel. Pixels that
        touch at a corner alone are separate parts.

    Raises:
        ValueError: If `tolerance` is negative.
    """
    import shapely

    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0. Received: tolerance={tolerance!r}")
    changes = np.diff(np.pad(crop, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(changes == 1)
    ends = np.nonzero(changes == -1)[1]
    top, left = rows + box[0], box[1]
    runs = shapely.box(starts + left, top, ends + left, top + 1)
    return shapely.orient_polygons(shapely.union_all(runs).simplify(tolerance))


def parts_of(shape: Any) -> Iterator[list[Polygon]]:
    """Yield the rings float [P, (x, y)] of each part of a geometry: the outer one, then those of holes."""
    import shapely

    for part in shapely.get_parts(shape):
        rings = [part.exterior, *part.interiors]
        yield [shapely.get_coordinates(ring)[:-1] for ring in rings]


def one_polygon(shape: Any) -> Polygon:
    """Return a geometry as one polygon [P, (x, y)], for formats without holes and parts.

    See `mrcnn.geometry.polygons.joined`.
    """
    return polygons.joined([ring for rings in parts_of(shape) for ring in rings])

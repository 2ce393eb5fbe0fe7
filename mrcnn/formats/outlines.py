"""Objects outlined by polygons, which are checked when they are read.

A polygon is float [P, (x, y)] in pixels, measured from the upper-left corner of the image, so the first pixel
extends from 0 to 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.formats import problems
from mrcnn.formats.files import Source
from mrcnn.formats.problems import BrokenEntryError, Problems
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon


@dataclasses.dataclass(frozen=True)
class Outline:
    """One object as polygons.

    Attributes:
        class_id: The id of its class in the source of the dataset.
        parts: Its polygons. The object is their union.
    """

    class_id: Any
    parts: tuple[Polygon, ...]


def usable_parts(
    parts: Sequence[Polygon], size: tuple[int, int], file: Source, entry: str, noted: Problems
) -> tuple[Polygon, ...]:
    """Return the parts of an object that enclose an area.

    Other parts, such as single points that some annotation tools leave behind, are noted.

    Args:
        parts: Polygons.
        size: (height, width) of the image.
        file: The annotation file, for notes.
        entry: The entry of the file, for notes.
        noted: Collects notes about parts that are left out and objects that reach outside the image.

    Raises:
        BrokenEntryError: If no part remains.
    """
    faults = [_fault(part, size) for part in parts]
    usable = tuple(part for part, fault in zip(parts, faults, strict=True) if fault is None)
    if not usable:
        kind, reason = next(
            (fault for fault in faults if fault), (problems.NO_OUTLINE, "The object has no polygon.")
        )
        raise BrokenEntryError(reason, kind=kind, file=file, entry=entry)
    for index, fault in enumerate(faults):
        if fault:
            noted.add(problems.STRAY_PART, f"{file}: {entry}, part {index}: {fault[1]}")
    if polygons.reaches_outside(usable, size):
        noted.add(problems.OUTSIDE, f"{file}: {entry}")
    return usable


def _fault(points: Polygon, size: tuple[int, int]) -> tuple[str, str] | None:
    """Return why a polygon cannot be filled, as a kind of problem and a sentence; None if it can."""
    if len(points) < 3:
        return problems.NO_OUTLINE, f"A polygon needs 3 points. Received: {len(points)}"
    if not np.isfinite(points).all():
        return problems.BROKEN_FIELD, "The coordinates must be finite numbers."
    if not polygons.area(points) > 0 and _is_line(points):
        return problems.NO_AREA, "All points lie on one line."
    # After clipping, no edge is longer than three image sides.
    if len(points) * 3 * max(size) > polygons.MAX_OUTLINE_LENGTH:
        clipped = polygons.clip(points, size)
        length = np.abs(np.roll(clipped, -1, axis=0) - clipped).max(axis=1, initial=0).sum()
        if length > polygons.MAX_OUTLINE_LENGTH:
            return problems.BROKEN_FIELD, f"The outline of {len(points)} corners is too long to fill."
    return None


def _is_line(points: Polygon) -> bool:
    """Return whether all points lie on one line. The area may also be 0 for a figure eight."""
    limit = polygons.LARGEST_COORDINATE
    steps = np.clip(points, -limit, limit) - np.clip(points[0], -limit, limit)
    farthest = steps[np.argmax(np.abs(steps).max(axis=1))]
    return not (steps[:, 0] * farthest[1] - steps[:, 1] * farthest[0]).any()

"""Outlines of objects as polygons, and polygons as masks.

Points are float [P, (x, y)] in pixels, counted from the image's upper left corner: the first pixel
reaches from 0 to 1. Masks are drawn by pycocotools, as COCO's own are.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as rle

ROUND = 72  # corners of a polygon that stands for an ellipse
TOLERANCE = 1.0  # pixels that an outline may reach outside its image without being named


def rectangle(x: float, y: float, width: float, height: float) -> np.ndarray:
    """The four corners of an upright rectangle, [4, (x, y)]."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], dtype=np.float64)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, turn: float = 0.0) -> np.ndarray:
    """An ellipse around (x, y), turned by `turn` radians clockwise on the screen, [72, (x, y)]."""
    angles = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    across, down = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1)


def area(points: np.ndarray) -> float:
    """Area inside a polygon [P, (x, y)], in square pixels."""
    x, y = np.asarray(points, dtype=np.float64).T
    open_sum = np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])
    return abs(float(open_sum + x[-1] * y[0] - y[-1] * x[0])) / 2


def reaches_outside(parts: Sequence[np.ndarray], size: tuple[int, int]) -> bool:
    """Whether a polygon has a corner more than a pixel outside an image of (height, width)."""
    limit = np.array([size[1], size[0]]) + TOLERANCE
    return any((points < -TOLERANCE).any() or (points > limit).any() for points in parts)


def draw(parts: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The mask of one object, no larger than its box.

    parts: polygons [P, (x, y)], all of one object. size: (height, width) of the image; what lies outside is
    cut off. Returns bool [h, w] and the image's (row, column) of its first pixel; None if nothing is inside.
    """
    corners = np.concatenate(parts)
    low = np.clip(np.floor(corners.min(axis=0)), 0, (size[1], size[0])).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, (size[1], size[0])).astype(int)
    width, height = high - low
    if width <= 0 or height <= 0:
        return None
    flat = [(points - low).ravel().tolist() for points in parts]
    encoded = rle.merge(rle.frPyObjects(flat, int(height), int(width)))
    return rle.decode(encoded).astype(bool), (int(low[1]), int(low[0]))

"""Pasting the masks of detections into the image, by the rules of three libraries.

BOX resizes a mask to its box, rounded to whole pixels, as the Keras 2 library does. EXPANDED_BOX pads the
mask by one cell, enlarges the box to match, and cuts off the fractions of its corners, as torchvision does;
the result is larger by about a pixel. GRID samples the mask at the center of each pixel without rounding the
box, as Detectron2 does.

Axes: h, w mask; H, W image.
"""

import math
from collections.abc import Sequence

import numpy as np

from mrcnn.geometry import interpolation, masks
from mrcnn.typing import Box

BOX, EXPANDED_BOX, GRID = "box", "expanded_box", "grid"
THRESHOLD = 0.5

# (y1, x1, y2, x2) in pixels, y2 and x2 outside.


def paste(
    mask: np.ndarray, box: Sequence[float] | np.ndarray, shape: Sequence[int], method: str = BOX
) -> tuple[Box, np.ndarray]:
    """Return the part of an image that a mask may cover, and which of its pixels are inside the mask.

    Args:
        mask: float [h, w], probabilities.
        box: (y1, x1, y2, x2) in pixels, half-open, with fractions.
        shape: (height, width, ...) of the image.
        method: BOX, EXPANDED_BOX or GRID.

    Returns:
        The part (y1, x1, y2, x2) in whole pixels, y2 and x2 outside, and bool [y2 - y1, x2 - x1], True where
        the mask is at least 0.5. The part may be empty.
    """
    if method == EXPANDED_BOX:
        return _paste_expanded(mask, np.asarray(box, np.float32), shape)
    if method == GRID:
        return _paste_on_grid(mask, np.asarray(box, np.float64), shape)
    y1, x1, y2, x2 = (int(value) for value in np.rint(box))
    return (y1, x1, y2, x2), masks.unmold_crop(mask, (y1, x1, y2, x2))


def _paste_expanded(mask: np.ndarray, box: np.ndarray, shape: Sequence[int]) -> tuple[Box, np.ndarray]:
    side = mask.shape[0]
    padded = np.pad(mask, 1)
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((side + 2) / side)
    center = (box[2:] + box[:2]) * np.float32(0.5)
    low, high = (corner.astype(np.int64) for corner in (center - half, center + half))  # truncated
    height, width = (max(int(last - first) + 1, 1) for first, last in zip(low, high, strict=True))
    resized = np.empty((height, width), np.float32)
    interpolation.bilinear_into(padded, resized, edge="repeat")
    y1, x1 = (max(int(first), 0) for first in low)
    y2, x2 = (min(int(last) + 1, length) for last, length in zip(high, shape, strict=False))
    y2, x2 = max(y1, y2), max(x1, x2)
    part = resized[y1 - low[0] : y2 - low[0], x1 - low[1] : x2 - low[1]]
    return (y1, x1, y2, x2), part >= THRESHOLD


def _paste_on_grid(mask: np.ndarray, box: np.ndarray, shape: Sequence[int]) -> tuple[Box, np.ndarray]:
    weights, edges = [], []
    for cells, low, high, length in zip(mask.shape, box[:2], box[2:], shape, strict=False):
        first, last = max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, length)
        pixels = np.arange(first, max(first, last)) + 0.5
        position = (pixels - low) / max(high - low, np.finfo(np.float64).tiny) * cells - 0.5
        # One row of weights per pixel; cells outside the mask are 0.
        weights.append(np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(cells))))
        edges.append((first, max(first, last)))
    (y1, y2), (x1, x2) = edges
    return (y1, x1, y2, x2), weights[0] @ mask @ weights[1].T >= THRESHOLD

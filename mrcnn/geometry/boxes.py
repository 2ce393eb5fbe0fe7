"""Operations on boxes: overlap, suppression, deltas, and conversion between coordinate systems.

Pixel boxes are half-open: row y2 and column x2 lie outside, so the height is y2 - y1. Normalized boxes are
closed: both ends lie inside, and the whole image is (0, 0, 1, 1). In some conventions normalized boxes are
half-open: pixels divided by height and width. The whole image is then (0, 0, 1, 1), too.

Axes: N boxes, or N1 and N2 boxes of two sets; 4 is (y1, x1, y2, x2).
"""

from collections.abc import Sequence

import numpy as np

# Number of pairs of boxes whose overlap is computed at a time, so that intermediate arrays fit into the
# processor's cache. This is several times faster than one pass over 261,888 anchors times 100 boxes.
PAIRS_AT_A_TIME = 1 << 15

# The far corner is outside a pixel box, but inside a normalized box.
PIXEL_TO_CLOSED = np.array([0, 0, 1, 1])

# Soft-NMS drops boxes of lower scores if there is no other limit, as the program of its authors does.
LEAST_SOFT_SCORE = 0.001


def compute_iou(
    box: np.ndarray,
    boxes: np.ndarray,
    box_area: float | np.ndarray,
    boxes_area: np.ndarray,
) -> np.ndarray:
    """Return the intersection over union of one box with many.

    Leading axes may broadcast against each other: [1, N1, 4] and [N2, 1, 4] give [N2, N1].

    Args:
        box: [4], (y1, x1, y2, x2), y2 and x2 outside.
        boxes: [N, 4] in the same unit.
        box_area: Area of `box`, which a caller with many boxes computes only once.
        boxes_area: Areas [N] of `boxes`.

    Returns:
        IoU [N]. Two boxes without area give NaN, because no epsilon is added.
    """
    height = np.minimum(box[..., 2], boxes[..., 2]) - np.maximum(box[..., 0], boxes[..., 0])
    width = np.minimum(box[..., 3], boxes[..., 3]) - np.maximum(box[..., 1], boxes[..., 1])
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    union = box_area + boxes_area - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        iou: np.ndarray = intersection / union
    return iou


def compute_overlaps(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every box of one set with every box of another.

    Args:
        boxes1: [N1, (y1, x1, y2, x2)], y2 and x2 outside.
        boxes2: [N2, 4] in the same unit.

    Returns:
        float64 [N1, N2]; NaN for two boxes without area. Computed in the dtype of the boxes, so float32 boxes
        give values of float32 precision.
    """
    boxes1, boxes2 = _exact_integers(boxes1), _exact_integers(boxes2)
    overlaps = np.zeros((len(boxes1), len(boxes2)))
    if overlaps.size == 0:
        return overlaps
    # Coordinate by coordinate, the longer set (usually anchors) innermost: contiguous loops.
    boxes1 = np.asfortranarray(boxes1)
    area1, area2 = _areas(boxes1), _areas(boxes2)
    rows = max(1, PAIRS_AT_A_TIME // len(boxes2))
    for start in range(0, len(boxes1), rows):
        part = slice(start, start + rows)
        overlaps[part] = compute_iou(
            boxes2[:, None, :], boxes1[None, part, :], area2[:, None], area1[None, part]
        ).T
    return overlaps


def non_max_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Apply greedy non-maximum suppression.

    If scores are equal, this function prefers the higher index, while the network prefers the lower one.

    Args:
        boxes: [N, (y1, x1, y2, x2)] in any unit; integers are cast to float32.
        scores: [N].
        threshold: A box is dropped if its IoU with a kept box is greater than this.

    Returns:
        int32 indices of the kept boxes, best score first.

    Raises:
        ValueError: If there is no box.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    if len(boxes) == 0:
        raise ValueError(
            f"`boxes` must have at least one row. Received: boxes.shape={boxes.shape}. Skip the call if "
            "there are no boxes."
        )
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float32)
    areas = _areas(boxes)
    candidates = np.argsort(scores, kind="stable")[::-1]
    kept = []
    while len(candidates) > 0:
        best, rest = candidates[0], candidates[1:]
        kept.append(best)
        iou = compute_iou(boxes[best], boxes[rest], areas[best], areas[rest])
        # Written so that NaN, two boxes without area, does not suppress.
        candidates = rest[~(iou > threshold)]
    return np.array(kept, dtype=np.int32)


def soft_non_max_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    sigma: float,
    min_score: float = 0.0,
    views: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply Soft-NMS with a Gaussian (Bodla et al., 2017, section 3) within each class.

    The box with the best score is taken again and again. It lowers the scores of the remaining boxes that
    overlap it: a box whose IoU with it is u keeps exp(-u * u / sigma) of its score.

    Args:
        boxes: [N, (y1, x1, y2, x2)] in any unit. A box without area overlaps nothing.
        scores: [N]. If scores are equal, the first box is taken first.
        class_ids: int [N].
        sigma: Width of the Gaussian, above 0.
        min_score: Lowest score of a kept box, after others have lowered it; LEAST_SOFT_SCORE if it is 0.
        views: int [N]. Boxes of the same view of an image do not lower each other's scores, since the network
            has done so. None lets all boxes do it.

    Returns:
        Indices [K] of the kept boxes, best lowered score first, and the lowered scores of all, float32 [N].
    """
    boxes = _exact_integers(boxes)
    areas = _areas(boxes)
    lowered = np.array(scores, np.float32)
    remaining = np.ones(len(lowered), bool)
    for _ in range(len(lowered)):
        best = int(np.argmax(np.where(remaining, lowered, -1.0)))
        remaining[best] = False
        rows = remaining & (class_ids == class_ids[best])
        if views is not None:
            rows &= views != views[best]
        iou = np.nan_to_num(compute_iou(boxes[best], boxes[rows], areas[best], areas[rows]))
        lowered[rows] *= np.exp(-(iou**2) / sigma)
    order = np.argsort(-lowered, kind="stable")
    return order[lowered[order] >= (min_score or LEAST_SOFT_SCORE)], lowered


def apply_box_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Shift and scale each box by its delta (R-CNN, appendix C).

    Args:
        boxes: [N, (y1, x1, y2, x2)], cast to float32.
        deltas: [N, (dy, dx, log(dh), log(dw))], cast to float32. dy and dx are in box heights and widths,
            already multiplied by the standard deviations.

    Returns:
        float32 [N, 4] in the unit of `boxes`. log(dh) and log(dw) are not limited.
    """
    boxes, deltas = _float32(boxes), _float32(deltas)
    center, size = _center_and_size(boxes)
    center = center + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    corner = center - size * np.float32(0.5)
    return np.concatenate([corner, corner + size], axis=1)


def box_refinement(box: np.ndarray, gt_box: np.ndarray) -> np.ndarray:
    """Return the deltas that move each box onto its ground truth (R-CNN, appendix C).

    Args:
        box: [N, (y1, x1, y2, x2)], cast to float32. The sides must be positive.
        gt_box: [N, 4] in the same unit.

    Returns:
        float32 [N, (dy, dx, log(dh), log(dw))]. dy and dx are in box heights and widths, not divided by a
        standard deviation. A box without area gives infinite values or NaN.
    """
    center, size = _center_and_size(_float32(box))
    gt_center, gt_size = _center_and_size(_float32(gt_box))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate([(gt_center - center) / size, np.log(gt_size / size)], axis=1)


def clip_boxes(boxes: np.ndarray, window: Sequence[float] | np.ndarray) -> np.ndarray:
    """Clip boxes to a window.

    Args:
        boxes: [..., (y1, x1, y2, x2)].
        window: (y1, x1, y2, x2) in the same unit.

    Returns:
        Array of the shape and dtype of `boxes`. A box outside the window becomes a box without area.
    """
    y1, x1, y2, x2 = window
    return np.clip(boxes, [y1, x1, y1, x1], [y2, x2, y2, x2]).astype(np.asarray(boxes).dtype)


def norm_boxes(boxes: np.ndarray, shape: Sequence[int], half_open: bool = False) -> np.ndarray:
    """Convert boxes from pixels to normalized coordinates.

    Args:
        boxes: [..., (y1, x1, y2, x2)] in pixels, y2 and x2 outside.
        shape: (height, width) of the image.
        half_open: Whether normalized boxes are half-open; see the module docstring.

    Returns:
        float32 of the same shape, closed or half-open. The whole image becomes (0, 0, 1, 1). A row of zeros
        (padding) becomes (0, 0, -1 / (height - 1), -1 / (width - 1)), or stays if half-open. Closed boxes
        have no extent along a side of one pixel: there, coordinates are NaN or infinite.

    Raises:
        ValueError: If `shape` does not have two values.
    """
    shift, scale = _shift_and_scale(shape, half_open)
    with np.errstate(divide="ignore", invalid="ignore"):
        normalized: np.ndarray = ((boxes - shift) / scale).astype(np.float32)
    return normalized


def denorm_boxes(
    boxes: np.ndarray, shape: Sequence[int], half_open: bool = False, rounded: bool = True
) -> np.ndarray:
    """Convert boxes from normalized coordinates to pixels, rounded half to even.

    Args:
        boxes: [..., (y1, x1, y2, x2)] normalized, closed or half-open.
        shape: (height, width) of the image.
        half_open: Whether normalized boxes are half-open; see the module docstring.
        rounded: Whether to round to whole pixels.

    Returns:
        int32 of the same shape, y2 and x2 outside; float64 if not rounded. A box without area becomes one
        pixel, unless boxes are half-open.

    Raises:
        ValueError: If `shape` does not have two values.
    """
    shift, scale = _shift_and_scale(shape, half_open)
    pixels: np.ndarray = boxes * scale + shift
    return np.around(pixels).astype(np.int32) if rounded else pixels


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """Drop the rows of zeros, which are padding, from a matrix [N, C].

    Raises:
        ValueError: If `x` does not have two axes.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"`x` must have shape (rows, columns). Received: x.shape={x.shape}")
    return x[np.any(x != 0, axis=1)]


def _exact_integers(boxes: np.ndarray) -> np.ndarray:
    # Areas of int32 boxes overflow if a side has 46,341 pixels or more.
    boxes = np.asarray(boxes)
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.int64)


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _float32(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, dtype=np.float32)


def _center_and_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + size * np.float32(0.5), size


def _shift_and_scale(shape: Sequence[int], half_open: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return shift and scale of y1, x1, y2 and x2: pixels = normalized * scale + shift."""
    if len(shape) != 2:
        raise ValueError(
            f"`shape` must be (height, width). Received: shape={tuple(shape)}. Pass image.shape[:2]."
        )
    sides = np.array([*shape, *shape])
    return (np.zeros(4, int), sides) if half_open else (PIXEL_TO_CLOSED, sides - 1)

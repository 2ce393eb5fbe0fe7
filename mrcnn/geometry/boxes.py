"""Boxes: overlap, suppression, deltas, and the two coordinate systems.

Pixel boxes are half-open: row y2 and column x2 lie outside, the height is y2 - y1. Normalized boxes
are closed: both ends lie inside and the whole image is (0, 0, 1, 1).
"""

from collections.abc import Sequence

import numpy as np

# Number of (box, box) pairs whose overlap is computed at a time: the intermediate arrays then stay
# in the processor's cache, which is several times faster than one pass over 261,888 x 100 pairs.
PAIRS_AT_A_TIME = 1 << 15

# A pixel box's far corner is outside, a normalized box's far corner is inside.
PIXEL_TO_CLOSED = np.array([0, 0, 1, 1])


def compute_iou(
    box: np.ndarray,
    boxes: np.ndarray,
    box_area: float | np.ndarray,
    boxes_area: np.ndarray,
) -> np.ndarray:
    """Intersection over union of one box with many.

    box: [4] and boxes: [N, 4], (y1, x1, y2, x2) in one unit, y2 and x2 outside.
    box_area, boxes_area: scalar and [N]; the caller passes them because they are used again and
    again. Leading axes that broadcast against each other are fine: [1, M, 4] and [N, 1, 4] give
    [N, M].

    Returns [N]. There is no epsilon: two boxes without area give NaN, as in the original.
    """
    height = np.minimum(box[..., 2], boxes[..., 2]) - np.maximum(box[..., 0], boxes[..., 0])
    width = np.minimum(box[..., 3], boxes[..., 3]) - np.maximum(box[..., 1], boxes[..., 1])
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    union = box_area + boxes_area - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        return intersection / union


def compute_overlaps(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of one set with every box of another.

    boxes1: [N1, 4], boxes2: [N2, 4], (y1, x1, y2, x2) in one unit, y2 and x2 outside.

    Returns float64 [N1, N2]; NaN for two boxes without area. Computed in the boxes' own floating
    type, so float32 boxes give values of float32 precision.
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
    """Greedy non-maximum suppression.

    boxes: [N, (y1, x1, y2, x2)] in any unit; integers are cast to float32. scores: [N].
    A box is dropped when its IoU with a picked box is strictly greater than `threshold`. Among
    equal scores the higher index is picked first, as in the original's numpy function (the
    network's own suppression prefers the lower one).

    Returns int32 indices of the kept boxes, best score first.
    Raises ValueError without any box.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    if len(boxes) == 0:
        raise ValueError(
            f"non_max_suppression wants at least one box. Received: boxes of shape {boxes.shape}. "
            "Skip the call when there is nothing to suppress."
        )
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float32)
    areas = _areas(boxes)
    candidates = np.argsort(scores, kind="stable")[::-1]
    picked = []
    while len(candidates) > 0:
        best, rest = candidates[0], candidates[1:]
        picked.append(best)
        iou = compute_iou(boxes[best], boxes[rest], areas[best], areas[rest])
        # Written so that NaN, two boxes without area, does not suppress.
        candidates = rest[~(iou > threshold)]
    return np.array(picked, dtype=np.int32)


def apply_box_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Shift and scale each box by its delta (R-CNN, appendix C).

    boxes: [N, (y1, x1, y2, x2)]; deltas: [N, (dy, dx, log(dh), log(dw))], dy and dx in box heights
    and widths, already multiplied by the standard deviations. Both are cast to float32.

    Returns float32 [N, 4] in the unit of `boxes`. The exponent is not limited.
    """
    boxes, deltas = _float32(boxes), _float32(deltas)
    center, size = _center_and_size(boxes)
    center = center + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    corner = center - size * np.float32(0.5)
    return np.concatenate([corner, corner + size], axis=1)


def box_refinement(box: np.ndarray, gt_box: np.ndarray) -> np.ndarray:
    """The deltas that carry each box onto its ground truth (R-CNN, appendix C).

    box, gt_box: [N, (y1, x1, y2, x2)] in one unit, sides > 0; cast to float32.

    Returns float32 [N, (dy, dx, log(dh), log(dw))], dy and dx in box heights and widths, not
    divided by any standard deviation. A box without area gives inf or NaN.
    """
    center, size = _center_and_size(_float32(box))
    gt_center, gt_size = _center_and_size(_float32(gt_box))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate([(gt_center - center) / size, np.log(gt_size / size)], axis=1)


def clip_boxes(boxes: np.ndarray, window: Sequence[float] | np.ndarray) -> np.ndarray:
    """Move every corner that is outside a window onto its edge.

    boxes: [..., (y1, x1, y2, x2)]; window: (y1, x1, y2, x2) in the same unit.

    Returns an array like `boxes`. A box outside the window becomes one without area.
    """
    y1, x1, y2, x2 = window
    return np.clip(boxes, [y1, x1, y1, x1], [y2, x2, y2, x2]).astype(np.asarray(boxes).dtype)


def norm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """From pixels to normalized coordinates.

    boxes: [..., (y1, x1, y2, x2)] in pixels, y2 and x2 outside.
    shape: (height, width) of the image.

    Returns float32 of the same shape, y2 and x2 inside: the whole image becomes (0, 0, 1, 1), an
    all-zero row (padding) becomes (0, 0, -1/(H-1), -1/(W-1)).
    Raises ValueError if `shape` has not two values.
    """
    return ((boxes - PIXEL_TO_CLOSED) / _closed_scale(shape)).astype(np.float32)


def denorm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """From normalized coordinates to pixels, rounded half to even.

    boxes: [..., (y1, x1, y2, x2)] normalized, y2 and x2 inside.
    shape: (height, width) of the image.

    Returns int32 of the same shape, y2 and x2 outside. A box without area becomes one pixel.
    Raises ValueError if `shape` has not two values.
    """
    return np.around(boxes * _closed_scale(shape) + PIXEL_TO_CLOSED).astype(np.int32)


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """The rows of a matrix that are not entirely zero; padding rows go.

    x: [N, C]. Returns [K, C], K <= N, in the same order.
    Raises ValueError if `x` is not a matrix.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"trim_zeros wants a matrix [rows, columns]. Received: x of shape {x.shape}.")
    return x[np.any(x != 0, axis=1)]


def _exact_integers(boxes: np.ndarray) -> np.ndarray:
    # Areas of int32 boxes overflow from 46,341 pixels a side on.
    boxes = np.asarray(boxes)
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.int64)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _float32(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, dtype=np.float32)


def _center_and_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + size * np.float32(0.5), size


def _closed_scale(shape: Sequence[int]) -> np.ndarray:
    if len(shape) != 2:
        raise ValueError(
            "Box coordinates are normalized by (height, width). "
            f"Received: shape={tuple(shape)}. Pass image.shape[:2]."
        )
    height, width = shape
    return np.array([height - 1, width - 1, height - 1, width - 1])

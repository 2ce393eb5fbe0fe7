"""Operations on boxes as tensors. `geometry.boxes` does the same with arrays.

Boxes are float32 [..., (y1, x1, y2, x2)]. They are normalized unless the docstring says otherwise:
(0, 0, 1, 1) is the whole image. Whether both edges lie inside or boxes are half-open depends on the
conventions; see `mrcnn.geometry.boxes`.

Axes: B images, N boxes.
"""

import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.typing import Tensor


def apply_box_deltas(boxes: Tensor, deltas: Tensor, limit: float | None = None) -> Tensor:
    """Shift and scale boxes by deltas (R-CNN, appendix C, inverted).

    Args:
        boxes: [..., 4] in any unit.
        deltas: [..., (dy, dx, log(dh), log(dw))] with the same leading shape.
        limit: Largest log(dh) and log(dw), or None for no limit.

    Returns:
        [..., 4] in the unit of `boxes`.
    """
    height = boxes[..., 2] - boxes[..., 0]
    width = boxes[..., 3] - boxes[..., 1]
    center_y = boxes[..., 0] + 0.5 * height + deltas[..., 0] * height
    center_x = boxes[..., 1] + 0.5 * width + deltas[..., 1] * width
    log_height, log_width = deltas[..., 2], deltas[..., 3]
    if limit is not None:
        log_height, log_width = (ops.minimum(x, float(limit)) for x in (log_height, log_width))
    height = height * ops.exp(log_height)
    width = width * ops.exp(log_width)
    y1 = center_y - 0.5 * height
    x1 = center_x - 0.5 * width
    return ops.stack([y1, x1, y1 + height, x1 + width], axis=-1)


def box_refinement(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Return the deltas that turn each box into its ground truth (R-CNN, appendix C).

    Args:
        boxes, gt_boxes: [..., 4] in the same unit, with sides > 0.

    Returns:
        [..., (dy, dx, log(dh), log(dw))].
    """
    boxes = ops.cast(boxes, "float32")
    gt_boxes = ops.cast(gt_boxes, "float32")
    height = boxes[..., 2] - boxes[..., 0]
    width = boxes[..., 3] - boxes[..., 1]
    gt_height = gt_boxes[..., 2] - gt_boxes[..., 0]
    gt_width = gt_boxes[..., 3] - gt_boxes[..., 1]
    dy = (gt_boxes[..., 0] + 0.5 * gt_height - boxes[..., 0] - 0.5 * height) / height
    dx = (gt_boxes[..., 1] + 0.5 * gt_width - boxes[..., 1] - 0.5 * width) / width
    return ops.stack([dy, dx, ops.log(gt_height / height), ops.log(gt_width / width)], axis=-1)


def clip_boxes(boxes: Tensor, window: Tensor) -> Tensor:
    """Clip boxes to a window.

    Args:
        boxes: [..., 4].
        window: [4], or [..., 4] that broadcasts with `boxes`.

    Returns:
        [..., 4].
    """
    low = ops.concatenate([window[..., :2], window[..., :2]], axis=-1)
    high = ops.concatenate([window[..., 2:], window[..., 2:]], axis=-1)
    return ops.maximum(ops.minimum(boxes, high), low)


def compute_overlaps(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute the intersection over union of every pair of boxes.

    Args:
        boxes1: [..., N1, 4].
        boxes2: [..., N2, 4] in the same unit.

    Returns:
        float32 [..., N1, N2]; NaN (0 / 0) for a pair of empty boxes, as in the Keras 2 library.
    """
    intersection, area1, area2 = _pairwise(boxes1, boxes2)
    return intersection / (area1 + area2 - intersection)


def _pairwise(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return intersections [..., N1, N2], and areas [..., N1, 1] and [..., 1, N2], of two sets of boxes."""
    first = [ops.expand_dims(boxes1[..., i], -1) for i in range(4)]  # each [..., N1, 1]
    second = [ops.expand_dims(boxes2[..., i], -2) for i in range(4)]  # each [..., 1, N2]
    height = ops.minimum(first[2], second[2]) - ops.maximum(first[0], second[0])
    width = ops.minimum(first[3], second[3]) - ops.maximum(first[1], second[1])
    intersection = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
    area1 = (first[2] - first[0]) * (first[3] - first[1])
    area2 = (second[2] - second[0]) * (second[3] - second[1])
    return intersection, area1, area2


def overlap_above(boxes1: Tensor, boxes2: Tensor, threshold: float) -> Tensor:
    """Return where IoU > threshold, bool [..., N1, N2]. Corners are ordered; empty boxes overlap nothing."""
    intersection, area1, area2 = _pairwise(boxes1, boxes2)
    union = area1 + area2 - intersection
    both = ops.logical_and(area1 > 0.0, area2 > 0.0)
    iou = intersection / ops.where(both, union, ops.ones_like(union))
    return ops.logical_and(both, iou > threshold)


def large_enough(boxes: Tensor, size: tuple[Tensor, Tensor], min_side: float) -> Tensor:
    """Return where both sides of half-open boxes [..., 4] are above 0 and at least `min_side`, bool [...].

    Args:
        boxes: Normalized boxes.
        size: (height, width) of the molded image in pixels.
        min_side: Shortest side in pixels.
    """
    height = (boxes[..., 2] - boxes[..., 0]) * ops.cast(size[0], "float32")
    width = (boxes[..., 3] - boxes[..., 1]) * ops.cast(size[1], "float32")
    shortest = ops.minimum(height, width)
    return ops.logical_and(shortest > 0.0, shortest >= min_side)


def norm_boxes(boxes: Tensor, shape: Tensor, half_open: bool = False) -> Tensor:
    """Convert half-open pixel boxes to normalized boxes, by default with y2 and x2 inside.

    Args:
        boxes: [..., 4] in pixels.
        shape: (height, width) in pixels, numbers or tensors.
        half_open: Whether the normalized boxes are half-open, too.

    Returns:
        float32 [..., 4].
    """
    scale, shift = _scale_and_shift(shape, half_open)
    return (ops.cast(boxes, "float32") - shift) / scale


def denorm_boxes(boxes: Tensor, shape: Tensor) -> Tensor:
    """Convert normalized boxes to half-open boxes of whole pixels, rounded half to even.

    Args:
        boxes: [..., 4].
        shape: (height, width) in pixels.

    Returns:
        int32 [..., 4].
    """
    scale, shift = _scale_and_shift(shape)
    return ops.cast(ops.round(boxes * scale + shift), "int32")


def _scale_and_shift(shape: Tensor, half_open: bool = False) -> tuple[Tensor, Tensor]:
    size = ops.cast(ops.stack([shape[0], shape[1], shape[0], shape[1]]), "float32")
    if half_open:
        return size, ops.zeros_like(size)
    return size - 1.0, ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32"))


def log2(x: Tensor) -> Tensor:
    """Return the base-2 logarithm of a float tensor, computed as ln(x) / ln(2)."""
    return ops.log(x) / np.float32(np.log(2.0))


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows of each image: x [B, N, ...] and index int [B, K] give [B, K, ...]."""
    return backend.gather(x, index)


def select_class(x: Tensor, class_ids: Tensor) -> Tensor:
    """Select the entry of each RoI's class: x [B, N, classes, 4] and class_ids int [B, N] give [B, N, 4]."""
    index = ops.cast(class_ids, "int32")[:, :, None, None]
    index = ops.broadcast_to(index, (*ops.shape(index)[:3], 4))
    return ops.squeeze(ops.take_along_axis(x, index, axis=2), axis=2)

"""Operations on boxes as tensors, and NMS with fixed shapes. `geometry.boxes` does the same with arrays.

Boxes are float32 [..., (y1, x1, y2, x2)]. They are normalized unless the docstring says otherwise:
(0, 0, 1, 1) is the whole image. Whether both edges lie inside or boxes are half-open depends on the
conventions; see `mrcnn.geometry.boxes`.

Axes: B images, N boxes, M kept boxes, T boxes of one tile.
"""

import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.typing import Tensor

# Number of boxes that NMS examines at once. Larger tiles mean fewer, larger steps.
NMS_TILE = 256


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


def _overlap_above(boxes1: Tensor, boxes2: Tensor, threshold: float) -> Tensor:
    """Return where IoU > threshold, bool [..., N1, N2]. Corners are ordered; empty boxes overlap nothing."""
    intersection, area1, area2 = _pairwise(boxes1, boxes2)
    union = area1 + area2 - intersection
    both = ops.logical_and(area1 > 0.0, area2 > 0.0)
    iou = intersection / ops.where(both, union, ops.ones_like(union))
    return ops.logical_and(both, iou > threshold)


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


def trim_zeros(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows that are not all zero, [M, 4], and a bool mask [N] of them.

    The length of the result depends on the data, so this works eagerly but not in a compiled graph.
    """
    kept = ops.sum(ops.abs(boxes), axis=1) != 0
    return ops.take(boxes, ops.nonzero(kept)[0], axis=0), kept


def batch_pack(x: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    """Join the first `counts[i]` rows of each `x[i]`, i < num_rows, along the first axis.

    The length of the result depends on the data, so this works eagerly but not in a compiled graph.
    """
    return ops.concatenate([x[i, : int(counts[i])] for i in range(num_rows)], axis=0)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows of each image: x [B, N, ...] and index int [B, K] give [B, K, ...]."""
    return backend.gather(x, index)


def select_class(x: Tensor, class_ids: Tensor) -> Tensor:
    """Select the entry of each RoI's class: x [B, N, classes, 4] and class_ids int [B, N] give [B, N, 4]."""
    index = ops.cast(class_ids, "int32")[:, :, None, None]
    index = ops.broadcast_to(index, (*ops.shape(index)[:3], 4))
    return ops.squeeze(ops.take_along_axis(x, index, axis=2), axis=2)


def non_max_suppression(
    boxes: Tensor,
    valid: Tensor,
    max_output: int,
    threshold: float,
    groups: Tensor | None = None,
    tile: int = NMS_TILE,
) -> tuple[Tensor, Tensor]:
    """Apply greedy non-maximum suppression to boxes sorted by descending score.

    A box is suppressed if its IoU with a kept box is above `threshold`. An empty box overlaps nothing. No
    gradient flows through this function.

    Each tile of boxes is compared first with the boxes kept so far, then with itself, repeating the
    suppression until nothing changes. The result equals that of the greedy order and takes few rounds. All
    shapes are fixed, so the function compiles on every backend.

    Args:
        boxes: [B, N, 4].
        valid: bool [B, N], True for boxes that take part.
        max_output: Largest number of boxes to keep per image.
        threshold: IoU in [0, 1].
        groups: int [B, N], such as class ids. Boxes of different groups do not suppress each other. If None,
            all boxes form one group.
        tile: Boxes per tile.

    Returns:
        Indices int32 [B, max_output] of the kept boxes, best first, and bool [B, max_output], True for filled
        slots. Unused slots hold 0.
    """
    count = boxes.shape[1]
    tile = min(tile, count)
    tiles = -(-count // tile)
    boxes, valid, groups = _pad_for_tiles(boxes, valid, groups, tiles * tile - count)
    position = ops.arange(1, tiles * tile + 1, dtype="int32")[None]
    end = ops.max(ops.where(valid, position, 0))  # after the last box that takes part

    def unfinished(t: Tensor, index: Tensor, kept: Tensor) -> Tensor:
        return ops.logical_and(t * tile < end, ops.any(kept < max_output))

    def examine(t: Tensor, index: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        start = t * tile
        candidates, alive, tile_groups = (backend.rows_from(x, start, tile) for x in (boxes, valid, groups))
        filled = ops.arange(max_output)[None] < kept[:, None]  # [B, M]
        kept_index = index[:, :max_output]
        suppressed = _suppressed(
            gather(boxes, kept_index), gather(groups, kept_index), filled, candidates, tile_groups, threshold
        )
        keep = _greedy_in_tile(candidates, tile_groups, ops.logical_and(alive, ~suppressed), threshold)
        slot = kept[:, None] + ops.cumsum(ops.cast(keep, "int32"), axis=1) - 1
        slot = ops.where(keep, ops.minimum(slot, max_output), max_output)  # the last slot is for the rest
        index = _write(index, max_output + 1, slot, start + ops.arange(tile))
        return t + 1, index, ops.minimum(kept + ops.sum(ops.cast(keep, "int32"), axis=1), max_output)

    zeros = ops.zeros_like(valid[:, :1], dtype="int32")  # [B, 1]
    index = ops.tile(zeros, (1, max_output + 1))
    _, index, kept = backend.while_loop(unfinished, examine, (ops.convert_to_tensor(0), index, zeros[:, 0]))
    filled = ops.arange(max_output)[None] < kept[:, None]
    return ops.where(filled, index[:, :max_output], 0), filled


def _pad_for_tiles(
    boxes: Tensor, valid: Tensor, groups: Tensor | None, padding: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pad the inputs of NMS to whole tiles, order the corners, and stop the gradient."""
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    low = ops.minimum(boxes[..., :2], boxes[..., 2:])
    high = ops.maximum(boxes[..., :2], boxes[..., 2:])
    boxes = ops.pad(ops.concatenate([low, high], axis=-1), ((0, 0), (0, padding), (0, 0)))
    if groups is None:
        groups = ops.zeros_like(valid, dtype="int32")
    pad = ((0, 0), (0, padding))
    valid = ops.pad(ops.cast(valid, "int32"), pad) > 0
    return boxes, valid, ops.pad(ops.cast(groups, "int32"), pad)


def _suppressed(
    kept_boxes: Tensor,
    kept_groups: Tensor,
    filled: Tensor,
    candidates: Tensor,
    groups: Tensor,
    threshold: float,
) -> Tensor:
    """Return bool [B, T], True for candidates that a kept box [B, M] of their group overlaps."""
    overlap = _overlap_above(candidates, kept_boxes, threshold)  # [B, T, M]
    same = ops.expand_dims(groups, 2) == ops.expand_dims(kept_groups, 1)
    counts = ops.logical_and(same, ops.expand_dims(filled, 1))
    return ops.any(ops.logical_and(overlap, counts), axis=2)


def _greedy_in_tile(candidates: Tensor, groups: Tensor, alive: Tensor, threshold: float) -> Tensor:
    """Suppress greedily within a sorted tile, repeating until nothing changes: bool [B, T] of survivors."""
    position = ops.arange(candidates.shape[1])
    earlier = position[:, None] < position[None]  # [j, i]: j comes before i
    same = ops.expand_dims(groups, 2) == ops.expand_dims(groups, 1)
    beats = ops.logical_and(_overlap_above(candidates, candidates, threshold), same)
    beats = ops.logical_and(beats, earlier[None])

    def changed(keep: Tensor, before: Tensor) -> Tensor:
        return ops.any(keep != before)

    def repeat(keep: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        suppressed = ops.any(ops.logical_and(beats, ops.expand_dims(keep, 2)), axis=1)
        return ops.logical_and(alive, ~suppressed), keep

    keep, _ = repeat(alive, alive)
    keep, _ = backend.while_loop(changed, repeat, (keep, alive))
    return keep


def _write(index: Tensor, width: int, slot: Tensor, values: Tensor) -> Tensor:
    """Write values [T] to their slots [B, T] of an index [B, width]."""
    batch = ops.shape(index)[0]
    rows = ops.expand_dims(ops.arange(batch) * width, 1)
    flat = ops.reshape(ops.cast(slot, "int32") + ops.cast(rows, "int32"), (-1, 1))
    values = ops.reshape(ops.broadcast_to(ops.cast(values, "int32")[None], ops.shape(slot)), (-1,))
    return ops.reshape(ops.scatter_update(ops.reshape(index, (-1,)), flat, values), (batch, width))

"""Greedy non-maximum suppression with fixed shapes.

`mrcnn.geometry.boxes.non_max_suppression` does the same with arrays.

Axes: B images, N boxes, M kept boxes, T boxes of one tile.
"""

from collections.abc import Callable

from keras import ops

from mrcnn import backend
from mrcnn.network.box_ops import gather, overlap_above
from mrcnn.typing import Tensor

# An implementation of `non_max_suppression`.
Suppression = Callable[..., tuple[Tensor, Tensor]]

# Number of boxes that are examined at once. Larger tiles mean fewer, larger steps.
TILE = 256


def non_max_suppression(
    boxes: Tensor,
    valid: Tensor,
    max_output: int,
    threshold: float,
    groups: Tensor | None = None,
    tile: int = TILE,
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
    overlap = overlap_above(candidates, kept_boxes, threshold)  # [B, T, M]
    same = ops.expand_dims(groups, 2) == ops.expand_dims(kept_groups, 1)
    counts = ops.logical_and(same, ops.expand_dims(filled, 1))
    return ops.any(ops.logical_and(overlap, counts), axis=2)


def _greedy_in_tile(candidates: Tensor, groups: Tensor, alive: Tensor, threshold: float) -> Tensor:
    """Suppress greedily within a sorted tile, repeating until nothing changes: bool [B, T] of survivors."""
    position = ops.arange(candidates.shape[1])
    earlier = position[:, None] < position[None]  # [j, i]: j comes before i
    same = ops.expand_dims(groups, 2) == ops.expand_dims(groups, 1)
    beats = ops.logical_and(overlap_above(candidates, candidates, threshold), same)
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

"""Soft-NMS with fixed shapes (Bodla et al., 2017, section 3): boxes that overlap lose score and stay.

`mrcnn.geometry.boxes.soft_non_max_suppression` does the same with arrays.

Axes: B images, N boxes, M slots.
"""

from keras import ops

from mrcnn import backend
from mrcnn.geometry.boxes import LEAST_SOFT_SCORE
from mrcnn.network import box_ops
from mrcnn.typing import Tensor

Variables = tuple[Tensor, Tensor, Tensor, Tensor]


def soft_non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    max_output: int,
    sigma: float,
    min_score: float,
) -> tuple[Tensor, Tensor]:
    """Pick the best box again and again, and lower the scores of the boxes of its group that overlap it.

    A box whose IoU with the picked box is u keeps exp(-u * u / sigma) of its score. An empty box overlaps
    nothing. Boxes of equal score are picked in their order. No gradient flows through this function.

    All shapes are fixed, so the function compiles on every backend. It takes one step for each picked box.

    Args:
        boxes: float32 [B, N, 4], in any order and any unit.
        scores: float32 [B, N].
        groups: int32 [B, N], such as class ids. Boxes of different groups do not lower each other's scores.
        max_output: Largest number of boxes to pick per image, M.
        sigma: Width of the Gaussian, above 0.
        min_score: Lowest score of a picked box, after others have lowered it; LEAST_SOFT_SCORE if it is 0.

    Returns:
        Indices int32 [B, M] of the picked boxes and their lowered scores float32 [B, M], in descending order.
        Unused slots are 0 in both.
    """
    boxes, scores = ops.stop_gradient(boxes), ops.stop_gradient(scores)
    min_score, rate = float(min_score or LEAST_SOFT_SCORE), -1.0 / float(sigma)
    left = ops.where(scores >= min_score, scores, 0.0)
    # Each [B, N] in memory of its own: a loop of torch.export cannot read two views of one tensor.
    y1, y2 = ops.minimum(boxes[..., 0], boxes[..., 2]), ops.maximum(boxes[..., 0], boxes[..., 2])
    x1, x2 = ops.minimum(boxes[..., 1], boxes[..., 3]), ops.maximum(boxes[..., 1], boxes[..., 3])
    area, group = (y2 - y1) * (x2 - x1), ops.cast(groups, "float32")
    table = ops.stack([y1, x1, y2, x2, area, group], axis=2)
    slots = ops.arange(max_output, dtype="int32")[None]  # [1, M]
    position = ops.arange(scores.shape[1], dtype="int32")[None]  # [1, N]

    def unfinished(step: Tensor, left: Tensor, index: Tensor, picked: Tensor) -> Tensor:
        return ops.logical_and(step < max_output, ops.any(left >= min_score))

    def pick(step: Tensor, left: Tensor, index: Tensor, picked: Tensor) -> Variables:
        best = backend.first_maximum(left)[:, None]  # [B, 1]
        is_slot = slots == step
        index = ops.where(is_slot, best, index)
        picked = ops.where(is_slot, box_ops.gather(left, best), picked)
        row = ops.unstack(box_ops.gather(table, best), 6, axis=2)  # each [B, 1]
        height = ops.minimum(y2, row[2]) - ops.maximum(y1, row[0])
        width = ops.minimum(x2, row[3]) - ops.maximum(x1, row[1])
        common = ops.relu(height) * ops.relu(width)
        overlap = common / (area + row[4] - common)
        lowered = left * ops.exp(overlap * overlap * rate)
        # Without a common area, the overlap may be 0 / 0.
        left = ops.where(ops.logical_and(common > 0.0, group == row[5]), lowered, left)
        return step + 1, ops.where(position == best, 0.0, left), index, picked

    nothing = ops.tile(ops.zeros_like(left[:, :1]), (1, max_output))  # [B, M]
    start = (ops.convert_to_tensor(0), left, ops.cast(nothing, "int32"), nothing)
    _, _, index, picked = backend.while_loop(unfinished, pick, start)
    is_used = picked >= min_score
    return ops.where(is_used, index, 0), ops.where(is_used, picked, 0.0)

"""Proposals chosen and suppressed per pyramid level, as in torchvision and Detectron2.

Axes: B images, A anchors of all levels, K anchors before NMS.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network import box_ops, suppression
from mrcnn.network.proposals import Proposals
from mrcnn.network.suppression import Suppression
from mrcnn.typing import Shape, Tensor

NEVER = float("-inf")  # score of padding in place of an anchor


@keras.saving.register_keras_serializable("mrcnn")
class LevelProposalLayer(Proposals):
    """Compute proposals from the outputs of the RPN, level by level (FPN, section 4.1).

    The best anchors of each level are refined and clipped to the window. NMS compares only boxes of the same
    level. The best of the boxes that it keeps on all levels are the proposals.

    Call with [logits [B, A, (background, foreground)], deltas [B, A, 4], half-open anchors [B, A, 4]
    normalized, image_meta [B, 12 + classes], P2 to P6]. The maps only determine how many anchors each level
    has. Returns [B, proposal_count, 4] normalized, best first, without gradient; unused slots are zero.

    Args:
        proposal_count: Largest number of proposals per image.
        nms_threshold: IoU above which the lower-scored of two boxes is suppressed.
        pre_nms_limit: Number of highest-scored anchors per level that enter NMS.
        bbox_std_dev: Factors of the deltas.
        anchor_stride: Distance between anchors in cells.
        delta_limit: See `box_ops.apply_box_deltas`.
        min_side: Shortest side of a proposal in pixels.
    """

    def __init__(
        self,
        proposal_count: int,
        nms_threshold: float,
        *,
        pre_nms_limit: int = 1000,
        bbox_std_dev: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        anchor_stride: int = 1,
        delta_limit: float | None = None,
        min_side: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(
            proposal_count, nms_threshold, pre_nms_limit=pre_nms_limit, bbox_std_dev=bbox_std_dev, **kwargs
        )
        self.anchor_stride = int(anchor_stride)
        self.delta_limit = None if delta_limit is None else float(delta_limit)
        self.min_side = float(min_side)

    def steps(
        self, inputs: list[Tensor], non_max_suppression: Suppression = suppression.non_max_suppression
    ) -> dict[str, Tensor]:
        """Return every intermediate result; see `Proposals.steps`.

        The K anchors are those of all levels together, by descending score.
        """
        logits, deltas, anchors, image_meta, *maps = (ops.stop_gradient(x) for x in inputs)
        scores = logits[..., 1] - logits[..., 0]
        index, scores, levels = self._best_per_level(scores, maps)
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        windows = box_ops.norm_boxes(image_meta[:, meta_fields.WINDOW], (height, width), half_open=True)

        pre_nms_anchors = box_ops.gather(anchors, index)
        deltas = self.scaled(box_ops.gather(deltas, index))
        refined = box_ops.apply_box_deltas(pre_nms_anchors, deltas, self.delta_limit)
        clipped = box_ops.clip_boxes(refined, windows[:, None])
        valid = ops.logical_and(scores > NEVER, box_ops.large_enough(clipped, (height, width), self.min_side))

        order = backend.top_k(ops.where(valid, scores, NEVER), scores.shape[1])
        index, pre_nms_anchors, refined, clipped, valid, levels = (
            box_ops.gather(x, order) for x in (index, pre_nms_anchors, refined, clipped, valid, levels)
        )
        return self.suppress(index, pre_nms_anchors, refined, clipped, valid, levels, non_max_suppression)

    def pre_nms_count(self, input_shape: list[Shape]) -> int:
        """Return the number of anchors before NMS, all levels together; see `Proposals.pre_nms_count`."""
        anchors, maps = input_shape[0][1], input_shape[4:]
        if anchors is None or any(side is None for shape in maps for side in shape[1:3]):
            return self.pre_nms_limit * len(maps)
        return sum(min(self.pre_nms_limit, count) for count in self._anchors_per_level(anchors, maps))

    def _anchors_per_level(self, anchors: Any, maps: list[Any]) -> list[Any]:
        """Return the number of anchors of each level: `anchors` of all, and the shapes of the maps."""
        locations = [math.prod(-(-side // self.anchor_stride) for side in shape[1:3]) for shape in maps]
        per_location = anchors // sum(locations)
        return [count * per_location for count in locations]

    def _best_per_level(self, scores: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices, scores and levels [B, K] of the best anchors of each level."""
        anchors = scores.shape[1] or ops.shape(scores)[1]
        counts = self._anchors_per_level(anchors, [ops.shape(features) for features in maps])
        indices, values, start = [], [], 0
        for count in counts:
            end = start + count
            level_scores = scores[:, start:end]
            limit = self.pre_nms_limit
            if level_scores.shape[1] is None:  # pad with anchors that do not exist
                level_scores = ops.pad(level_scores, ((0, 0), (0, limit)), constant_values=NEVER)
            best = backend.top_k(level_scores, min(limit, level_scores.shape[1] or limit))
            values.append(box_ops.gather(level_scores, best))
            indices.append(ops.minimum(ops.cast(best, "int32") + ops.cast(start, "int32"), anchors - 1))
            start = end
        levels = [ops.full_like(index, level) for level, index in enumerate(indices)]
        return (
            ops.concatenate(indices, axis=1),
            ops.concatenate(values, axis=1),
            ops.concatenate(levels, axis=1),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "anchor_stride": self.anchor_stride,
            "delta_limit": self.delta_limit,
            "min_side": self.min_side,
        }

"""Proposals: the best anchors of the RPN, refined, clipped and suppressed (Faster R-CNN, section 3.3).

Axes: B images, A anchors, K anchors before NMS.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.network import box_ops, suppression
from mrcnn.network.suppression import Suppression
from mrcnn.typing import Shape, Tensor


class Proposals(keras.layers.Layer):
    """Base of the layers that choose proposals: their common settings and results.

    A subclass defines `steps`. Its inputs start with the outputs of the RPN [B, A, 2] and [B, A, 4].

    Args:
        proposal_count: Largest number of proposals per image.
        nms_threshold: IoU above which the lower-scored of two boxes is suppressed.
        pre_nms_limit: Number of highest-scored anchors that enter NMS.
        bbox_std_dev: Factors of the deltas.
    """

    def __init__(
        self,
        proposal_count: int,
        nms_threshold: float,
        *,
        pre_nms_limit: int = 6000,
        bbox_std_dev: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposal_count = int(proposal_count)
        self.nms_threshold = float(nms_threshold)
        self.pre_nms_limit = int(pre_nms_limit)
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)

    def steps(
        self, inputs: list[Tensor], non_max_suppression: Suppression = suppression.non_max_suppression
    ) -> dict[str, Tensor]:
        """Return every intermediate result, under the names that the inspection notebooks use.

        Args:
            inputs: The inputs of the layer.
            non_max_suppression: An implementation of `suppression.non_max_suppression`.

        Returns:
            pre_nms_anchors, refined_anchors and refined_anchors_clipped, each [B, K, 4] normalized, best
            first; pre_nms_anchor_ix, int32 [B, K], which of the A anchors each is, -1 for a row that cannot
            become a proposal; rpn_non_max_suppression, int32 [B, proposal_count], rows of these K boxes, 0
            where unused; proposals [B, proposal_count, 4].
        """
        raise NotImplementedError

    def pre_nms_count(self, input_shape: list[Shape]) -> int:
        """Return K for inputs of these shapes. `pre_nms_limit` replaces unknown numbers of anchors."""
        raise NotImplementedError

    def scaled(self, deltas: Tensor) -> Tensor:
        """Multiply deltas [..., 4] by `bbox_std_dev`."""
        return deltas * ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))

    def suppress(
        self,
        index: Tensor,
        anchors: Tensor,
        refined: Tensor,
        clipped: Tensor,
        valid: Tensor,
        groups: Tensor | None = None,
        non_max_suppression: Suppression = suppression.non_max_suppression,
    ) -> dict[str, Tensor]:
        """Suppress boxes and return the dict of `steps`.

        Args:
            index: int32 [B, K], which of the A anchors the boxes come from.
            anchors, refined, clipped: [B, K, 4], best first.
            valid: Whether a box may become a proposal, bool [B, K].
            groups: int [B, K]. Only boxes of the same group suppress each other; None is one group.
            non_max_suppression: An implementation of `suppression.non_max_suppression`.
        """
        kept, filled = non_max_suppression(
            clipped, valid, self.proposal_count, self.nms_threshold, groups=groups
        )
        return {
            "pre_nms_anchor_ix": ops.where(valid, index, -1),
            "pre_nms_anchors": anchors,
            "refined_anchors": refined,
            "refined_anchors_clipped": clipped,
            "rpn_non_max_suppression": kept,
            "proposals": ops.where(filled[..., None], box_ops.gather(clipped, kept), 0.0),
        }

    def call(
        self, inputs: list[Tensor], non_max_suppression: Suppression = suppression.non_max_suppression
    ) -> Tensor:
        return self.steps(inputs, non_max_suppression)["proposals"]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return (input_shape[0][0], self.proposal_count, 4)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "proposal_count": self.proposal_count,
            "nms_threshold": self.nms_threshold,
            "pre_nms_limit": self.pre_nms_limit,
            "bbox_std_dev": self.bbox_std_dev,
        }


@keras.saving.register_keras_serializable("mrcnn")
class ProposalLayer(Proposals):
    """Compute proposals from the outputs of the RPN.

    Call with [scores [B, A, (background, foreground)], deltas [B, A, 4], anchors [B, A, 4] normalized].
    Returns [B, proposal_count, 4] normalized, best first; unused slots are zero. No gradient flows through
    the selection, but gradients flow from the selected boxes to the deltas.

    Args:
        proposal_count: Largest number of proposals per image.
        nms_threshold: IoU above which the lower-scored of two boxes is suppressed.
        pre_nms_limit: Number of highest-scored anchors per image that enter NMS.
        bbox_std_dev: Factors of the deltas.
    """

    def steps(
        self, inputs: list[Tensor], non_max_suppression: Suppression = suppression.non_max_suppression
    ) -> dict[str, Tensor]:
        """Return every intermediate result; see `Proposals.steps`."""
        scores, deltas, anchors = self._with_known_count(*inputs)
        best = backend.top_k(scores, self.pre_nms_count([scores.shape]))
        pre_nms_anchors = box_ops.gather(anchors, best)
        refined = box_ops.apply_box_deltas(pre_nms_anchors, box_ops.gather(self.scaled(deltas), best))
        # Clip to the whole molded image, padding included. Only detections are clipped to the window.
        clipped = ops.clip(refined, 0.0, 1.0)
        valid = box_ops.gather(scores, best) >= 0.0
        return self.suppress(
            best, pre_nms_anchors, refined, clipped, valid, non_max_suppression=non_max_suppression
        )

    def pre_nms_count(self, input_shape: list[Shape]) -> int:
        """Return the number of anchors before NMS; see `Proposals.pre_nms_count`."""
        return min(self.pre_nms_limit, input_shape[0][1] or self.pre_nms_limit)

    def _with_known_count(
        self, scores: Tensor, deltas: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return foreground scores [B, A], deltas and anchors, padded if A is unknown in the graph."""
        scores = ops.stop_gradient(scores[:, :, 1])
        if scores.shape[1] is not None:
            return scores, deltas, anchors
        rows = (0, self.pre_nms_limit)
        scores = ops.pad(scores, ((0, 0), rows), constant_values=-1.0)
        deltas, anchors = (ops.pad(x, ((0, 0), rows, (0, 0))) for x in (deltas, anchors))
        return scores, deltas, anchors

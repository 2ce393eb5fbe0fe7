"""Proposals: the RPN's best anchors, refined, clipped and thinned (Faster R-CNN, section 3.3)."""

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops

Tensor = Any


class ProposalLayer(keras.layers.Layer):
    """Turn the RPN's output into proposals.

    proposal_count: proposals kept per image; nms_threshold: IoU above which the worse one goes;
    config: a Config whose PRE_NMS_LIMIT and RPN_BBOX_STD_DEV are used, or None; then pre_nms_limit (anchors
    kept by score before NMS) and bbox_std_dev (scale of the deltas) count.

    Call with [rpn_probs [B, A, (background, foreground)], rpn_deltas [B, A, 4], anchors [B, A, 4]
    normalised]. Returns [B, proposal_count, 4] normalised, best first, zero rows at the end.
    Selection passes no gradient; the selected boxes stay functions of the deltas.
    """

    def __init__(
        self,
        proposal_count,
        nms_threshold,
        config=None,
        pre_nms_limit=6000,
        bbox_std_dev=(0.1, 0.1, 0.2, 0.2),
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposal_count = int(proposal_count)
        self.nms_threshold = float(nms_threshold)
        self.pre_nms_limit = int(config.PRE_NMS_LIMIT if config else pre_nms_limit)
        std_dev = config.RPN_BBOX_STD_DEV if config else bbox_std_dev
        self.bbox_std_dev = tuple(float(value) for value in std_dev)

    def steps(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Every intermediate result, by the name that inspection notebooks use.

        inputs: as the layer's. Returns pre_nms_anchors, refined_anchors, refined_anchors_clipped
        (each [B, K, 4] normalised, best first), rpn_non_max_suppression (int32 [B, proposal_count], rows
        of the K boxes, 0 where unused), proposals [B, proposal_count, 4].
        """
        scores, deltas, anchors = self._with_known_count(*inputs)
        deltas = deltas * ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))
        best = box_ops.top_k(scores, min(self.pre_nms_limit, scores.shape[1] or self.pre_nms_limit))
        pre_nms_anchors = box_ops.gather(anchors, best)
        refined = box_ops.apply_box_deltas(pre_nms_anchors, box_ops.gather(deltas, best))
        # The whole canvas, padding included: the image's own window counts only for detections.
        clipped = ops.clip(refined, 0.0, 1.0)
        valid = box_ops.gather(scores, best) >= 0.0
        index, filled = box_ops.non_max_suppression(clipped, valid, self.proposal_count, self.nms_threshold)
        proposals = ops.where(filled[..., None], box_ops.gather(clipped, index), 0.0)
        return {
            "pre_nms_anchors": pre_nms_anchors,
            "refined_anchors": refined,
            "refined_anchors_clipped": clipped,
            "rpn_non_max_suppression": index,
            "proposals": proposals,
        }

    def _with_known_count(self, probs, deltas, anchors):
        """Scores [B, A], deltas and anchors; if A is unknown before the run, enough empty rows besides."""
        scores = ops.stop_gradient(probs[:, :, 1])
        if scores.shape[1] is not None:
            return scores, deltas, anchors
        rows = (0, self.pre_nms_limit)
        scores = ops.pad(scores, ((0, 0), rows), constant_values=-1.0)
        deltas, anchors = (ops.pad(x, ((0, 0), rows, (0, 0))) for x in (deltas, anchors))
        return scores, deltas, anchors

    def call(self, inputs):
        return self.steps(inputs)["proposals"]

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.proposal_count, 4)

    def get_config(self):
        return {
            **super().get_config(),
            "proposal_count": self.proposal_count,
            "nms_threshold": self.nms_threshold,
            "pre_nms_limit": self.pre_nms_limit,
            "bbox_std_dev": self.bbox_std_dev,
        }

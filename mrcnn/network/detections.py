"""Detections from RoIs: classes, refined boxes, and NMS per class (Mask R-CNN, section 3.1, inference).

An RoI becomes a detection of its best class, or one detection of each class whose score is high enough.

Axes: B images, N RoIs, K slots for detections.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network import box_ops, suppression
from mrcnn.network.soft_suppression import soft_non_max_suppression
from mrcnn.network.suppression import Suppression
from mrcnn.typing import Shape, Tensor


def refine_detections(
    rois: Tensor,
    scores: Tensor,
    deltas: Tensor,
    windows: Tensor,
    *,
    bbox_std_dev: Sequence[float],
    min_confidence: float,
    nms_threshold: float,
    max_instances: int,
    soft_nms_sigma: float | None = None,
    non_max_suppression: Suppression = suppression.non_max_suppression,
) -> Tensor:
    """Compute the final detections of each image.

    Args:
        rois: [B, N, 4] normalized.
        scores: [B, N, classes].
        deltas: [B, N, classes, 4], not yet multiplied by `bbox_std_dev`.
        windows: [B, 4] normalized, the part of each molded image that is not padding.
        bbox_std_dev: Factors of the deltas.
        min_confidence: Lowest score of a detection. 0 keeps all.
        nms_threshold: IoU above which the lower-scored of two boxes of the same class is suppressed.
        max_instances: Largest number of detections per image.
        soft_nms_sigma: With a number, Soft-NMS of this width takes the place of NMS: `nms_threshold` does not
            count, scores are those that remain, and `min_confidence` applies to them. 0 then means
            `geometry.boxes.LEAST_SOFT_SCORE`.
        non_max_suppression: An implementation of `suppression.non_max_suppression`.

    Returns:
        [B, max_instances, (y1, x1, y2, x2, class_id, score)] by descending score. Detections of equal score
        are in the order of their RoIs. Unused slots are zero.
    """
    class_ids = backend.first_maximum(scores)  # [B, N]
    scores = ops.max(scores, axis=2)
    own_deltas = box_ops.select_class(deltas, class_ids) * ops.convert_to_tensor(
        np.array(bbox_std_dev, "float32")
    )
    boxes = box_ops.clip_boxes(box_ops.apply_box_deltas(rois, own_deltas), windows[:, None])

    eligible = class_ids > 0
    if min_confidence:
        eligible = ops.logical_and(eligible, scores >= min_confidence)
    order = backend.top_k(ops.where(eligible, scores, -1.0), scores.shape[1])
    boxes, scores, class_ids = (box_ops.gather(x, order) for x in (boxes, scores, class_ids))
    eligible = box_ops.gather(eligible, order)
    return _without_duplicates(
        boxes,
        class_ids,
        scores,
        eligible,
        min_confidence=min_confidence,
        nms_threshold=nms_threshold,
        max_instances=max_instances,
        soft_nms_sigma=soft_nms_sigma,
        non_max_suppression=non_max_suppression,
    )


def refine_detections_per_class(
    rois: Tensor,
    scores: Tensor,
    deltas: Tensor,
    windows: Tensor,
    size: tuple[Tensor, Tensor],
    *,
    bbox_std_dev: Sequence[float],
    min_confidence: float,
    nms_threshold: float,
    max_instances: int,
    delta_limit: float | None = None,
    min_side: float = 0.0,
    soft_nms_sigma: float | None = None,
    non_max_suppression: Suppression = suppression.non_max_suppression,
) -> Tensor:
    """Compute the final detections of each image, one for each class of an RoI whose score is high enough.

    Args:
        rois, scores, deltas, windows: See `refine_detections`. RoIs of zeros are unused slots.
        size: (height, width) of the molded images in pixels.
        bbox_std_dev, min_confidence, nms_threshold, max_instances: See `refine_detections`.
        delta_limit: See `box_ops.apply_box_deltas`.
        min_side: Shortest side of a detection in pixels.
        soft_nms_sigma, non_max_suppression: See `refine_detections`.

    Returns:
        See `refine_detections`.
    """
    batch, count, classes = ops.shape(scores)
    objects = ops.reshape(scores[..., 1:], (batch, -1))  # [B, N * (classes - 1)]
    is_roi = ops.repeat(ops.any(rois != 0.0, axis=2), classes - 1, axis=1)
    eligible = ops.logical_and(is_roi, objects >= min_confidence)
    # Scores of an RoI add up to 1, so that few of its classes can reach the threshold.
    limit = count * min(classes - 1, int(1.0 / min_confidence) if min_confidence else classes - 1)
    order = backend.top_k(ops.where(eligible, objects, -1.0), limit)  # [B, K]
    roi, class_ids = order // (classes - 1), order % (classes - 1) + 1

    flat_deltas = ops.reshape(deltas, (batch, count * classes, 4))
    own_deltas = box_ops.gather(flat_deltas, roi * classes + class_ids) * ops.convert_to_tensor(
        np.array(bbox_std_dev, "float32")
    )
    boxes = box_ops.apply_box_deltas(box_ops.gather(rois, roi), own_deltas, delta_limit)
    boxes = box_ops.clip_boxes(boxes, windows[:, None])
    eligible = ops.logical_and(box_ops.gather(eligible, order), box_ops.large_enough(boxes, size, min_side))
    return _without_duplicates(
        boxes,
        class_ids,
        box_ops.gather(objects, order),
        eligible,
        min_confidence=min_confidence,
        nms_threshold=nms_threshold,
        max_instances=max_instances,
        soft_nms_sigma=soft_nms_sigma,
        non_max_suppression=non_max_suppression,
    )


def _without_duplicates(
    boxes: Tensor,
    class_ids: Tensor,
    scores: Tensor,
    eligible: Tensor,
    *,
    min_confidence: float,
    nms_threshold: float,
    max_instances: int,
    soft_nms_sigma: float | None,
    non_max_suppression: Suppression,
) -> Tensor:
    """Return the detections that NMS or Soft-NMS leaves of refined boxes; see `refine_detections`.

    Args:
        boxes: [B, N, 4] by descending score.
        class_ids: int32 [B, N].
        scores: [B, N].
        eligible: bool [B, N], whether a box may become a detection.
        min_confidence, nms_threshold, max_instances, soft_nms_sigma, non_max_suppression: See
            `refine_detections`.
    """
    rows = ops.concatenate([boxes, ops.cast(class_ids, "float32")[..., None], scores[..., None]], axis=2)
    if soft_nms_sigma is None:
        # One pass over all classes by descending score keeps the same boxes as one pass per class followed by
        # the best of all: a class that reaches the limit alone has filled all slots by then.
        index, filled = non_max_suppression(boxes, eligible, max_instances, nms_threshold, groups=class_ids)
        return ops.where(filled[..., None], box_ops.gather(rows, index), 0.0)
    index, lowered = soft_non_max_suppression(
        boxes,
        ops.where(eligible, scores, 0.0),
        class_ids,
        max_output=max_instances,
        sigma=soft_nms_sigma,
        min_score=min_confidence,
    )
    lowered = lowered[..., None]
    rows = ops.concatenate([box_ops.gather(rows, index)[..., :5], lowered], axis=2)
    return ops.where(lowered > 0.0, rows, 0.0)


@keras.saving.register_keras_serializable("mrcnn")
class DetectionLayer(keras.layers.Layer):
    """Compute the final detections from RoIs, class scores and class-specific deltas.

    Call with [rois [B, N, 4] normalized, mrcnn_class [B, N, classes], mrcnn_bbox [B, N, classes, 4],
    image_meta [B, 12 + classes]]. The first image gives the size of all molded images.
    Returns [B, max_instances, (y1, x1, y2, x2, class_id, score)] normalized; unused slots are zero.

    Args:
        bbox_std_dev, min_confidence, nms_threshold, max_instances, soft_nms_sigma: See `refine_detections`.
        per_class: Whether to use `refine_detections_per_class`.
        half_open_boxes: See `box_ops.norm_boxes`.
        delta_limit, min_side: See `refine_detections_per_class`.
    """

    def __init__(
        self,
        *,
        bbox_std_dev: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        min_confidence: float | None = 0.7,
        nms_threshold: float = 0.3,
        max_instances: int = 100,
        per_class: bool = False,
        half_open_boxes: bool = False,
        delta_limit: float | None = None,
        min_side: float = 0.0,
        soft_nms_sigma: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.min_confidence = float(min_confidence or 0.0)
        self.nms_threshold = float(nms_threshold)
        self.max_instances = int(max_instances)
        self.per_class = bool(per_class)
        self.half_open_boxes = bool(half_open_boxes)
        self.delta_limit = None if delta_limit is None else float(delta_limit)
        self.min_side = float(min_side)
        self.soft_nms_sigma = None if soft_nms_sigma is None else float(soft_nms_sigma)

    def call(
        self, inputs: list[Tensor], non_max_suppression: Suppression = suppression.non_max_suppression
    ) -> Tensor:
        rois, scores, deltas, image_meta = inputs
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        windows = box_ops.norm_boxes(image_meta[:, meta_fields.WINDOW], (height, width), self.half_open_boxes)
        settings: dict[str, Any] = {
            "bbox_std_dev": self.bbox_std_dev,
            "min_confidence": self.min_confidence,
            "nms_threshold": self.nms_threshold,
            "max_instances": self.max_instances,
            "soft_nms_sigma": self.soft_nms_sigma,
            "non_max_suppression": non_max_suppression,
        }
        if not self.per_class or scores.shape[2] == 1:  # with the background alone, nothing is per class
            return refine_detections(rois, scores, deltas, windows, **settings)
        return refine_detections_per_class(
            rois,
            scores,
            deltas,
            windows,
            (height, width),
            delta_limit=self.delta_limit,
            min_side=self.min_side,
            **settings,
        )

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return (input_shape[0][0], self.max_instances, 6)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "per_class": self.per_class,
            "half_open_boxes": self.half_open_boxes,
            "delta_limit": self.delta_limit,
            "min_side": self.min_side,
            "bbox_std_dev": self.bbox_std_dev,
            "min_confidence": self.min_confidence,
            "nms_threshold": self.nms_threshold,
            "max_instances": self.max_instances,
            "soft_nms_sigma": self.soft_nms_sigma,
        }

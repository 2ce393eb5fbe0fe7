"""Detections: one class per RoI, refined boxes, NMS per class (Mask R-CNN, section 3.1, inference)."""

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops

Tensor = Any


def refine_detections(
    rois: Tensor,
    probs: Tensor,
    deltas: Tensor,
    windows: Tensor,
    *,
    bbox_std_dev: tuple[float, ...],
    min_confidence: float,
    nms_threshold: float,
    max_instances: int,
) -> Tensor:
    """Final detections of each image.

    rois: [B, N, 4] normalised; probs: [B, N, classes]; deltas: [B, N, classes, 4] before scaling by
    bbox_std_dev; windows: [B, 4] normalised, the part of the canvas that is image. A min_confidence of 0
    keeps every score. Returns [B, max_instances, (y1, x1, y2, x2, class_id, score)], falling scores, equal
    scores by rising RoI, zero rows at the end.
    """
    class_ids = ops.cast(ops.argmax(probs, axis=2), "int32")  # [B, N]
    scores = ops.max(probs, axis=2)
    own_deltas = box_ops.own_class(deltas, class_ids) * ops.convert_to_tensor(
        np.array(bbox_std_dev, "float32")
    )
    boxes = box_ops.clip_boxes(box_ops.apply_box_deltas(rois, own_deltas), windows[:, None])

    wanted = class_ids > 0
    if min_confidence:
        wanted = ops.logical_and(wanted, scores >= min_confidence)
    order = box_ops.top_k(ops.where(wanted, scores, -1.0), scores.shape[1])
    boxes, scores, class_ids = (box_ops.gather(x, order) for x in (boxes, scores, class_ids))
    wanted = box_ops.gather(wanted, order)
    # One pass over all classes in score order keeps the same boxes as a pass for each class followed by
    # the best of all: a class that reaches the limit alone has filled the result by then.
    index, filled = box_ops.non_max_suppression(boxes, wanted, max_instances, nms_threshold, groups=class_ids)
    rows = ops.concatenate([boxes, ops.cast(class_ids, "float32")[..., None], scores[..., None]], axis=2)
    return ops.where(filled[..., None], box_ops.gather(rows, index), 0.0)


class DetectionLayer(keras.layers.Layer):
    """Final detections from RoIs, class probabilities and class-specific deltas.

    config: a Config whose BBOX_STD_DEV, DETECTION_MIN_CONFIDENCE, DETECTION_NMS_THRESHOLD and
    DETECTION_MAX_INSTANCES are used, or None; then the keyword arguments count.

    Call with [rois [B, N, 4] normalised, mrcnn_class [B, N, classes], mrcnn_bbox [B, N, classes, 4],
    image_meta [B, 12 + classes]]. Windows are normalised by the size of the first image.
    Returns [B, max_instances, (y1, x1, y2, x2, class_id, score)] normalised, zero rows at the end.
    """

    def __init__(
        self,
        config=None,
        bbox_std_dev=(0.1, 0.1, 0.2, 0.2),
        min_confidence=0.7,
        nms_threshold=0.3,
        max_instances=100,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        if config is not None:
            bbox_std_dev = config.BBOX_STD_DEV
            min_confidence = config.DETECTION_MIN_CONFIDENCE
            nms_threshold = config.DETECTION_NMS_THRESHOLD
            max_instances = config.DETECTION_MAX_INSTANCES
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.min_confidence = float(min_confidence or 0.0)
        self.nms_threshold = float(nms_threshold)
        self.max_instances = int(max_instances)

    def call(self, inputs):
        rois, probs, deltas, image_meta = inputs
        windows = box_ops.norm_boxes(image_meta[:, 7:11], (image_meta[0, 4], image_meta[0, 5]))
        return refine_detections(
            rois,
            probs,
            deltas,
            windows,
            bbox_std_dev=self.bbox_std_dev,
            min_confidence=self.min_confidence,
            nms_threshold=self.nms_threshold,
            max_instances=self.max_instances,
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.max_instances, 6)

    def get_config(self):
        return {
            **super().get_config(),
            "bbox_std_dev": self.bbox_std_dev,
            "min_confidence": self.min_confidence,
            "nms_threshold": self.nms_threshold,
            "max_instances": self.max_instances,
        }

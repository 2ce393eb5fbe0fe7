"""The parts of the network under their names in the Keras 2 library; see `mrcnn.model`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from mrcnn.geometry import anchors
from mrcnn.geometry.image_meta import FIELDS
from mrcnn.legacy.layers import DetectionTargetLayer
from mrcnn.network import box_ops, heads, losses
from mrcnn.network.backbone import conv_block, identity_block, resnet_graph
from mrcnn.network.detections import refine_detections, refine_detections_per_class
from mrcnn.network.rpn import build_rpn_model
from mrcnn.typing import Tensor

if TYPE_CHECKING:
    from mrcnn.config import Config

apply_box_deltas_graph = box_ops.apply_box_deltas
build_fpn_mask_graph = heads.mask_head
clip_boxes_graph = box_ops.clip_boxes
denorm_boxes_graph = box_ops.denorm_boxes
fpn_classifier_graph = heads.box_head
log2_graph = box_ops.log2
mrcnn_bbox_loss_graph = losses.mrcnn_bbox_loss
mrcnn_class_loss_graph = losses.mrcnn_class_loss
mrcnn_mask_loss_graph = losses.mrcnn_mask_loss
norm_boxes_graph = box_ops.norm_boxes
overlaps_graph = box_ops.compute_overlaps
rpn_class_loss_graph = losses.rpn_class_loss
smooth_l1_loss = losses.smooth_l1_loss


def compute_backbone_shapes(config: "Config", image_shape: Sequence[int]) -> np.ndarray:
    """Return the feature map size of each pyramid level.

    Args:
        config: The Config of the model. With a callable BACKBONE, its COMPUTE_BACKBONE_SHAPE gives the sizes.
        image_shape: (height, width, ...) of the molded image in pixels.

    Returns:
        int array [levels, (rows, columns)], P2 first.
    """
    return anchors.backbone_shapes(config, image_shape)


def trim_zeros_graph(boxes: Tensor, name: str = "trim_zeros") -> tuple[Tensor, Tensor]:
    """Drop the rows that are all zero.

    The length of the result depends on the data, so this works eagerly but not in a compiled graph.

    Args:
        boxes: [N, 4].
        name: Not used.

    Returns:
        The other rows [M, 4], and a bool mask [N] that marks them.
    """
    kept = ops.sum(ops.abs(boxes), axis=1) != 0
    return ops.take(boxes, ops.nonzero(kept)[0], axis=0), kept


def batch_pack_graph(x: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    """Join the first `counts[i]` rows of each `x[i]`, i < num_rows, along the first axis.

    The length of the result depends on the data, so this works eagerly but not in a compiled graph.
    """
    return ops.concatenate([x[i, : int(counts[i])] for i in range(num_rows)], axis=0)


def rpn_bbox_loss_graph(config: "Config", target_bbox: Tensor, rpn_match: Tensor, rpn_bbox: Tensor) -> Tensor:
    """Return `mrcnn.network.losses.rpn_bbox_loss` of the tensors. The config is not used."""
    return losses.rpn_bbox_loss(target_bbox, rpn_match, rpn_bbox)


def detection_targets_graph(
    proposals: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor, gt_masks: Tensor, config: "Config"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the outputs of `DetectionTargetLayer` for one image.

    Arguments and results are those of the layer, without the batch axis.
    """
    layer = DetectionTargetLayer(config)
    rois, class_ids, deltas, masks = layer([x[None] for x in (proposals, gt_class_ids, gt_boxes, gt_masks)])
    return rois[0], class_ids[0], deltas[0], masks[0]


def refine_detections_graph(
    rois: Tensor, probs: Tensor, deltas: Tensor, window: Tensor, config: "Config"
) -> Tensor:
    """Return the final detections of one image; see `mrcnn.network.detections.refine_detections`.

    Args:
        rois: [N, 4] normalized.
        probs: Class scores [N, classes].
        deltas: [N, classes, 4].
        window: [4] normalized.
        config: Read for BBOX_STD_DEV, SOFT_NMS_SIGMA, DETECTIONS_PER_CLASS and the DETECTION_* settings.

    Returns:
        [DETECTION_MAX_INSTANCES, (y1, x1, y2, x2, class_id, score)]; unused slots are zero.
    """
    inputs = rois[None], probs[None], deltas[None], window[None]
    settings: dict[str, Any] = {
        "bbox_std_dev": tuple(config.BBOX_STD_DEV),
        "min_confidence": config.DETECTION_MIN_CONFIDENCE,
        "nms_threshold": config.DETECTION_NMS_THRESHOLD,
        "max_instances": config.DETECTION_MAX_INSTANCES,
        "soft_nms_sigma": config.SOFT_NMS_SIGMA,
    }
    if config.DETECTIONS_PER_CLASS:
        return refine_detections_per_class(*inputs, (1, 1), **settings)[0]  # no side is too short
    return refine_detections(*inputs, **settings)[0]


def parse_image_meta_graph(meta: Tensor) -> dict[str, Tensor]:
    """Return the fields of an image meta tensor [B, 12 + classes] by name, in its own dtype.

    Names and shapes are those of `mrcnn.geometry.image_meta.parse_image_meta`.
    """
    return {name: meta[:, field] for name, field in FIELDS.items()}


def rpn_graph(feature_map: Tensor, anchors_per_location: int, anchor_stride: int) -> list[Tensor]:
    """Apply a new RPN to one feature map [B, h, w, C].

    Returns:
        Logits [B, A, 2], scores [B, A, 2] and deltas [B, A, 4] of its anchors.
    """
    return build_rpn_model(anchor_stride, anchors_per_location, feature_map.shape[-1])(feature_map)


__all__ = [
    "apply_box_deltas_graph",
    "batch_pack_graph",
    "build_fpn_mask_graph",
    "build_rpn_model",
    "clip_boxes_graph",
    "compute_backbone_shapes",
    "conv_block",
    "denorm_boxes_graph",
    "detection_targets_graph",
    "fpn_classifier_graph",
    "identity_block",
    "log2_graph",
    "mrcnn_bbox_loss_graph",
    "mrcnn_class_loss_graph",
    "mrcnn_mask_loss_graph",
    "norm_boxes_graph",
    "overlaps_graph",
    "parse_image_meta_graph",
    "refine_detections_graph",
    "resnet_graph",
    "rpn_bbox_loss_graph",
    "rpn_class_loss_graph",
    "rpn_graph",
    "smooth_l1_loss",
    "trim_zeros_graph",
]

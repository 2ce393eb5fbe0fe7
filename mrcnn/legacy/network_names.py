"""The original's names of the network's parts, for code that builds with them (see `mrcnn.model`)."""

from typing import Any

from mrcnn.geometry.image_meta import FIELDS
from mrcnn.network import box_ops, detection_targets, detections, heads, losses
from mrcnn.network.backbone import conv_block, identity_block, resnet_graph
from mrcnn.network.rpn import build_rpn_model

Tensor = Any

apply_box_deltas_graph = box_ops.apply_box_deltas
batch_pack_graph = box_ops.batch_pack
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


def trim_zeros_graph(boxes: Tensor, name: str = "trim_zeros") -> tuple[Tensor, Tensor]:
    """Rows [M, 4] that are not all zero, and the bool mask [N] of them; name is not used."""
    return box_ops.trim_zeros(boxes)


def rpn_bbox_loss_graph(config: Any, target_bbox: Tensor, rpn_match: Tensor, rpn_bbox: Tensor) -> Tensor:
    """`losses.rpn_bbox_loss`; config is not needed any more."""
    return losses.rpn_bbox_loss(target_bbox, rpn_match, rpn_bbox)


def detection_targets_graph(
    proposals: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor, gt_masks: Tensor, config: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`DetectionTargetLayer` for one image: the same arrays without the batch axis."""
    layer = detection_targets.DetectionTargetLayer(config)
    outputs = layer([x[None] for x in (proposals, gt_class_ids, gt_boxes, gt_masks)])
    return tuple(output[0] for output in outputs)


def refine_detections_graph(
    rois: Tensor, probs: Tensor, deltas: Tensor, window: Tensor, config: Any
) -> Tensor:
    """`detections.refine_detections` for one image: [N, ...] without the batch axis, window [4]."""
    return detections.refine_detections(
        rois[None],
        probs[None],
        deltas[None],
        window[None],
        bbox_std_dev=tuple(config.BBOX_STD_DEV),
        min_confidence=config.DETECTION_MIN_CONFIDENCE,
        nms_threshold=config.DETECTION_NMS_THRESHOLD,
        max_instances=config.DETECTION_MAX_INSTANCES,
    )[0]


def parse_image_meta_graph(meta: Tensor) -> dict[str, Tensor]:
    """The parts of an image meta tensor [B, 12 + classes] by name, in its own dtype.

    The names and shapes are those of `geometry.image_meta.parse_image_meta`.
    """
    return {name: meta[:, field] for name, field in FIELDS.items()}


def rpn_graph(feature_map: Tensor, anchors_per_location: int, anchor_stride: int) -> list[Tensor]:
    """Logits, probabilities and deltas of one feature map's anchors, by a fresh RPN."""
    return build_rpn_model(anchor_stride, anchors_per_location, feature_map.shape[-1])(feature_map)


__all__ = [
    "apply_box_deltas_graph",
    "batch_pack_graph",
    "build_fpn_mask_graph",
    "build_rpn_model",
    "clip_boxes_graph",
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

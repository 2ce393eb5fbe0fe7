"""The paper on one page: Mask R-CNN in training and in inference.

image -> backbone -> feature pyramid -> RPN -> proposals -> (targets ->) ROIAlign -> box head, mask head

This is the only file of the network that reads a Config. Everything here is the plain formulation: faster
replacements with the same numbers stand in `mrcnn.fast`, and are applied to a finished graph.

Axes: B images, H and W pixels of the molded image, A anchors, N ground-truth instances, M of them masked.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from mrcnn.config import Config
from mrcnn.network import heads
from mrcnn.network.anchors import Anchors
from mrcnn.network.backbone import backbone_stages
from mrcnn.network.detection_targets import DetectionTargetLayer, LeadingSlots, NormBoxes
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.rpn import apply_rpn, build_rpn_model
from mrcnn.network.rpn_targets import RpnTargetLayer
from mrcnn.typing import Tensor


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs of a graph by name, in the order of the Keras 2 library."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def training_graph(config: Config) -> Graph:
    """From images and their ground truth to everything that the losses compare.

    The first stage learns from all N instances, the second from the M that have a mask.
    """
    inputs = _image_inputs(config) | _ground_truth_inputs(config)
    image, image_meta = inputs["input_image"], inputs["input_image_meta"]
    rpn_match, rpn_bbox = _rpn_targets(inputs, config)

    pyramid, rpn_logits, rpn_scores, rpn_deltas = _first_stage(image, config)
    anchors = _anchors(image, config)
    rpn_rois = _proposals(config, config.POST_NMS_ROIS_TRAINING)([rpn_scores, rpn_deltas, anchors])
    rois, class_ids, bbox, masks = _roi_targets(inputs, rpn_rois, config)

    logits, scores, deltas = _box_head(rois, pyramid, image_meta, config)
    mask_slots = LeadingSlots(_mask_slot_count(config), name="mask_slots")
    mask_rois, target_masks = mask_slots([class_ids, rois, masks])
    pred_masks = _mask_head(mask_rois, pyramid, image_meta, config)
    outputs = {
        "rpn_class_logits": rpn_logits,
        "rpn_class": rpn_scores,
        "rpn_bbox": rpn_deltas,
        "mrcnn_class_logits": logits,
        "mrcnn_class": scores,
        "mrcnn_bbox": deltas,
        "mrcnn_mask": pred_masks,
        "ROI": rpn_rois,
        "output_rois": rois,
        "target_class_ids": class_ids,
        "target_bbox": bbox,
        "target_mask": target_masks,
        "target_rpn_match": rpn_match,
        "target_rpn_bbox": rpn_bbox,
    }
    return Graph(inputs, outputs)


def inference_graph(config: Config) -> Graph:
    """From images and their normalized anchors to detections.

    Besides the seven outputs of the Keras 2 library there are the RPN's logits and the pyramid P2 to P6.
    `mrcnn_mask` holds the mask of every detection for every class.
    """
    inputs = _image_inputs(config) | {"input_anchors": keras.Input((None, 4), name="input_anchors")}
    image, image_meta, anchors = inputs.values()

    pyramid, rpn_logits, rpn_scores, rpn_deltas = _first_stage(image, config)
    rois = _proposals(config, config.POST_NMS_ROIS_INFERENCE)([rpn_scores, rpn_deltas, anchors])
    _, scores, deltas = _box_head(rois, pyramid, image_meta, config)
    detections = DetectionLayer(
        bbox_std_dev=config.BBOX_STD_DEV,
        min_confidence=config.DETECTION_MIN_CONFIDENCE,
        nms_threshold=config.DETECTION_NMS_THRESHOLD,
        max_instances=config.DETECTION_MAX_INSTANCES,
        name="mrcnn_detection",
    )([rois, scores, deltas, image_meta])
    masks = _mask_head(detections[..., :4], pyramid, image_meta, config)
    outputs = {
        "mrcnn_detection": detections,
        "mrcnn_class": scores,
        "mrcnn_bbox": deltas,
        "mrcnn_mask": masks,
        "ROI": rois,
        "rpn_class": rpn_scores,
        "rpn_bbox": rpn_deltas,
        "rpn_class_logits": rpn_logits,
    }
    return Graph(inputs, outputs | {f"P{level}": tensor for level, tensor in enumerate(pyramid, start=2)})


# --- The parts, with the numbers of a Config ---


def _first_stage(image: Tensor, config: Config) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The pyramid P2 to P6, and logits, scores and deltas of all anchors."""
    stages = backbone_stages(image, config.BACKBONE, config.TRAIN_BN, config.NORM)
    pyramid = feature_pyramid(stages, config.TOP_DOWN_PYRAMID_SIZE)
    rpn = build_rpn_model(
        config.RPN_ANCHOR_STRIDE,
        len(config.RPN_ANCHOR_RATIOS),
        config.TOP_DOWN_PYRAMID_SIZE,
        config.RPN_CHANNELS,
    )
    return (pyramid, *apply_rpn(rpn, pyramid))


def _anchors(image: Tensor, config: Config) -> Tensor:
    layer = Anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
        name="anchors",
    )
    return layer(image)


def _proposals(config: Config, count: int) -> ProposalLayer:
    return ProposalLayer(
        count,
        config.RPN_NMS_THRESHOLD,
        pre_nms_limit=config.PRE_NMS_LIMIT,
        bbox_std_dev=config.RPN_BBOX_STD_DEV,
        name="ROI",
    )


def _box_head(
    rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    return heads.box_head(
        rois,
        pyramid[:4],
        image_meta,
        config.POOL_SIZE,
        config.NUM_CLASSES,
        train_bn=config.TRAIN_BN,
        fc_layers_size=config.FPN_CLASSIF_FC_LAYERS_SIZE,
        norm=config.NORM,
    )


def _mask_head(rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config: Config) -> Tensor:
    return heads.mask_head(
        rois,
        pyramid[:4],
        image_meta,
        config.MASK_POOL_SIZE,
        config.NUM_CLASSES,
        train_bn=config.TRAIN_BN,
        channels=config.MASK_HEAD_CHANNELS,
        norm=config.NORM,
    )


def _roi_targets(inputs: dict[str, Tensor], proposals: Tensor, config: Config) -> list[Tensor]:
    """RoIs sampled from the proposals, or from `input_roi` without USE_RPN_ROIS, and their targets."""
    normalize = NormBoxes(name="norm_gt_boxes")
    image = inputs["input_image"]
    if not config.USE_RPN_ROIS:
        shape = (config.POST_NMS_ROIS_TRAINING, 4)
        inputs["input_roi"] = keras.Input(shape, dtype="int32", name="input_roi")
        proposals = normalize([inputs["input_roi"], image])
    layer = DetectionTargetLayer(
        rois_per_image=config.TRAIN_ROIS_PER_IMAGE,
        positive_ratio=config.ROI_POSITIVE_RATIO,
        bbox_std_dev=config.BBOX_STD_DEV,
        mask_shape=config.MASK_SHAPE,
        use_mini_mask=config.USE_MINI_MASK,
        positive_iou=config.ROI_POSITIVE_IOU,
        crowd_iou=config.CROWD_IOU,
        include_gt=config.ROI_INCLUDE_GT,
        seed=config.SEED,
        name="proposal_targets",
    )
    gt_class_ids = inputs["input_gt_class_ids"][:, : config.MAX_GT_INSTANCES]
    gt_boxes = normalize([inputs["input_gt_boxes"][:, : config.MAX_GT_INSTANCES], image])
    return list(layer([proposals, gt_class_ids, gt_boxes, inputs["input_gt_masks"]]))


def _rpn_targets(inputs: dict[str, Tensor], config: Config) -> list[Tensor]:
    """The targets of the RPN from the ground truth or, without RPN_TARGETS_IN_GRAPH, as inputs."""
    if config.RPN_TARGETS_IN_GRAPH:
        layer = RpnTargetLayer(
            scales=config.RPN_ANCHOR_SCALES,
            ratios=config.RPN_ANCHOR_RATIOS,
            strides=config.BACKBONE_STRIDES,
            anchor_stride=config.RPN_ANCHOR_STRIDE,
            positive_iou=config.RPN_POSITIVE_IOU,
            negative_iou=config.RPN_NEGATIVE_IOU,
            crowd_iou=config.CROWD_IOU,
            anchors_per_image=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
            bbox_std_dev=config.RPN_BBOX_STD_DEV,
            seed=config.SEED,
            name="rpn_targets",
        )
        return list(layer([inputs[f"input_{name}"] for name in ("image", "gt_class_ids", "gt_boxes")]))
    targets = {
        "input_rpn_match": keras.Input((None, 1), dtype="int32", name="input_rpn_match"),
        "input_rpn_bbox": keras.Input((None, 4), name="input_rpn_bbox"),
    }
    inputs |= targets
    # Keras before 3.14 wants every input to pass through a layer.
    return [
        layers.Identity(name=name.replace("input", "target"), dtype="float32")(x)
        for name, x in targets.items()
    ]


def _mask_slot_count(config: Config) -> int:
    """How many leading RoIs of each image the mask head sees: the slots of positives, or all.

    MASK_POSITIVES_ONLY = None means positives only unless batch norm needs the statistics of all RoIs.
    """
    positives_only: Any = config.MASK_POSITIVES_ONLY
    if positives_only is None:
        positives_only = config.TRAIN_BN is False or config.NORM == "group"
    if positives_only:
        return int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO)
    return config.TRAIN_ROIS_PER_IMAGE


def _image_inputs(config: Config) -> dict[str, Tensor]:
    """The molded image [B, H, W, channels] float32, and its meta [B, 12 + classes] float32.

    H and W are known if IMAGE_RESIZE_MODE fixes them.
    """
    fixed = config.IMAGE_RESIZE_MODE in ("square", "crop")
    height, width = (int(side) for side in config.IMAGE_SHAPE[:2]) if fixed else (None, None)
    return {
        "input_image": keras.Input((height, width, config.IMAGE_CHANNEL_COUNT), name="input_image"),
        "input_image_meta": keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta"),
    }


def _ground_truth_inputs(config: Config) -> dict[str, Tensor]:
    """Class ids [B, N], boxes [B, N, 4] in pixels, and masks [B, h, w, M], whole or mini."""
    fixed = config.IMAGE_RESIZE_MODE in ("square", "crop")
    whole = tuple(int(side) for side in config.IMAGE_SHAPE[:2]) if fixed else (None, None)
    mask_size = config.MINI_MASK_SHAPE if config.USE_MINI_MASK else whole
    return {
        "input_gt_class_ids": keras.Input((None,), dtype="int32", name="input_gt_class_ids"),
        "input_gt_boxes": keras.Input((None, 4), name="input_gt_boxes"),
        "input_gt_masks": keras.Input((*mask_size, None), dtype="bool", name="input_gt_masks"),
    }

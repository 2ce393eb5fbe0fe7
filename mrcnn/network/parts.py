"""The parts of the network, built with the settings of a Config.

This is the only file of the network that reads a Config. Layers and losses take plain numbers.

Axes: B images, H and W pixels of the molded image, A anchors, N ground-truth instances, M of them with masks.
"""

from typing import Any

import keras
from keras import layers

from mrcnn.config import Config
from mrcnn.network import heads
from mrcnn.network.anchors import Anchors
from mrcnn.network.backbone import backbone_stages
from mrcnn.network.detection_targets import DetectionTargetLayer, NormBoxes
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.level_proposals import LevelProposalLayer
from mrcnn.network.normalization import Norm, normalization
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.rpn import apply_rpn, build_rpn_model
from mrcnn.network.rpn_targets import RpnTargetLayer
from mrcnn.typing import Tensor


def backbone_train_bn(config: Config) -> bool | None:
    """Return the argument `train_bn` of the backbone's batch norms."""
    return False if config.TRAIN_BN == "heads" else config.TRAIN_BN


def head_train_bn(config: Config) -> bool | None:
    """Return the argument `train_bn` of the batch norms outside of the backbone."""
    return None if config.TRAIN_BN == "heads" else config.TRAIN_BN


def norm_layers(config: Config, train_bn: bool | None) -> Norm:
    """Return the function that makes the normalization layers."""
    return normalization(config.NORM, train_bn, config.BATCH_NORM_EPSILON, config.FROZEN_BN)


def first_stage(image: Tensor, config: Config) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Build backbone, FPN and RPN: the pyramid P2 to P6, and logits, scores and deltas of all anchors."""
    train_bn = backbone_train_bn(config)
    norm = norm_layers(config, train_bn)
    stages = backbone_stages(image, config.BACKBONE, train_bn, norm, config.RESNET_STYLE)
    norm = norm_layers(config, head_train_bn(config))
    pyramid = feature_pyramid(stages, config.TOP_DOWN_PYRAMID_SIZE, norm if config.FPN_NORM else None)
    rpn = build_rpn_model(
        int(config.RPN_ANCHOR_STRIDE),
        len(config.RPN_ANCHOR_RATIOS),
        config.TOP_DOWN_PYRAMID_SIZE,
        config.RPN_CHANNELS,
        config.RPN_CONVOLUTIONS,
        config.conventions().objectness_logit,
    )
    return (pyramid, *apply_rpn(rpn, pyramid))


def anchors(image: Tensor, config: Config) -> Tensor:
    """Compute the normalized anchors [B, A, 4] of all levels."""
    half_open = config.conventions().half_open_boxes
    return Anchors(**_anchor_settings(config), half_open=half_open, name="anchors")(image)


def _anchor_settings(config: Config) -> dict[str, Any]:
    conventions = config.conventions()
    return {
        "scales": config.RPN_ANCHOR_SCALES,
        "ratios": config.RPN_ANCHOR_RATIOS,
        "strides": config.BACKBONE_STRIDES,
        "anchor_stride": config.RPN_ANCHOR_STRIDE,
        "rounded": conventions.rounded_anchors,
        "fill_image": conventions.anchors_fill_image,
    }


def proposals(
    rpn: tuple[Tensor, Tensor, Tensor],
    anchors: Tensor,
    pyramid: list[Tensor],
    image_meta: Tensor,
    config: Config,
    training: bool,
) -> Tensor:
    """Compute proposals [B, N, 4] from the logits, scores and deltas of the RPN."""
    logits, scores, deltas = rpn
    conventions = config.conventions()
    limit = config.PRE_NMS_LIMIT_TRAINING if training else None
    count = config.POST_NMS_ROIS_TRAINING if training else config.POST_NMS_ROIS_INFERENCE
    settings: dict[str, Any] = {
        "proposal_count": count,
        "nms_threshold": config.RPN_NMS_THRESHOLD,
        "pre_nms_limit": limit or config.PRE_NMS_LIMIT,
        "bbox_std_dev": config.RPN_BBOX_STD_DEV,
        "name": "ROI",
    }
    if not conventions.proposals_per_level:
        return ProposalLayer(**settings)([scores, deltas, anchors])
    layer = LevelProposalLayer(
        **settings,
        anchor_stride=config.RPN_ANCHOR_STRIDE,
        delta_limit=conventions.delta_limit,
        min_side=conventions.min_proposal_side,
    )
    return layer([logits, deltas, anchors, image_meta, *pyramid])


def box_head(
    rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """Build the box head; see `mrcnn.network.heads.box_head`."""
    return heads.box_head(
        rois,
        pyramid[:4],
        image_meta,
        config.POOL_SIZE,
        int(config.NUM_CLASSES),
        train_bn=head_train_bn(config),
        fc_layers_size=config.FPN_CLASSIF_FC_LAYERS_SIZE,
        norm=norm_layers(config, head_train_bn(config)),
        convolutions=config.BOX_HEAD_CONVOLUTIONS,
        norm_after=config.HEAD_NORM,
        roi_align=config.conventions().roi_align,
    )


def detection_layer(config: Config) -> DetectionLayer:
    """Return the layer that turns the outputs of the box head into detections."""
    conventions = config.conventions()
    return DetectionLayer(
        per_class=conventions.detections_per_class,
        half_open_boxes=conventions.half_open_boxes,
        delta_limit=conventions.delta_limit,
        min_side=conventions.min_detection_side,
        bbox_std_dev=config.BBOX_STD_DEV,
        min_confidence=config.DETECTION_MIN_CONFIDENCE,
        nms_threshold=config.DETECTION_NMS_THRESHOLD,
        max_instances=config.DETECTION_MAX_INSTANCES,
        soft_nms_sigma=config.SOFT_NMS_SIGMA,
        name="mrcnn_detection",
    )


def mask_head(rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config: Config) -> Tensor:
    """Build the mask head; see `mrcnn.network.heads.mask_head`."""
    return heads.mask_head(
        rois,
        pyramid[:4],
        image_meta,
        config.MASK_POOL_SIZE,
        int(config.NUM_CLASSES),
        train_bn=head_train_bn(config),
        channels=config.MASK_HEAD_CHANNELS,
        norm=norm_layers(config, head_train_bn(config)),
        norm_after=config.HEAD_NORM,
        roi_align=config.conventions().roi_align,
    )


def _seed(config: Config) -> int | None:
    """Return the seed of layers that sample, for which Keras takes no integer of NumPy."""
    return None if config.SEED is None else int(config.SEED)


def roi_targets(inputs: dict[str, Tensor], proposals: Tensor, config: Config) -> list[Tensor]:
    """Sample RoIs from the proposals, or from `input_roi` without USE_RPN_ROIS, and compute their targets."""
    conventions = config.conventions()
    normalize = NormBoxes(half_open=conventions.half_open_boxes, name="norm_gt_boxes")
    image = inputs["input_image"]
    if not config.USE_RPN_ROIS:
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
        negatives_without_objects=config.TRAIN_ON_EMPTY_IMAGES is not False,
        negatives_fill=conventions.negatives_fill,
        mask_method=conventions.roi_align,
        soft_masks=conventions.soft_mask_targets,
        max_instances=config.MAX_GT_INSTANCES,
        seed=_seed(config),
        name="proposal_targets",
    )
    gt_boxes = normalize([inputs["input_gt_boxes"], image])
    return list(layer([proposals, inputs["input_gt_class_ids"], gt_boxes, inputs["input_gt_masks"]]))


def rpn_targets(inputs: dict[str, Tensor], config: Config) -> list[Tensor]:
    """Compute the targets of the RPN, or read them from the inputs if RPN_TARGETS_IN_GRAPH is False."""
    if config.RPN_TARGETS_IN_GRAPH:
        layer = RpnTargetLayer(
            **_anchor_settings(config),
            positive_iou=config.RPN_POSITIVE_IOU,
            negative_iou=config.RPN_NEGATIVE_IOU,
            crowd_iou=config.CROWD_IOU,
            anchors_per_image=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
            bbox_std_dev=config.RPN_BBOX_STD_DEV,
            seed=_seed(config),
            name="rpn_targets",
        )
        return list(layer([inputs[f"input_{name}"] for name in ("image", "gt_class_ids", "gt_boxes")]))
    # Keras before 3.14 wants every input to pass through a layer.
    return [
        layers.Identity(name=f"target_{name}", dtype="float32")(inputs[f"input_{name}"])
        for name in ("rpn_match", "rpn_bbox")
    ]


def mask_slot_count(config: Config) -> int:
    """Return how many leading RoIs of each image the mask head takes: the slots of positives, or all.

    MASK_POSITIVES_ONLY = None means positives only unless batch norm needs the statistics of all RoIs.
    """
    positives_only: Any = config.MASK_POSITIVES_ONLY
    if positives_only is None:
        no_norm = config.HEAD_NORM == "none"
        positives_only = config.TRAIN_BN is False or config.NORM == "group" or no_norm
    if positives_only:
        return int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO)
    return config.TRAIN_ROIS_PER_IMAGE


def image_inputs(config: Config) -> dict[str, Tensor]:
    """Create the inputs for molded images [B, H, W, channels] and their meta [B, 12 + classes], both float32.

    H and W are None unless IMAGE_RESIZE_MODE fixes them.
    """
    fixed = config.IMAGE_RESIZE_MODE in ("square", "crop")
    height, width = (int(side) for side in config.IMAGE_SHAPE[:2]) if fixed else (None, None)
    return {
        "input_image": keras.Input((height, width, config.IMAGE_CHANNEL_COUNT), name="input_image"),
        "input_image_meta": keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta"),
    }


def ground_truth_inputs(config: Config) -> dict[str, Tensor]:
    """Create the inputs for class ids [B, N], boxes [B, N, 4] in pixels, and (mini-)masks [B, h, w, M].

    RPN_TARGETS_IN_GRAPH = False adds the targets of the RPN, match [B, A, 1] and deltas [B, K, 4] of the K
    positive anchors. USE_RPN_ROIS = False adds RoIs [B, POST_NMS_ROIS_TRAINING, 4] in pixels.
    """
    fixed = config.IMAGE_RESIZE_MODE in ("square", "crop")
    whole = tuple(int(side) for side in config.IMAGE_SHAPE[:2]) if fixed else (None, None)
    mask_size = config.MINI_MASK_SHAPE if config.USE_MINI_MASK else whole
    inputs = {
        "input_gt_class_ids": keras.Input((None,), dtype="int32", name="input_gt_class_ids"),
        "input_gt_boxes": keras.Input((None, 4), name="input_gt_boxes"),
        "input_gt_masks": keras.Input((*mask_size, None), dtype="bool", name="input_gt_masks"),
    }
    if not config.RPN_TARGETS_IN_GRAPH:
        inputs["input_rpn_match"] = keras.Input((None, 1), dtype="int32", name="input_rpn_match")
        inputs["input_rpn_bbox"] = keras.Input((None, 4), name="input_rpn_bbox")
    if not config.USE_RPN_ROIS:
        rois = (config.POST_NMS_ROIS_TRAINING, 4)
        inputs["input_roi"] = keras.Input(rois, dtype="int32", name="input_roi")
    return inputs

"""The figure of the paper on one page: the training graph and the inference graph.

image -> backbone -> feature pyramid -> RPN -> proposals -> (targets ->) ROI Align -> box head, mask head.
This is the only place of the network that reads a Config. Weights are shared by layer name.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from mrcnn.fast.sparse_rpn_gradient import RpnGradient
from mrcnn.network import box_ops, heads
from mrcnn.network.anchors import Anchors
from mrcnn.network.backbone import backbone_stages
from mrcnn.network.detection_targets import DetectionTargetLayer
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.rpn import build_rpn_model
from mrcnn.network.rpn_targets import RpnTargetLayer

Tensor = Any


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs of a graph, by name and in the original's order."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def image_input(config) -> Tensor:
    """The image [B, H, W, channels] float32, mean subtracted. H and W are known if the mode fixes them."""
    fixed = config.IMAGE_RESIZE_MODE in ("square", "crop")
    height, width = (int(side) for side in config.IMAGE_SHAPE[:2]) if fixed else (None, None)
    return keras.Input((height, width, config.IMAGE_CHANNEL_COUNT), name="input_image")


def meta_input(config) -> Tensor:
    """The image meta [B, 12 + classes] float32."""
    return keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta")


def region_proposals(image: Tensor, config) -> tuple[list[Tensor], keras.Model, list[Tensor]]:
    """Backbone, pyramid and RPN.

    Returns P2 to P6, the RPN's head, and its logits [B, A, 2], probabilities [B, A, 2] and deltas [B, A, 4]
    of all anchors in the order P2 to P6.
    """
    stages = backbone_stages(image, config.BACKBONE, config.TRAIN_BN, config.NORM)
    pyramid = feature_pyramid(stages, config.TOP_DOWN_PYRAMID_SIZE)
    rpn = build_rpn_model(
        config.RPN_ANCHOR_STRIDE,
        len(config.RPN_ANCHOR_RATIOS),
        config.TOP_DOWN_PYRAMID_SIZE,
        config.RPN_CHANNELS,
    )
    levels = [rpn(level) for level in pyramid]
    names = ("rpn_class_logits", "rpn_class", "rpn_bbox")
    joined = [
        layers.Concatenate(axis=1, dtype="float32", name=name)(list(parts))
        for name, parts in zip(names, zip(*levels, strict=True), strict=True)
    ]
    return pyramid, rpn, joined


def _box_head(rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config) -> tuple:
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


def _mask_head(rois: Tensor, pyramid: list[Tensor], image_meta: Tensor, config) -> Tensor:
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


def training_graph(config, open_places: bool = False) -> Graph:
    """An image with its truth, and what the losses need.

    Inputs: input_image, input_image_meta, input_gt_class_ids [B, N], input_gt_boxes [B, N, 4] and
    input_gt_masks [B, h, w, M]; besides input_rpn_match and input_rpn_bbox without RPN_TARGETS_IN_GRAPH, and
    input_roi without USE_RPN_ROIS. gt_boxes and input_roi are pixels of the molded image. The first stage
    learns from all N objects, the second from the M that have a mask. Outputs mrcnn_mask and
    target_mask hold the places of positives only (the first of each image) if MASK_POSITIVES_ONLY says so.
    open_places: leave out places that no image of the batch fills, too, where that changes no number; for
    execution without XLA, which needs to know all sizes beforehand.
    """
    image, image_meta = image_input(config), meta_input(config)
    inputs = {"input_image": image, "input_image_meta": image_meta, **_truth_inputs(image, config)}
    rpn_match, rpn_bbox = _rpn_targets(inputs, config)
    pyramid, rpn, (rpn_logits, rpn_probs, rpn_deltas) = region_proposals(image, config)
    targets = DetectionTargetLayer(config, name="proposal_targets", seed=config.SEED)
    few = config.RPN_TRAIN_ANCHORS_PER_IMAGE + targets.max_positives
    rpn_gradient = RpnGradient(
        rpn, config.RPN_ANCHOR_STRIDE, len(config.RPN_ANCHOR_RATIOS), most=few, name="rpn_gradient"
    )
    rpn_logits, rpn_deltas = rpn_gradient([rpn_logits, rpn_deltas, *pyramid])
    normalize = NormBoxes(name="norm_gt_boxes")
    anchors = Anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
        name="anchors",
    )(image)
    rpn_rois = ProposalLayer(
        config.POST_NMS_ROIS_TRAINING, config.RPN_NMS_THRESHOLD, config=config, name="ROI"
    )([rpn_probs, rpn_deltas, anchors])
    proposals = rpn_rois
    if not config.USE_RPN_ROIS:
        shape = (config.POST_NMS_ROIS_TRAINING, 4)
        inputs["input_roi"] = keras.Input(shape, dtype="int32", name="input_roi")
        proposals = normalize([inputs["input_roi"], image])
    rois, class_ids, bbox, masks = targets(
        [
            proposals,
            inputs["input_gt_class_ids"][:, : config.MAX_GT_INSTANCES],
            normalize([inputs["input_gt_boxes"][:, : config.MAX_GT_INSTANCES], image]),
            inputs["input_gt_masks"],
        ]
    )
    logits, probs, deltas = _box_head(rois, pyramid, image_meta, config)
    mask_places = targets.max_positives if _masks_of_positives_only(config) else config.TRAIN_ROIS_PER_IMAGE
    mask_rois, target_masks = rois[:, :mask_places], masks[:, :mask_places]
    if open_places and _roi_statistics_are_fixed(config):
        mask_rois, target_masks = FilledPlaces(name="filled_places")([class_ids, mask_rois, target_masks])
    pred_masks = _mask_head(mask_rois, pyramid, image_meta, config)
    outputs = {
        "rpn_class_logits": rpn_logits,
        "rpn_class": ops.stop_gradient(rpn_probs),
        "rpn_bbox": rpn_deltas,
        "mrcnn_class_logits": logits,
        "mrcnn_class": probs,
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


def _truth_inputs(image: Tensor, config) -> dict[str, Tensor]:
    """The objects of each image: class ids, boxes in pixels, masks whole or mini."""
    mask_size = config.MINI_MASK_SHAPE if config.USE_MINI_MASK else tuple(image.shape[1:3])
    return {
        "input_gt_class_ids": keras.Input((None,), dtype="int32", name="input_gt_class_ids"),
        "input_gt_boxes": keras.Input((None, 4), name="input_gt_boxes"),
        "input_gt_masks": keras.Input((*mask_size, None), dtype="bool", name="input_gt_masks"),
    }


def _masks_of_positives_only(config) -> bool:
    """MASK_POSITIVES_ONLY; None: unless the statistics of batch norm need the other RoIs."""
    if config.MASK_POSITIVES_ONLY is None:
        return _roi_statistics_are_fixed(config)
    return config.MASK_POSITIVES_ONLY


def _roi_statistics_are_fixed(config) -> bool:
    """Whether the mask head treats each RoI by itself: no batch norm with the statistics of all."""
    return config.TRAIN_BN is False or config.NORM == "group"


def _rpn_targets(inputs: dict[str, Tensor], config) -> list[Tensor]:
    """The RPN's targets, made of the truth or, without RPN_TARGETS_IN_GRAPH, two more inputs."""
    if config.RPN_TARGETS_IN_GRAPH:
        targets = RpnTargetLayer(config, name="rpn_targets", seed=config.SEED)
        return list(targets([inputs[f"input_{name}"] for name in ("image", "gt_class_ids", "gt_boxes")]))
    given = {
        "input_rpn_match": keras.Input((None, 1), dtype="int32", name="input_rpn_match"),
        "input_rpn_bbox": keras.Input((None, 4), name="input_rpn_bbox"),
    }
    inputs |= given
    # Keras before 3.14 wants every input to lead to an output by way of a layer.
    return [
        layers.Identity(name=name.replace("input", "target"), dtype="float32")(x) for name, x in given.items()
    ]


def inference_graph(config) -> Graph:
    """Three inputs; the original's seven outputs; RPN logits and the pyramid P2 to P6 besides.

    input_anchors are normalised. mrcnn_mask holds every detection's mask for every class.
    """
    image, image_meta = image_input(config), meta_input(config)
    anchors = keras.Input((None, 4), name="input_anchors")
    inputs = {"input_image": image, "input_image_meta": image_meta, "input_anchors": anchors}
    pyramid, _, (rpn_logits, rpn_probs, rpn_deltas) = region_proposals(image, config)
    rpn_rois = ProposalLayer(
        config.POST_NMS_ROIS_INFERENCE, config.RPN_NMS_THRESHOLD, config=config, name="ROI"
    )([rpn_probs, rpn_deltas, anchors])
    _, probs, deltas = _box_head(rpn_rois, pyramid, image_meta, config)
    detections = DetectionLayer(config, name="mrcnn_detection")([rpn_rois, probs, deltas, image_meta])
    masks = _mask_head(detections[..., :4], pyramid, image_meta, config)
    outputs = {
        "mrcnn_detection": detections,
        "mrcnn_class": probs,
        "mrcnn_bbox": deltas,
        "mrcnn_mask": masks,
        "ROI": rpn_rois,
        "rpn_class": rpn_probs,
        "rpn_bbox": rpn_deltas,
        "rpn_class_logits": rpn_logits,
        "P2": pyramid[0],
        "P3": pyramid[1],
        "P4": pyramid[2],
        "P5": pyramid[3],
        "P6": pyramid[4],
    }
    return Graph(inputs, outputs)


def own_mask_graph(model: keras.Model, config) -> Graph:
    """The mask head alone, with the weights of an inference model, for each detection's own class.

    Inputs: P2 to P5, input_image_meta, detections [B, K, 6]. Output: mrcnn_mask [B, K, 28, 28].
    """
    channels = config.TOP_DOWN_PYRAMID_SIZE
    dtype = model.get_layer("roi_align_mask").compute_dtype  # half floats in mixed precision
    maps = [keras.Input((None, None, channels), dtype=dtype, name=f"P{level}") for level in range(2, 6)]
    image_meta = meta_input(config)
    detections = keras.Input((None, 6), name="detections")
    x = model.get_layer("roi_align_mask")([detections[..., :4], image_meta, *maps])
    for number in range(1, 5):
        x = model.get_layer(f"mrcnn_mask_conv{number}")(x)
        x = ops.relu(model.get_layer(f"mrcnn_mask_bn{number}")(x))
    x = model.get_layer("mrcnn_mask_deconv")(x)
    masks = OwnClassMasks(model.get_layer("mrcnn_mask"))([x, detections])
    inputs = {f"P{level}": tensor for level, tensor in zip(range(2, 6), maps, strict=True)}
    inputs |= {"input_image_meta": image_meta, "detections": detections}
    return Graph(inputs, {"mrcnn_mask": masks})


class NormBoxes(layers.Layer):
    """Pixel boxes [B, N, 4] to normalised ones, by the size of the images [B, H, W, channels]."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs):
        boxes, images = inputs
        return box_ops.norm_boxes(boxes, ops.shape(images)[1:3])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, "float32")


class FilledPlaces(layers.Layer):
    """The first K places of each image, K the largest number of positives of an image, at least 1.

    Call with [class_ids int [B, R], 0 behind the positives; and any tensors [B, M, ...], K <= M <= R].
    Returns those tensors as [B, K, ...].
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})

    def call(self, inputs):
        class_ids, *tensors = inputs
        positives = ops.sum(ops.cast(class_ids > 0, "int32"), axis=1)
        places = ops.maximum(ops.max(positives), 1)
        return [tensor[:, :places] for tensor in tensors]

    def compute_output_spec(self, inputs):
        return [keras.KerasTensor((x.shape[0], None, *x.shape[2:]), x.dtype) for x in inputs[1:]]


class OwnClassMasks(layers.Layer):
    """The mask head's last layer for each detection's own class: [features, detections] -> [B, K, h, w]."""

    def __init__(self, mask_layer: heads.RoiConv2D, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mask_layer = mask_layer

    def call(self, inputs):
        features, detections = inputs
        return self.mask_layer.own_channel(features, ops.cast(detections[..., 4], "int32"))

    def compute_output_shape(self, input_shape):
        return input_shape[0][:4]

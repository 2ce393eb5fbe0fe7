"""Build Mask R-CNN as an ONNX graph of native operators that computes the same as the inference network.

The writer reads the weights of a Keras model, so it works on every backend and only needs the package `onnx`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mrcnn.backend import to_numpy
from mrcnn.export.onnx_canvas import Canvas, anchors, canvas, to_pixels
from mrcnn.export.onnx_detections import Detected, best_class, every_class, suppress
from mrcnn.export.onnx_graph import GraphBuilder, Name
from mrcnn.export.onnx_layers import LayerWriter
from mrcnn.export.onnx_proposals import level_proposals, proposals
from mrcnn.export.onnx_roi_align import roi_align
from mrcnn.runtime.metadata import INPUT, KEY, Metadata

if TYPE_CHECKING:
    from mrcnn.config import Config


def onnx_model(model: keras.Model, config: "Config", metadata: Metadata) -> Any:
    """Return the graph of an inference model.

    Args:
        model: The Keras model of `graphs.inference_graph`, on molded images.
        config: Its Config.
        metadata: The description of the file, with the size of its canvas.

    Returns:
        `onnx.ModelProto` with the input and the outputs of `mrcnn.export`.

    Raises:
        ValueError: If the network has a layer that cannot be written, or SOFT_NMS_SIGMA is set.
    """
    if config.SOFT_NMS_SIGMA is not None:
        raise ValueError(
            'The formats "onnx" and "openvino" have no operator for Soft-NMS. Received: '
            f"SOFT_NMS_SIGMA={config.SOFT_NMS_SIGMA}. Set it to None, or export with format="
            '"saved_model", "litert" or "torch".'
        )
    builder = GraphBuilder()
    writer = LayerWriter(builder)
    on = canvas(
        builder,
        INPUT,
        size=metadata.canvas,
        multiple=metadata.multiple,
        mean=np.asarray(config.MEAN_PIXEL, np.float32),
        centered=metadata.padding == "center",
        half_open=config.conventions().half_open_boxes,
    )
    maps, boxes, images = _first_stage(builder, writer, model, config, on)
    roi_align_layer = model.get_layer("roi_align_classifier")
    features = _pool(builder, roi_align_layer, boxes, images, maps[:4], on)
    scores, deltas = writer.write(
        [model.get_layer("mrcnn_class").output, model.get_layer("mrcnn_bbox").output],
        {id(roi_align_layer.output): features},
        of_rois=True,
    )
    found = _detections(builder, boxes, images, scores, deltas, on, config)
    masks = _own_masks(builder, writer, model, maps[:4], on, found)
    return _finish(builder, config, metadata, on, found, masks)


def _first_stage(
    builder: GraphBuilder, writer: LayerWriter, model: keras.Model, config: "Config", on: Canvas
) -> tuple[list[Name], Name, Name]:
    """Return P2 to P6, and the normalized boxes [R, 4] and images [R] of the proposals."""
    conventions = config.conventions()
    per_level = conventions.proposals_per_level
    _, _, *pyramid = model.get_layer("roi_align_classifier").input
    pyramid = [*pyramid, model.get_layer("fpn_p6").output]
    image = builder.op("Transpose", on.pixels, perm=[0, 3, 1, 2])
    scores_layer = "rpn_class_logits" if per_level else "rpn_class"
    scores, deltas, *maps = writer.write(
        [model.get_layer(scores_layer).output, model.get_layer("rpn_bbox").output, *pyramid],
        {id(model.inputs[0]): image},
    )
    boxes = anchors(
        builder,
        on,
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
        rounded=conventions.rounded_anchors,
        fill_image=conventions.anchors_fill_image,
    )
    settings: dict[str, Any] = {
        "bbox_std_dev": config.RPN_BBOX_STD_DEV,
        "pre_nms_limit": config.PRE_NMS_LIMIT,
        "count": config.POST_NMS_ROIS_INFERENCE,
        "nms_threshold": float(config.RPN_NMS_THRESHOLD),
    }
    if not per_level:
        return maps, *proposals(builder, scores, deltas, boxes, **settings)
    settings |= {
        "anchor_stride": config.RPN_ANCHOR_STRIDE,
        "ratios": len(config.RPN_ANCHOR_RATIOS),
        "delta_limit": conventions.delta_limit,
        "min_side": conventions.min_proposal_side,
    }
    return maps, *level_proposals(builder, scores, deltas, boxes, maps, on, **settings)


def _pool(
    builder: GraphBuilder, layer: Any, boxes: Name, images: Name, maps: Sequence[Name], on: Canvas
) -> Name:
    """Pool features [R, C, h, w] as a layer PyramidROIAlign does."""
    return roi_align(builder, boxes, images, maps, on, bins=layer.pool_shape, method=layer.method)


def _detections(
    builder: GraphBuilder, boxes: Name, images: Name, scores: Name, deltas: Name, on: Canvas, config: "Config"
) -> Detected:
    conventions = config.conventions()
    settings: dict[str, Any] = {
        "bbox_std_dev": config.BBOX_STD_DEV,
        "min_confidence": float(config.DETECTION_MIN_CONFIDENCE or 0.0),
    }
    if conventions.detections_per_class:
        limits: dict[str, Any] = {
            "delta_limit": conventions.delta_limit,
            "min_side": conventions.min_detection_side,
        }
        found = every_class(builder, boxes, images, scores, deltas, on, **settings, **limits)
    else:
        found = best_class(builder, boxes, images, scores, deltas, on, **settings)
    return suppress(
        builder,
        found,
        builder.size(INPUT, 0),
        num_classes=config.NUM_CLASSES,
        nms_threshold=float(config.DETECTION_NMS_THRESHOLD),
        max_instances=config.DETECTION_MAX_INSTANCES,
    )


def _own_masks(
    builder: GraphBuilder,
    writer: LayerWriter,
    model: keras.Model,
    maps: Sequence[Name],
    on: Canvas,
    found: Detected,
) -> Name:
    """Return each detection's mask for its own class, [B, D, h, w]; see `mrcnn.inference.mask_branch`."""
    pooling, last = model.get_layer("roi_align_mask"), model.get_layer("mrcnn_mask")
    slots = builder.op("Shape", found.class_ids)
    row = builder.op("Unsqueeze", builder.count_up(builder.size(found.class_ids, 0)), [1])
    images = builder.op("Reshape", builder.op("Expand", row, slots), [-1])
    rois = builder.op("Reshape", found.boxes, [-1, 4])
    features = _pool(builder, pooling, rois, images, maps, on)
    (features,) = writer.write([last.input], {id(pooling.output): features}, of_rois=True)

    kernel, bias = (to_numpy(weight) for weight in (last.kernel, last.bias))
    class_ids = builder.op("Reshape", found.class_ids, [-1])
    own_kernel = builder.op("Unsqueeze", builder.op("Gather", kernel[0, 0].T, class_ids), [1])
    own_bias = builder.op("Gather", bias.reshape(-1, 1, 1), class_ids)
    height, width = (2 * side for side in pooling.pool_shape)
    flat = builder.op("Reshape", features, [0, 0, height * width])
    logits = builder.op("Add", builder.op("MatMul", own_kernel, flat), own_bias)
    shape = builder.op("Concat", slots, np.array([height, width]), axis=0)
    return builder.op("Reshape", builder.op("Sigmoid", logits), shape)


def _finish(
    builder: GraphBuilder,
    config: "Config",
    metadata: Metadata,
    on: Canvas,
    found: Detected,
    masks: Name,
) -> Any:
    """Return the graph with its input, outputs and metadata. Unused slots are zero."""
    is_used = builder.op("Greater", found.class_ids, np.int64(0))
    boxes = to_pixels(builder, found.boxes, on)
    boxes = builder.op("Where", builder.op("Unsqueeze", is_used, [2]), boxes, 0.0)
    masks = builder.op("Where", builder.op("Unsqueeze", is_used, [2, 3]), masks, 0.0)
    class_ids, counts = (builder.cast(x, "int32") for x in (found.class_ids, found.counts))
    height, width = metadata.size or ("height", "width")
    sides = [int(side) for side in config.MASK_SHAPE]
    return builder.model(
        {INPUT: (metadata.dtype, ("batch", height, width, int(config.IMAGE_CHANNEL_COUNT)))},
        {
            "boxes": (boxes, "float32", ("batch", "detections", 4)),
            "class_ids": (class_ids, "int32", ("batch", "detections")),
            "scores": (found.scores, "float32", ("batch", "detections")),
            "masks": (masks, "float32", ("batch", "detections", *sides)),
            "count": (counts, "int32", ("batch",)),
        },
        {KEY: metadata.to_json()},
        metadata.version,
    )

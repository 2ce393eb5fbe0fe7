"""Build detections from the ONNX operators NonMaxSuppression, for every class, and TopK.

Axes: B images, R RoIs of all images, N boxes of all images, D slots for detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.export.onnx_canvas import Canvas, apply_box_deltas, clip_boxes, large_enough
from mrcnn.export.onnx_graph import GraphBuilder, Name


@dataclass(frozen=True)
class Candidates:
    """Boxes before non-maximum suppression.

    Attributes:
        boxes: Normalized float32 [N, 4].
        images: The image of each, int64 [N].
        class_ids: int64 [N].
        scores: float32 [N].
        eligible: bool [N], whether a box may become a detection.
    """

    boxes: Name
    images: Name
    class_ids: Name
    scores: Name
    eligible: Name


@dataclass(frozen=True)
class Detected:
    """Detections by descending score; unused slots are zero.

    Attributes:
        boxes: Normalized float32 [B, D, 4].
        class_ids: int64 [B, D].
        scores: float32 [B, D].
        counts: int64 [B], the number of detections.
    """

    boxes: Name
    class_ids: Name
    scores: Name
    counts: Name


def best_class(
    builder: GraphBuilder,
    boxes: Name,
    images: Name,
    scores: Name,
    deltas: Name,
    on: Canvas,
    *,
    bbox_std_dev: Sequence[float],
    min_confidence: float,
) -> Candidates:
    """Return one box per RoI, of its best class; see `mrcnn.network.detections.refine_detections`.

    Args:
        builder: The graph.
        boxes, images: RoIs and their images.
        scores: [R, classes].
        deltas: [R, classes, 4].
        on: The canvas.
        bbox_std_dev, min_confidence: Arguments of the layer.
    """
    class_ids = builder.op("ArgMax", scores, axis=1, keepdims=0)
    best = builder.op("ReduceMax", scores, axes=[1], keepdims=0)
    own = builder.op("GatherND", deltas, builder.op("Unsqueeze", class_ids, [1]), batch_dims=1)
    own = builder.op("Mul", own, np.asarray(bbox_std_dev, np.float32))
    boxes = clip_boxes(builder, apply_box_deltas(builder, boxes, own), on.window)
    eligible = builder.op("Greater", class_ids, np.int64(0))
    if min_confidence:
        eligible = builder.op("And", eligible, builder.op("GreaterOrEqual", best, float(min_confidence)))
    return Candidates(boxes, images, class_ids, best, eligible)


def every_class(
    builder: GraphBuilder,
    boxes: Name,
    images: Name,
    scores: Name,
    deltas: Name,
    on: Canvas,
    *,
    bbox_std_dev: Sequence[float],
    min_confidence: float,
    delta_limit: float | None,
    min_side: float,
) -> Candidates:
    """Return a box for each RoI and class whose score is high enough; see `refine_detections_per_class`.

    The arguments are those of `best_class`.
    """
    objects = builder.op("Slice", scores, [1], [np.iinfo(np.int32).max], [1])
    place = builder.op("NonZero", builder.op("GreaterOrEqual", objects, float(min_confidence)))  # [2, N]
    # One extra box that is not eligible, because some runtimes cannot run NMS without boxes.
    place = builder.op("Concat", place, np.zeros((2, 1), np.int64), axis=1)
    roi, class_ids = (
        builder.part(place, 0, axis=0),
        builder.op("Add", builder.part(place, 1, axis=0), np.int64(1)),
    )
    index = builder.stack([roi, class_ids])
    own = builder.op("Mul", builder.op("GatherND", deltas, index), np.asarray(bbox_std_dev, np.float32))
    boxes = apply_box_deltas(builder, builder.op("Gather", boxes, roi), own, delta_limit)
    boxes = clip_boxes(builder, boxes, on.window)
    last = builder.op("Sub", builder.size(roi, 0), [1])
    is_real = builder.op("Less", builder.count_up(builder.size(roi, 0)), last)
    eligible = builder.op("And", large_enough(builder, boxes, on, min_side), is_real)
    score = builder.op("GatherND", scores, index)
    return Candidates(boxes, builder.op("Gather", images, roi), class_ids, score, eligible)


def suppress(
    builder: GraphBuilder,
    found: Candidates,
    batch: Name,
    *,
    num_classes: int,
    nms_threshold: float,
    max_instances: int,
) -> Detected:
    """Return the best boxes of each image after NMS within each class.

    Args:
        builder: The graph.
        found: The boxes.
        batch: B, int64 [1].
        num_classes: Classes including the background.
        nms_threshold, max_instances: Arguments of the layer.
    """
    boxes, images, class_ids, scores = found.boxes, found.images, found.class_ids, found.scores
    # One class of NonMaxSuppression for each class of each image; a box takes part in its own alone.
    group = builder.op("Add", builder.op("Mul", images, np.int64(num_classes)), class_ids)
    groups = builder.count_up(builder.op("Mul", batch, [num_classes]))
    is_own = builder.op("Equal", builder.op("Unsqueeze", groups, [1]), builder.op("Unsqueeze", group, [0]))
    by_group = builder.op("Where", builder.op("And", is_own, found.eligible), scores, -1.0)
    selected = builder.op(
        "NonMaxSuppression",
        builder.op("Unsqueeze", boxes, [0]),
        builder.op("Unsqueeze", by_group, [0]),
        [max_instances],
        nms_threshold,
        0.0,
    )
    kept = builder.part(selected, 2)

    # The best of all classes: the scores of kept boxes, in one row per image.
    nothing = builder.op("Expand", -1.0, builder.op("Shape", scores))
    left = builder.op("ScatterElements", nothing, kept, builder.op("Gather", scores, kept), axis=0)
    is_in = builder.op(
        "Equal", builder.op("Unsqueeze", builder.count_up(batch), [1]), builder.op("Unsqueeze", images, [0])
    )
    rows = builder.op("Where", is_in, left, -1.0)
    limit = builder.op("Min", builder.size(rows, 1), [max_instances])
    top, index = builder.multi("TopK", 2, rows, limit, axis=1)
    is_used = builder.op("Greater", top, 0.0)
    counts = builder.op("ReduceSum", builder.cast(is_used, "int64"), [1], keepdims=0)
    # At least one slot, because some runtimes cannot run layers on nothing.
    slots = builder.op("Max", builder.op("ReduceMax", counts, keepdims=1), [1])
    top, index = (builder.op("Slice", x, [0], slots, [1]) for x in (top, index))
    is_used = builder.op("Greater", top, 0.0)
    return Detected(
        builder.op("Where", builder.op("Unsqueeze", is_used, [2]), builder.op("Gather", boxes, index), 0.0),
        builder.op("Where", is_used, builder.op("Gather", class_ids, index), np.int64(0)),
        builder.op("Where", is_used, top, 0.0),
        counts,
    )

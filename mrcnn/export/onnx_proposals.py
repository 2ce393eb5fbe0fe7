"""Proposals as ONNX operators: TopK and NonMaxSuppression.

Axes: B images, A anchors, K anchors before NMS, R RoIs of all images.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.export.onnx_canvas import Canvas, apply_box_deltas, clip_boxes, large_enough
from mrcnn.export.onnx_graph import GraphBuilder, Name

# The score of what takes no part, and the threshold above it.
NEVER, ABOVE_NEVER = -3e38, -1e38


def proposals(
    builder: GraphBuilder,
    scores: Name,
    deltas: Name,
    anchors: Name,
    *,
    bbox_std_dev: Sequence[float],
    pre_nms_limit: int,
    count: int,
    nms_threshold: float,
) -> tuple[Name, Name]:
    """Return the RoIs of all images; see `mrcnn.network.proposals`.

    Args:
        builder: The graph.
        scores: [B, A, (background, foreground)].
        deltas: [B, A, 4].
        anchors: [A, 4].
        bbox_std_dev, pre_nms_limit, nms_threshold: As the layer takes them.
        count: Proposals per image.

    Returns:
        Normalized boxes float32 [R, 4], and the image of each, int64 [R].
    """
    foreground = builder.part(scores, 1)
    limit = builder.op("Min", builder.size(foreground, 1), [pre_nms_limit])
    _, best = builder.multi("TopK", 2, foreground, limit, axis=1)
    boxes = _refined(builder, anchors, deltas, best, bbox_std_dev)
    boxes = builder.op("Clip", boxes, 0.0, 1.0)
    # Boxes are sorted. Their rank as the score keeps this order among equal scores in every runtime.
    rank = builder.cast(builder.op("Sub", limit, builder.count_up(limit)), "float32")
    rank = builder.op("Expand", rank, builder.shape(builder.size(boxes, 0), 1, limit))
    selected = builder.op("NonMaxSuppression", boxes, rank, [count], nms_threshold)
    image, row = builder.part(selected, 0), builder.part(selected, 2)
    return builder.op("GatherND", boxes, builder.stack([image, row])), image


def level_proposals(
    builder: GraphBuilder,
    logits: Name,
    deltas: Name,
    anchors: Name,
    maps: Sequence[Name],
    on: Canvas,
    *,
    bbox_std_dev: Sequence[float],
    pre_nms_limit: int,
    count: int,
    nms_threshold: float,
    anchor_stride: int,
    ratios: int,
    delta_limit: float | None,
    min_side: float,
) -> tuple[Name, Name]:
    """Return the RoIs of all images; see `mrcnn.network.level_proposals`.

    Args:
        builder: The graph.
        logits: [B, A, (background, foreground)].
        deltas: [B, A, 4].
        anchors: [A, 4].
        maps: P2 to P6, each [B, C, h, w].
        on: The canvas.
        bbox_std_dev, pre_nms_limit, nms_threshold, anchor_stride, delta_limit, min_side: As the layer takes
            them.
        count: Proposals per image.
        ratios: Anchors per location.

    Returns:
        As `proposals`.
    """
    scores = builder.op("Sub", builder.part(logits, 1), builder.part(logits, 0))
    start = builder.constant([0])
    indices, values, levels = [], [], []
    for level, level_map in enumerate(maps):
        sides = [
            builder.op(
                "Div", builder.op("Add", builder.size(level_map, axis), [anchor_stride - 1]), [anchor_stride]
            )
            for axis in (2, 3)
        ]
        size = builder.op("Mul", builder.op("Mul", *sides), [ratios])
        end = builder.op("Add", start, size)
        limit = builder.op("Min", size, [pre_nms_limit])
        value, index = builder.multi("TopK", 2, builder.op("Slice", scores, start, end, [1]), limit, axis=1)
        values.append(value)
        indices.append(builder.op("Add", index, start))
        levels.append(builder.op("Expand", np.int64(level), limit))
        start = end
    best, scores = (builder.op("Concat", *parts, axis=1) for parts in (indices, values))
    level_of = builder.op("Concat", *levels, axis=0)  # [K]

    boxes = _refined(builder, anchors, deltas, best, bbox_std_dev, delta_limit)
    boxes = clip_boxes(builder, boxes, on.window)
    scores = builder.op("Where", large_enough(builder, boxes, on, min_side), scores, NEVER)

    numbers = np.arange(len(maps)).reshape(-1, 1)
    of_level = builder.op("Equal", builder.op("Unsqueeze", level_of, [0]), numbers)  # [levels, K]
    by_level = builder.op("Where", of_level, builder.op("Unsqueeze", scores, [1]), NEVER)
    selected = builder.op("NonMaxSuppression", boxes, by_level, [count], nms_threshold, ABOVE_NEVER)
    place = builder.stack([builder.part(selected, 0), builder.part(selected, 2)])
    nothing = builder.op("Expand", NEVER, builder.op("Shape", scores))
    kept = builder.op("ScatterND", nothing, place, builder.op("GatherND", scores, place))
    limit = builder.op("Min", builder.size(kept, 1), [count])
    values_left, index = builder.multi("TopK", 2, kept, limit, axis=1)
    is_used = builder.op("NonZero", builder.op("Greater", values_left, ABOVE_NEVER))  # [2, R]
    image = builder.part(is_used, 0, axis=0)
    row = builder.op("GatherND", index, builder.op("Transpose", is_used, perm=[1, 0]))
    return builder.op("GatherND", boxes, builder.stack([image, row])), image


def _refined(
    builder: GraphBuilder,
    anchors: Name,
    deltas: Name,
    best: Name,
    bbox_std_dev: Sequence[float],
    delta_limit: float | None = None,
) -> Name:
    """Return the anchors [B, K] of the indices `best`, moved by their deltas: [B, K, 4]."""
    deltas = builder.op("GatherND", deltas, builder.op("Unsqueeze", best, [2]), batch_dims=1)
    deltas = builder.op("Mul", deltas, np.asarray(bbox_std_dev, np.float32))
    return apply_box_deltas(builder, builder.op("Gather", anchors, best), deltas, delta_limit)

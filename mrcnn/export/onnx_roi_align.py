"""Build ROIAlign on a pyramid from the ONNX operator RoiAlign on each level.

Axes: B images, R RoIs of all images.
"""

import math
from collections.abc import Sequence

import numpy as np

from mrcnn.export.onnx_canvas import Canvas
from mrcnn.export.onnx_graph import GraphBuilder, Name
from mrcnn.network.roi_align import (
    AVERAGE,
    CANONICAL_SIDE,
    CROP_AND_RESIZE,
    FIRST_LEVEL,
    LAST_LEVEL,
    LEVEL_MARGIN,
    SAMPLES,
)


def roi_align(
    builder: GraphBuilder,
    boxes: Name,
    images: Name,
    maps: Sequence[Name],
    on: Canvas,
    *,
    bins: tuple[int, int],
    method: str,
) -> Name:
    """Pool each RoI from the level that suits its size; see `mrcnn.network.roi_align`.

    Args:
        builder: The graph.
        boxes: Normalized [R, 4].
        images: The image of each box, int64 [R].
        maps: P2 to P5, each [B, C, h, w].
        on: The canvas.
        bins: (height, width) of the result.
        method: See `mrcnn.network.roi_align`.

    Returns:
        [R, C, height, width].
    """
    # Boxes that are not numbers come from weights that overflow; the operator would read anywhere.
    boxes = builder.op("Where", builder.op("IsNaN", boxes), 0.0, boxes)
    level = _roi_levels(builder, boxes, on, method)
    parts, indices = [], []
    for offset, level_map in enumerate(maps):
        is_here = builder.op("Equal", level, np.int64(FIRST_LEVEL + offset))
        index = builder.op("Reshape", builder.op("NonZero", is_here), [-1])
        rois = builder.op("Gather", boxes, index)
        if method == CROP_AND_RESIZE:
            rois = _sampled_region(builder, rois, level_map, bins)
        else:
            rois = _cells(builder, rois, level_map)
        parts.append(
            builder.op(
                "RoiAlign",
                level_map,
                rois,
                builder.op("Gather", images, index),
                output_height=bins[0],
                output_width=bins[1],
                sampling_ratio=1 if method == CROP_AND_RESIZE else SAMPLES,
                coordinate_transformation_mode="output_half_pixel" if method == AVERAGE else "half_pixel",
            )
        )
        indices.append(index)
    joined = builder.op("Concat", *indices, axis=0)
    count = builder.size(boxes, 0)
    place = builder.op("ScatterElements", joined, joined, builder.count_up(count), axis=0)
    return builder.op("Gather", builder.op("Concat", *parts, axis=0), place)


def _roi_levels(builder: GraphBuilder, boxes: Name, on: Canvas, method: str) -> Name:
    """Return the pyramid level of each RoI, int64 [R]."""
    y1, x1, y2, x2 = (builder.part(boxes, index) for index in range(4))
    area = builder.op("Mul", builder.op("Sub", y2, y1), builder.op("Sub", x2, x1))
    side = builder.op("Sqrt", builder.op("Max", area, np.float32(1e-12)))
    image_area = builder.cast(builder.op("Mul", on.height, on.width), "float32")
    relative = builder.op("Div", side, builder.op("Div", CANONICAL_SIDE, builder.op("Sqrt", image_area)))
    log2 = builder.op("Div", builder.op("Log", relative), math.log(2.0))
    if method == CROP_AND_RESIZE:
        level = builder.op("Add", builder.op("Round", log2), 4.0)
    else:
        level = builder.op("Floor", builder.total(log2, 4.0, LEVEL_MARGIN))
    level = builder.op("Clip", level, float(FIRST_LEVEL), float(LAST_LEVEL))
    return builder.cast(level, "int64")


def _sampled_region(builder: GraphBuilder, boxes: Name, level_map: Name, bins: tuple[int, int]) -> Name:
    """Return the region (x1, y1, x2, y2) in cells whose bin centers are the network's sample points.

    The network samples from edge to edge of an RoI; RoiAlign samples the center of each bin.
    """
    y1, x1, y2, x2 = (builder.part(boxes, index) for index in range(4))
    starts, ends = [], []
    for low, high, axis, count in ((x1, x2, 3, bins[1]), (y1, y2, 2, bins[0])):
        last = builder.op("Sub", builder.cast(builder.size(level_map, axis), "float32"), 1.0)
        low, high = (builder.op("Mul", edge, last) for edge in (low, high))
        step = builder.op("Div", builder.op("Sub", high, low), float(max(count - 1, 1)))
        if count == 1:
            low = builder.op("Add", low, builder.op("Mul", step, 0.5))
        start = builder.op("Add", builder.op("Sub", low, builder.op("Mul", step, 0.5)), 0.5)
        starts.append(start)
        ends.append(builder.op("Add", start, builder.op("Mul", step, float(count))))
    return builder.stack([*starts, *ends])


def _cells(builder: GraphBuilder, boxes: Name, level_map: Name) -> Name:
    """Convert half-open normalized boxes to (x1, y1, x2, y2) in cells of a map [B, C, h, w]."""
    sides = [builder.cast(builder.size(level_map, axis), "float32") for axis in (3, 2)]
    swapped = builder.op("Gather", boxes, [1, 0, 3, 2], axis=1)
    return builder.op("Mul", swapped, builder.op("Concat", *sides, *sides, axis=0))

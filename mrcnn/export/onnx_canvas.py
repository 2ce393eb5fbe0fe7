"""Build molded images, anchors and boxes from ONNX operators.

Axes: B images, h and w image, H and W molded image, A anchors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.export.onnx_graph import GraphBuilder, Name


@dataclass(frozen=True)
class Canvas:
    """The molded images of a graph.

    Attributes:
        pixels: float32 [B, H, W, C], padded, mean subtracted.
        height, width: H and W, int64 [1].
        top, left: Rows and columns of padding before the image, int64 [1].
        window: float32 [4], normalized (y1, x1, y2, x2): the part that shows the image.
        scale: float32 [4]: boxes in pixels are normalized * scale + shift.
        shift: The same for all images.
    """

    pixels: Name
    height: Name
    width: Name
    top: Name
    left: Name
    window: Name
    scale: Name
    shift: np.ndarray

    def normalize(self, builder: GraphBuilder, boxes: Name) -> Name:
        """Normalize boxes [..., 4] in pixels."""
        return builder.op("Div", builder.op("Sub", boxes, self.shift), self.scale)

    def sides(self, builder: GraphBuilder) -> tuple[Name, Name]:
        """Return H and W as float32 [1]."""
        return builder.cast(self.height, "float32"), builder.cast(self.width, "float32")


# A closed normalized box contains its far corner, a box in pixels does not.
FAR_CORNER = np.array([0, 0, 1, 1], np.float32)


def canvas(
    builder: GraphBuilder,
    images: Name,
    *,
    size: tuple[int, int] | None,
    multiple: int,
    mean: np.ndarray,
    centered: bool,
    half_open: bool,
) -> Canvas:
    """Pad the images, and subtract the mean.

    Args:
        builder: The graph.
        images: [B, h, w, C], any numbers.
        size: (H, W), or None for the next multiples.
        multiple: What H and W are multiples of if `size` is None.
        mean: float [C].
        centered: Pad on all sides with black. Otherwise pad on the right and at the bottom with the mean.
        half_open: Whether normalized boxes are half-open; see `geometry.boxes`.
    """
    pixels = builder.cast(images, "float32")
    before, after, sides = [], [], []
    for axis in (1, 2):
        length = builder.size(pixels, axis)
        if size is None:
            steps = builder.op("Div", builder.op("Add", length, [multiple - 1]), [multiple])
            side = builder.op("Mul", steps, [multiple])
        else:
            side = builder.constant([size[axis - 1]])
        free = builder.op("Sub", side, length)
        before.append(builder.op("Div", free, [2]) if centered else builder.constant([0]))
        after.append(builder.op("Sub", free, before[-1]))
        sides.append(side)
    zero = builder.constant([0])
    pads = builder.shape(zero, *before, zero, zero, *after, zero)
    mean = mean.astype(np.float32)
    if centered:
        pixels = builder.op("Sub", builder.op("Pad", pixels, pads, 0.0), mean)
    else:
        pixels = builder.op("Pad", builder.op("Sub", pixels, mean), pads, 0.0)

    shift = np.zeros(4, np.float32) if half_open else FAR_CORNER
    scale = builder.cast(builder.op("Concat", *sides, *sides, axis=0), "float32")
    if not half_open:
        scale = builder.op("Sub", scale, 1.0)
    ends = [builder.op("Sub", side, x) for side, x in zip(sides, after, strict=True)]
    window = builder.cast(builder.op("Concat", *before, *ends, axis=0), "float32")
    window = builder.op("Div", builder.op("Sub", window, shift), scale)
    return Canvas(pixels, sides[0], sides[1], before[0], before[1], window, scale, shift)


def anchors(
    builder: GraphBuilder,
    on: Canvas,
    scales: Sequence[float],
    ratios: Sequence[float],
    strides: Sequence[int],
    anchor_stride: int,
    *,
    rounded: bool,
    fill_image: bool,
) -> Name:
    """Return the normalized anchors float32 [A, 4] of all levels; see `mrcnn.network.anchors`."""
    levels = []
    for scale, stride in zip(scales, strides, strict=True):
        step = stride * anchor_stride
        half = np.array([(scale / math.sqrt(ratio) / 2, scale * math.sqrt(ratio) / 2) for ratio in ratios])
        half = np.round(half) if rounded else half
        corners = np.concatenate([-half, half], axis=1).astype(np.float32)
        counts, positions = [], []
        for side in (on.height, on.width):
            counts.append(_divide_up(builder, side, step))
            distance = builder.constant([step])
            if fill_image:
                cells = _divide_up(builder, side, stride)
                distance = builder.op("Mul", builder.op("Div", side, cells), [anchor_stride])
            positions.append(
                builder.cast(builder.op("Mul", builder.count_up(counts[-1]), distance), "float32")
            )
        y, x = positions
        y = builder.op("Expand", builder.op("Unsqueeze", y, [1]), builder.shape(*counts))
        x = builder.op("Expand", x, builder.shape(*counts))
        centers = builder.op("Unsqueeze", builder.stack([y, x, y, x]), [2])
        levels.append(builder.op("Reshape", builder.op("Add", centers, corners), [-1, 4]))
    pixels = builder.op("Concat", *levels, axis=0) if len(levels) > 1 else levels[0]
    return on.normalize(builder, pixels)


def _divide_up(builder: GraphBuilder, size: Name, by: int) -> Name:
    """Divide sizes int64 [1] and round up."""
    return builder.op("Div", builder.op("Add", size, [by - 1]), [by])


def apply_box_deltas(builder: GraphBuilder, boxes: Name, deltas: Name, limit: float | None = None) -> Name:
    """Shift and scale boxes [..., 4] by deltas; see `mrcnn.network.box_ops`."""
    y1, x1, y2, x2 = (builder.part(boxes, index) for index in range(4))
    dy, dx, dh, dw = (builder.part(deltas, index) for index in range(4))
    starts, ends = [], []
    for low, high, shift, growth in ((y1, y2, dy, dh), (x1, x2, dx, dw)):
        side = builder.op("Sub", high, low)
        center = builder.total(low, builder.op("Mul", side, 0.5), builder.op("Mul", shift, side))
        if limit is not None:
            growth = builder.op("Min", growth, float(limit))
        side = builder.op("Mul", side, builder.op("Exp", growth))
        start = builder.op("Sub", center, builder.op("Mul", side, 0.5))
        starts.append(start)
        ends.append(builder.op("Add", start, side))
    return builder.stack([*starts, *ends])


def clip_boxes(builder: GraphBuilder, boxes: Name, window: Name) -> Name:
    """Clip boxes [..., 4] to a window [4]."""
    low, high = (builder.op("Gather", window, index) for index in ([0, 1, 0, 1], [2, 3, 2, 3]))
    return builder.op("Max", builder.op("Min", boxes, high), low)


def large_enough(builder: GraphBuilder, boxes: Name, on: Canvas, min_side: float) -> Name:
    """Return where both sides of boxes [..., 4] are above 0 and at least `min_side` pixels, bool [...]."""
    y1, x1, y2, x2 = (builder.part(boxes, index) for index in range(4))
    sides = [builder.op("Sub", y2, y1), builder.op("Sub", x2, x1)]
    pixels = [builder.op("Mul", side, size) for side, size in zip(sides, on.sides(builder), strict=True)]
    shortest = builder.op("Min", *pixels)
    is_large = builder.op("GreaterOrEqual", shortest, float(min_side))
    return builder.op("And", builder.op("Greater", shortest, 0.0), is_large)


def to_pixels(builder: GraphBuilder, boxes: Name, on: Canvas) -> Name:
    """Convert normalized boxes to half-open boxes in pixels of the image."""
    pixels = builder.op("Add", builder.op("Mul", boxes, on.scale), on.shift)
    origin = builder.cast(builder.op("Concat", *[on.top, on.left] * 2, axis=0), "float32")
    return builder.op("Sub", pixels, origin)

"""ROI Align on a feature pyramid (Mask R-CNN, section 3; FPN, equation 1).

One bilinear sample per bin, sample points from edge to edge of the RoI, zero outside the map: the
arithmetic of TensorFlow's crop-and-resize, which the published weights were trained with.
Axes: B images, N RoIs, S cells of all levels together, C channels.
"""

from typing import Any

import keras
from keras import ops

from mrcnn.backend import torch_ops
from mrcnn.network import box_ops

Tensor = Any

# An RoI of this side, in pixels, belongs to P4 (FPN, equation 1: the size of ImageNet's images).
CANONICAL_SIDE = 224.0
FIRST_LEVEL, LAST_LEVEL = 2, 5

# Farther outside a feature map than any sample point, in cells.
FAR = 1e9


def roi_levels(boxes: Tensor, image_area: Tensor) -> Tensor:
    """Pyramid level of each RoI (FPN, equation 1), rounded half to even.

    boxes: [B, N, 4] normalised; image_area: height times width in pixels, scalar. Returns int32 [B, N],
    2 to 5. Empty and inverted boxes go to level 2.
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    side = ops.sqrt(ops.maximum(area, 1e-12))  # empty boxes must not reach the cast as -inf or NaN
    relative = side / (CANONICAL_SIDE / ops.sqrt(ops.cast(image_area, "float32")))
    level = 4 + ops.cast(ops.round(box_ops.log2(relative)), "int32")
    return ops.clip(level, FIRST_LEVEL, LAST_LEVEL)


def sample_positions(low: Tensor, high: Tensor, extent: Tensor, count: int) -> Tensor:
    """Where a RoI reads a feature map along one axis, in cells.

    low, high: [B, N] normalised edges; extent: [B, N] cells of the map along the axis, float32.
    Returns [B, N, count]: both edges and evenly between; the middle if count is 1.
    """
    if count == 1:
        return ops.expand_dims(0.5 * (low + high) * (extent - 1.0), -1)
    # Whether the last point of a box that touches the edge lies outside (and reads 0) hangs on each rounding.
    # Two steps of a compiler would change it: a division by a constant becomes a product with its reciprocal,
    # and a product followed by a sum becomes one operation. Neither maximum() changes a value.
    intervals = ops.maximum(0.0 * extent, float(count - 1))
    step = ops.expand_dims((high - low) * (extent - 1.0) / intervals, -1)
    first = ops.expand_dims(low * (extent - 1.0), -1)
    offset = ops.maximum(ops.arange(count, dtype="float32") * step, -FAR)
    return ops.maximum(first, -FAR) + offset


def _neighbours(position: Tensor, extent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells before and after each position, the weight of the later one, and whether it is inside."""
    extent = ops.expand_dims(extent, -1)
    inside = ops.logical_and(position >= 0.0, position <= extent - 1.0)
    safe = ops.where(inside, position, 0.0)
    before = ops.floor(safe)
    after = ops.ceil(safe)
    return ops.cast(before, "int32"), ops.cast(after, "int32"), safe - before, inside


def bilinear_sample(
    cells: Tensor, y: Tensor, x: Tensor, extents: tuple[Tensor, Tensor], start: Tensor
) -> Tensor:
    """Bilinear interpolation at a grid of points of each RoI; zero outside its map.

    cells: [S, C], maps flattened row by row; y: [B, N, ph] and x: [B, N, pw] positions in cells;
    extents: (rows, columns) of each RoI's map, each [B, N] float32; start: [B, N] int32, first cell of the
    RoI's map in `cells`. Returns [B, N, ph, pw, C] in the dtype of `cells`.
    """
    top, bottom, weight_y, inside_y = _neighbours(y, extents[0])
    left, right, weight_x, inside_x = _neighbours(x, extents[1])
    columns = ops.cast(extents[1], "int32")[..., None]

    def at(rows, cols):
        row_start = start[..., None] + rows * columns  # [B, N, ph]
        return ops.expand_dims(row_start, -1) + ops.expand_dims(cols, 2)  # [B, N, ph, pw]

    weight_x = ops.cast(weight_x[:, :, None, :], cells.dtype)
    weight_y = ops.cast(weight_y[:, :, :, None], cells.dtype)
    inside = ops.logical_and(inside_y[:, :, :, None], inside_x[:, :, None, :])
    corners = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)]
    if torch_ops.serve():
        weights = _corner_weights(weight_y, weight_x, inside)
        return torch_ops.weighted_rows(cells, ops.stack(corners, axis=-1), weights)
    upper_left, upper_right, lower_left, lower_right = (ops.take(cells, x, axis=0) for x in corners)
    upper = upper_left + (upper_right - upper_left) * weight_x[..., None]
    lower = lower_left + (lower_right - lower_left) * weight_x[..., None]
    outputs = upper + (lower - upper) * weight_y[..., None]
    return ops.where(inside[..., None], outputs, ops.zeros_like(outputs))


def _corner_weights(weight_y: Tensor, weight_x: Tensor, inside: Tensor) -> Tensor:
    """Weights [B, N, ph, pw, 4] of the upper left, upper right, lower left and lower right cell.

    weight_y [B, N, ph, 1], weight_x [B, N, 1, pw]: of the lower and the right ones; inside: [B, N, ph, pw].
    """
    pairs = [
        (1 - weight_y, 1 - weight_x),
        (1 - weight_y, weight_x),
        (weight_y, 1 - weight_x),
        (weight_y, weight_x),
    ]
    return ops.stack([ops.where(inside, y * x, ops.zeros_like(y * x)) for y, x in pairs], axis=-1)


def pyramid_roi_align(
    boxes: Tensor, image_area: Tensor, feature_maps: list[Tensor], pool_shape: tuple[int, int]
) -> Tensor:
    """Read every RoI from the level that suits its size.

    boxes: [B, N, 4] normalised; image_area: pixels of the network's input, scalar; feature_maps: P2 to P5,
    each [B, h, w, C]. Returns [B, N, pool_height, pool_width, C] in the order of `boxes`.
    Gradient flows to the maps, not to the boxes.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    level = roi_levels(boxes, image_area) - FIRST_LEVEL  # [B, N]
    batch = ops.shape(boxes)[0]
    channels = feature_maps[0].shape[-1]

    sizes = [ops.shape(level_map)[1:3] for level_map in feature_maps]
    cells = [ops.reshape(level_map, (-1, channels)) for level_map in feature_maps]
    rows = ops.stack([ops.cast(h, "int32") for h, _ in sizes])
    columns = ops.stack([ops.cast(w, "int32") for _, w in sizes])
    per_image = rows * columns  # cells of one image on each level
    level_start = (ops.cumsum(per_image) - per_image) * ops.cast(batch, "int32")
    image = ops.expand_dims(ops.cast(ops.arange(batch), "int32"), 1)  # [B, 1]
    start = ops.take(level_start, level, axis=0) + image * ops.take(per_image, level, axis=0)

    height = ops.cast(ops.take(rows, level, axis=0), "float32")
    width = ops.cast(ops.take(columns, level, axis=0), "float32")
    y = sample_positions(boxes[..., 0], boxes[..., 2], height, pool_shape[0])
    x = sample_positions(boxes[..., 1], boxes[..., 3], width, pool_shape[1])
    return bilinear_sample(ops.concatenate(cells, axis=0), y, x, (height, width), start)


class PyramidROIAlign(keras.layers.Layer):
    """ROI Align over P2 to P5 (Mask R-CNN, section 3).

    pool_shape: (height, width) of the output in bins.
    Call with [boxes, image_meta, P2, P3, P4, P5]: boxes [B, N, 4] normalised, zero rows allowed;
    image_meta [B, 12 + classes], of which the first image's size is read; maps [B, h, w, C].
    Returns [B, N, height, width, C].
    """

    def __init__(self, pool_shape: tuple[int, int], **kwargs):
        # In mixed precision the maps are read as half floats, but at float32 positions.
        super().__init__(**{"autocast": False, **kwargs})
        self.pool_shape = tuple(pool_shape)

    def call(self, inputs):
        boxes, image_meta = inputs[0], ops.cast(inputs[1], "float32")
        image_area = image_meta[0, 4] * image_meta[0, 5]
        maps = [ops.cast(level_map, self.compute_dtype) for level_map in inputs[2:]]
        return pyramid_roi_align(boxes, image_area, maps, self.pool_shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:2], *self.pool_shape, input_shape[2][-1])

    def get_config(self):
        return {**super().get_config(), "pool_shape": self.pool_shape}

"""ROIAlign on a feature pyramid (Mask R-CNN, section 3; FPN, equation 1).

There are three methods. Weights fit the method that they were trained with:

- CROP_AND_RESIZE: one bilinear sample per bin, with sample points from edge to edge of the RoI, and zero
  outside the map. This is the arithmetic of TensorFlow's crop-and-resize, for which the weights of the Keras
  2 library were trained.
- AVERAGE: the mean of 2x2 evenly spaced samples per bin, as in torchvision. The value of a cell is at its
  upper-left corner, and an RoI is at least one cell large.
- AVERAGE_ALIGNED: the same, but the value of a cell is at its center, and an RoI may be smaller than one
  cell. This is Detectron2's ROIAlignV2, except that Detectron2 takes more samples in large RoIs.

Axes: B images, N RoIs, ph and pw bins of an RoI, S cells of all levels together, C channels.
"""

from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network import box_ops
from mrcnn.typing import Shape, Tensor

# An RoI of this side in pixels belongs to P4 (FPN, equation 1: the size of ImageNet's images).
CANONICAL_SIDE = 224.0
FIRST_LEVEL, LAST_LEVEL = 2, 5

CROP_AND_RESIZE, AVERAGE, AVERAGE_ALIGNED = "crop_and_resize", "average", "average_aligned"

# Number of samples per bin to average along each axis.
SAMPLES = 2

# Added before levels are rounded down, so that RoIs whose level is a whole number stay on it.
LEVEL_MARGIN = 1e-6

# A position in cells that is farther outside a feature map than any sample point.
FAR = 1e9


def roi_levels(boxes: Tensor, image_area: Tensor, method: str = CROP_AND_RESIZE) -> Tensor:
    """Return the pyramid level of each RoI (FPN, equation 1).

    Args:
        boxes: [B, N, 4] normalized. Empty and inverted boxes belong to level 2.
        image_area: Height times width of the molded image in pixels, a scalar.
        method: CROP_AND_RESIZE rounds to the nearest level, half to even; the others round down, as in the
            paper.

    Returns:
        int32 [B, N], 2 to 5.
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    side = ops.sqrt(ops.maximum(area, 1e-12))  # an empty box would give -inf
    relative = side / (CANONICAL_SIDE / ops.sqrt(ops.cast(image_area, "float32")))
    if method == CROP_AND_RESIZE:
        level = 4 + ops.cast(ops.round(box_ops.log2(relative)), "int32")
    else:
        level = ops.cast(ops.floor(4.0 + box_ops.log2(relative) + LEVEL_MARGIN), "int32")
    return ops.clip(level, FIRST_LEVEL, LAST_LEVEL)


def sample_positions(low: Tensor, high: Tensor, extent: Tensor, count: int) -> Tensor:
    """Return the positions, in cells, at which an RoI samples a feature map along one axis.

    Args:
        low, high: Normalized edges [B, N].
        extent: Cells of the map along the axis, float32 [B, N].
        count: Samples along the axis.

    Returns:
        [B, N, count]: both edges and evenly between them; the center if `count` is 1.
    """
    if count == 1:
        return ops.expand_dims(0.5 * (low + high) * (extent - 1.0), -1)
    # Rounding determines whether the last sample of a box that touches the edge is outside and reads 0. Two
    # optimizations of a compiler would round differently: a product with the reciprocal instead of a division
    # by a constant, and a fused multiply-add. Each maximum() prevents one; neither changes a value.
    intervals = ops.maximum(0.0 * extent, float(count - 1))
    step = ops.expand_dims((high - low) * (extent - 1.0) / intervals, -1)
    first = ops.expand_dims(low * (extent - 1.0), -1)
    offset = ops.maximum(ops.arange(count, dtype="float32") * step, -FAR)
    return ops.maximum(first, -FAR) + offset


def bin_sample_positions(low: Tensor, high: Tensor, extent: Tensor, bins: int, method: str) -> Tensor:
    """Return the positions, in cells, at which AVERAGE and AVERAGE_ALIGNED sample a map along one axis.

    Args:
        low, high: Normalized edges [B, N] of half-open boxes.
        extent: Cells of the map along the axis, float32 [B, N].
        bins: Bins along the axis.
        method: AVERAGE or AVERAGE_ALIGNED.

    Returns:
        [B, N, SAMPLES * bins]: the centers of SAMPLES * bins equal parts of the RoI.
    """
    start, length = bin_range(low, high, extent, method)
    parts = SAMPLES * bins
    offset = (ops.arange(parts, dtype="float32") + 0.5) / parts
    return start[..., None] + offset * length[..., None]


def bin_range(low: Tensor, high: Tensor, extent: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Return the start and the length, in cells, of the range that the bins of an RoI divide along one axis.

    Args:
        low, high: Normalized edges [B, N] of half-open boxes.
        extent: Cells of the map along the axis, a float32 scalar or [B, N].
        method: AVERAGE or AVERAGE_ALIGNED.

    Returns:
        Two tensors [B, N].
    """
    start, length = low * extent, (high - low) * extent
    if method == AVERAGE_ALIGNED:
        return start - 0.5, length
    return start, ops.maximum(length, 1.0)


def _neighbors(position: Tensor, extent: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cells before and after each position, the latter's weight, and whether each is inside."""
    extent = ops.expand_dims(extent, -1)
    inside = ops.logical_and(position >= -margin, position <= extent - 1.0 + margin)
    safe = ops.where(inside, position, 0.0)
    if margin:
        safe = ops.clip(safe, 0.0, extent - 1.0)
    before = ops.floor(safe)
    after = ops.ceil(safe)
    return ops.cast(before, "int32"), ops.cast(after, "int32"), safe - before, inside


def bilinear_sample(
    cells: Tensor,
    y: Tensor,
    x: Tensor,
    extents: tuple[Tensor, Tensor],
    start: Tensor,
    margin: float = 0.0,
    samples: int = 1,
) -> Tensor:
    """Interpolate bilinearly at a grid of points of each RoI; zero outside its map.

    Args:
        cells: [S, C], maps flattened row by row.
        y, x: Positions [B, N, ph] and [B, N, pw] in cells.
        extents: Rows and columns of each RoI's map, each float32 [B, N].
        start: First cell of each RoI's map in `cells`, int32 [B, N].
        margin: Width in cells of a border around the map that repeats its outermost cells.
        samples: Number of neighboring points to average along each axis.

    Returns:
        [B, N, ph / samples, pw / samples, C] in the dtype of `cells`.
    """
    top, bottom, weight_y, inside_y = _neighbors(y, extents[0], margin)
    left, right, weight_x, inside_x = _neighbors(x, extents[1], margin)
    columns = ops.cast(extents[1], "int32")[..., None]

    def at(rows: Tensor, cols: Tensor) -> Tensor:
        row_start = start[..., None] + rows * columns  # [B, N, ph]
        return ops.expand_dims(row_start, -1) + ops.expand_dims(cols, 2)  # [B, N, ph, pw]

    weight_x = ops.cast(weight_x[:, :, None, :], cells.dtype)
    weight_y = ops.cast(weight_y[:, :, :, None], cells.dtype)
    inside = ops.logical_and(inside_y[:, :, :, None], inside_x[:, :, None, :])
    corners = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)]
    return backend.bilinear_gather(cells, corners, weight_y, weight_x, inside, samples)


def pool_rois(
    cells: Tensor,
    boxes: Tensor,
    extents: tuple[Tensor, Tensor],
    start: Tensor,
    pool_shape: tuple[int, int],
    method: str = CROP_AND_RESIZE,
) -> Tensor:
    """Pool each RoI from its map.

    Args:
        cells: [S, C], maps flattened row by row.
        boxes: [B, N, 4] normalized to the maps.
        extents: Rows and columns of each RoI's map, each float32 [B, N].
        start: First cell of each RoI's map in `cells`, int32 [B, N].
        pool_shape: Bins per RoI, (height, width).
        method: See the module docstring.

    Returns:
        [B, N, height, width, C] in the dtype of `cells`.
    """
    edges = [(boxes[..., 0], boxes[..., 2]), (boxes[..., 1], boxes[..., 3])]
    if method == CROP_AND_RESIZE:
        y, x = (
            sample_positions(*edge, extent, count)
            for edge, extent, count in zip(edges, extents, pool_shape, strict=True)
        )
        return bilinear_sample(cells, y, x, extents, start)
    y, x = (
        bin_sample_positions(*edge, extent, count, method)
        for edge, extent, count in zip(edges, extents, pool_shape, strict=True)
    )
    return bilinear_sample(cells, y, x, extents, start, margin=1.0, samples=SAMPLES)


def pyramid_roi_align(
    boxes: Tensor,
    image_area: Tensor,
    feature_maps: list[Tensor],
    pool_shape: tuple[int, int],
    method: str = CROP_AND_RESIZE,
) -> Tensor:
    """Pool every RoI from the level that suits its size. Gradients flow to the maps, not to the boxes.

    Args:
        boxes: [B, N, 4] normalized.
        image_area: Height times width of the molded image in pixels, a scalar.
        feature_maps: P2 to P5, each [B, h, w, C].
        pool_shape: Bins per RoI, (height, width).
        method: See the module docstring.

    Returns:
        [B, N, height, width, C] in the order of `boxes`.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    level = roi_levels(boxes, image_area, method) - FIRST_LEVEL  # [B, N]
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
    return pool_rois(ops.concatenate(cells, axis=0), boxes, (height, width), start, pool_shape, method)


@keras.saving.register_keras_serializable("mrcnn")
class PyramidROIAlign(keras.layers.Layer):
    """ROIAlign over P2 to P5 (Mask R-CNN, section 3).

    Call with [boxes, image_meta, P2, P3, P4, P5]: boxes [B, N, 4] normalized, empty rows allowed; image_meta
    [B, 12 + classes], which gives the size of the molded images; maps [B, h, w, C].
    Returns [B, N, height, width, C].

    Args:
        pool_shape: Bins per RoI, (height, width).
        method: CROP_AND_RESIZE, AVERAGE or AVERAGE_ALIGNED. The last two take half-open boxes.
    """

    def __init__(self, pool_shape: tuple[int, int], method: str = CROP_AND_RESIZE, **kwargs: Any):
        # In mixed precision maps are half floats, but positions stay float32.
        super().__init__(**{"autocast": False, **kwargs})
        self.method = method
        self.pool_shape = (int(pool_shape[0]), int(pool_shape[1]))

    def call(self, inputs: list[Tensor]) -> Tensor:
        boxes, image_meta = inputs[0], ops.cast(inputs[1], "float32")
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        image_area = height * width
        maps = [ops.cast(level_map, self.compute_dtype) for level_map in inputs[2:]]
        return pyramid_roi_align(boxes, image_area, maps, self.pool_shape, self.method)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return (*input_shape[0][:2], *self.pool_shape, input_shape[2][-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pool_shape": self.pool_shape, "method": self.method}

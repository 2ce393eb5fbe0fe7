"""ROIAlign with the backend's crop-and-resize operator, if it has one.

`PyramidROIAlign` follows the arithmetic of that operator, so the numbers are equal. The operator reads the
pyramid in place, without a concatenated copy, and stores no samples besides its results.

If samples of a bin are averaged, the operator takes them from maps that are extended by one cell on each
side, repeating the outermost cells. Between two equal cells, a sample has the value at the edge of the map.
"""

from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network.roi_align import (
    AVERAGE,
    CROP_AND_RESIZE,
    FAR,
    FIRST_LEVEL,
    SAMPLES,
    PyramidROIAlign,
    roi_levels,
)
from mrcnn.typing import Tensor


class NativeROIAlign(PyramidROIAlign):
    """PyramidROIAlign with the same arguments, inputs and outputs. Its tensor sizes depend on the data."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        assert backend.crop_and_resize is not None
        boxes, image_meta = ops.cast(inputs[0], "float32"), ops.cast(inputs[1], "float32")
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        batch, rois = ops.shape(boxes)[:2]
        levels = ops.reshape(roi_levels(boxes, height * width, self.method), (-1,)) - FIRST_LEVEL
        images = ops.repeat(ops.arange(batch, dtype="int32"), rois)
        # The operator does not accept boxes that are not finite. A box far outside the map also reads zeros.
        finite = ops.all(ops.isfinite(boxes), axis=-1, keepdims=True)
        boxes = ops.reshape(ops.where(finite, boxes, -FAR), (-1, 4))
        maps = [ops.cast(features, "float32") for features in inputs[2:]]
        if self.method == CROP_AND_RESIZE:
            pooled = backend.crop_and_resize(maps, boxes, images, levels, self.pool_shape)
            pooled = ops.reshape(pooled, (batch, rois, *self.pool_shape, inputs[2].shape[-1]))
            return ops.cast(pooled, self.compute_dtype)
        rows, columns = (SAMPLES * count for count in self.pool_shape)
        boxes = sampled_boxes(boxes, maps, levels, (rows, columns), self.method)
        pad = ((0, 0), (1, 1), (1, 1), (0, 0))
        larger = [ops.pad(features, pad, mode="symmetric") for features in maps]
        samples = backend.crop_and_resize(larger, boxes, images, levels, (rows, columns))
        samples = ops.reshape(samples, (batch, rois, rows, columns, inputs[2].shape[-1]))
        return ops.cast(backend.mean_of_neighbors(samples, SAMPLES), self.compute_dtype)


def sampled_boxes(
    boxes: Tensor, maps: list[Tensor], levels: Tensor, counts: tuple[int, int], method: str
) -> Tensor:
    """Return boxes from the first to the last sample, [N, 4] normalized to the extended maps.

    Args:
        boxes: RoIs [N, 4], normalized and half-open.
        maps: [B, h, w, C] of each level.
        levels: int32 [N], the map of each RoI.
        counts: Samples along rows and columns.
        method: AVERAGE or AVERAGE_ALIGNED; see `mrcnn.network.roi_align`.
    """
    edges = []
    for axis, count in enumerate(counts):
        sides = ops.stack([ops.cast(ops.shape(features)[1 + axis], "float32") for features in maps])
        cells = ops.take(sides, levels)
        start, length = boxes[:, axis] * cells, (boxes[:, 2 + axis] - boxes[:, axis]) * cells
        if method == AVERAGE:
            length = ops.maximum(length, 1.0)
        else:
            start = start - 0.5
        half_step = 0.5 * length / count
        first, last = start + half_step, start + length - half_step
        edges.append(((first + 1.0) / (cells + 1.0), (last + 1.0) / (cells + 1.0)))
    (y1, y2), (x1, x2) = edges
    return ops.stack([y1, x1, y2, x2], axis=1)


def replacements(model: keras.Model, xla: bool | None = None) -> dict[str, Any]:
    """Return {name: NativeROIAlign} for each ROIAlign layer of a model, empty without an operator.

    Args:
        model: A functional model.
        xla: The user's choice; see `backend.compiles_with_xla`.
    """
    if backend.crop_and_resize is None or not backend.sizes_may_vary(xla):
        return {}
    return {
        layer.name: NativeROIAlign.from_config(layer.get_config())
        for layer in model.layers
        if isinstance(layer, PyramidROIAlign)
    }

"""ROIAlign by the backend's crop-and-resize operator, where it has one.

`PyramidROIAlign` follows the arithmetic of that operator, so the numbers are equal. The operator reads the
pyramid where it lies, without a joined copy, and holds no samples beside its results.
"""

from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network.roi_align import FAR, FIRST_LEVEL, PyramidROIAlign, roi_levels
from mrcnn.typing import Tensor


class NativeROIAlign(PyramidROIAlign):
    """PyramidROIAlign with the same arguments, inputs and outputs. It needs sizes that depend on the data."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        assert backend.crop_and_resize is not None
        boxes, image_meta = ops.cast(inputs[0], "float32"), ops.cast(inputs[1], "float32")
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        batch, rois = ops.shape(boxes)[:2]
        levels = ops.reshape(roi_levels(boxes, height * width), (-1,))
        images = ops.repeat(ops.arange(batch, dtype="int32"), rois)
        # The operator refuses boxes that are not finite. Far outside the map a box reads the same zeros.
        finite = ops.all(ops.isfinite(boxes), axis=-1, keepdims=True)
        boxes = ops.reshape(ops.where(finite, boxes, -FAR), (-1, 4))
        maps = [ops.cast(features, "float32") for features in inputs[2:]]
        pooled = backend.crop_and_resize(maps, boxes, images, levels - FIRST_LEVEL, self.pool_shape)
        pooled = ops.cast(pooled, self.compute_dtype)
        return ops.reshape(pooled, (batch, rois, *self.pool_shape, inputs[2].shape[-1]))


def replacements(model: keras.Model) -> dict[str, Any]:
    """{name: NativeROIAlign} for each ROIAlign layer of a model; empty if the backend has no operator."""
    if backend.crop_and_resize is None or not backend.sizes_may_vary():
        return {}
    return {
        layer.name: NativeROIAlign.from_config(layer.get_config())
        for layer in model.layers
        if isinstance(layer, PyramidROIAlign)
    }

"""ROI Align by TensorFlow's own operator, for graphs that XLA, which does not know it, leaves alone.

The numbers are those of `roi_align`, which follows the operator's arithmetic. It reads the pyramid where it
is, without a joined copy, and holds no sample but the results: less memory and less time on a CPU.
"""

from typing import Any

import keras
from keras import ops

from mrcnn.network.roi_align import FAR, FIRST_LEVEL, LAST_LEVEL, PyramidROIAlign, roi_levels

Tensor = Any


class CropAndResizeROIAlign(PyramidROIAlign):
    """PyramidROIAlign with the same arguments, inputs and result, on the TensorFlow backend without XLA."""

    def call(self, inputs):
        import tensorflow

        boxes, image_meta = ops.cast(inputs[0], "float32"), ops.cast(inputs[1], "float32")
        count, rois = ops.shape(boxes)[:2]
        levels = ops.reshape(roi_levels(boxes, image_meta[0, 4] * image_meta[0, 5]), (-1,))
        images = ops.repeat(ops.arange(count, dtype="int32"), rois)
        # The operator refuses what is not finite; far outside a box reads the same zeros.
        finite = ops.all(ops.isfinite(boxes), axis=-1, keepdims=True)
        boxes = ops.reshape(ops.where(finite, boxes, -FAR), (-1, 4))
        places, parts = [], []
        for level, features in zip(range(FIRST_LEVEL, LAST_LEVEL + 1), inputs[2:], strict=True):
            place = tensorflow.where(levels == level)[:, 0]
            places.append(tensorflow.cast(place, "int32"))
            parts.append(
                tensorflow.image.crop_and_resize(
                    ops.cast(features, "float32"),
                    tensorflow.gather(boxes, place),
                    tensorflow.gather(images, place),
                    self.pool_shape,
                )
            )
        # Every RoI is on one level, so that the parts fill the result.
        joined = ops.cast(tensorflow.dynamic_stitch(places, parts), self.compute_dtype)
        return ops.reshape(joined, (count, rois, *self.pool_shape, inputs[2].shape[-1]))


def replacements(model: keras.Model) -> dict[str, CropAndResizeROIAlign]:
    """{name: its native twin} of each ROI Align layer of a model, see `folding.FoldedNetwork`."""
    return {
        layer.name: CropAndResizeROIAlign.from_config(layer.get_config())
        for layer in model.layers
        if isinstance(layer, PyramidROIAlign)
    }

"""The mask head as a separate network that computes each detection's mask only for its own class.

The inference graph computes masks for all slots and all classes. This network computes the same numbers, with
a fraction of the arithmetic, for actual detections and their own classes.

Axes: B images, K detections, h and w cells of a mask.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

from mrcnn.network.graphs import Graph
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.typing import Shape, Tensor

if TYPE_CHECKING:
    from mrcnn.config import Config

# Pyramid levels that the heads pool from.
LEVELS = ("P2", "P3", "P4", "P5")


def mask_branch(model: keras.Model, config: "Config") -> Graph:
    """Build the mask branch from the layers of an inference model, whose weights it shares.

    Inputs: P2 to P5, input_image_meta [B, 12 + classes] and detections [B, K, 6].
    Output: mrcnn_mask [B, K, h, w], probabilities.
    """
    roi_align = model.get_layer("roi_align_mask")
    shape = (None, None, config.TOP_DOWN_PYRAMID_SIZE)
    dtype = roi_align.compute_dtype  # that of the maps: half floats in mixed precision
    inputs = {level: keras.Input(shape, dtype=dtype, name=level) for level in LEVELS}
    maps = list(inputs.values())
    inputs["input_image_meta"] = keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta")
    inputs["detections"] = keras.Input((None, 6), name="detections")

    x = roi_align([inputs["detections"][..., :4], inputs["input_image_meta"], *maps])
    names = [layer.name for layer in model.layers]
    # The head is a chain, and nothing else comes after the detections that it starts from.
    for layer in model.layers[names.index("roi_align_mask") + 1 : names.index("mrcnn_mask")]:
        x = layer(x)
    masks = ClassSpecificMasks(model.get_layer("mrcnn_mask"))([x, inputs["detections"]])
    return Graph(inputs, {"mrcnn_mask": masks})


class ClassSpecificMasks(layers.Layer):
    """The last layer of the mask head, applied only for the class of each detection.

    Call with [features [B, K, h, w, C], detections [B, K, 6]]. Returns [B, K, h, w].

    Args:
        mask_layer: The layer `mrcnn_mask` of the model.
    """

    def __init__(self, mask_layer: RoiConv2D, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mask_layer = mask_layer

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, detections = inputs
        return self.mask_layer.select_channel(features, ops.cast(detections[..., 4], "int32"))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return input_shape[0][:4]

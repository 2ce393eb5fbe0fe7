"""NMS with the backend's operator, if it has one.

`suppression.non_max_suppression` of the network is a loop of tensor operations in a loop. An operator keeps
the same boxes in one step, so the network also takes less time to compile.
"""

from inspect import signature

import keras

from mrcnn import backend
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.proposals import Proposals
from mrcnn.network.suppression import non_max_suppression
from mrcnn.typing import Shape, Tensor


class NativeSuppression(keras.layers.Layer):
    """A stand-in for a layer that applies NMS, with the same inputs and outputs.

    Args:
        layer: The layer, whose settings may change until the stand-in is compiled.
    """

    def __init__(self, layer: Proposals | DetectionLayer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        # Hidden from Keras, which would list the layer as a part of this one.
        self._layer = lambda: layer

    def call(self, inputs: list[Tensor]) -> Tensor:
        return self._layer().call(inputs, backend.non_max_suppression or non_max_suppression)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return self._layer().compute_output_shape(input_shape)


def replacements(model: keras.Model, xla: bool | None = None) -> dict[str, NativeSuppression]:
    """Return {name: NativeSuppression} for each layer of a model that applies NMS, empty without an operator.

    Layers with a `call` of their own, as in older programs, are not replaced.

    Args:
        model: A functional model.
        xla: The user's choice; see `backend.compiles_with_xla`.
    """
    if backend.non_max_suppression is None or not backend.sizes_may_vary(xla):
        return {}
    return {
        layer.name: NativeSuppression(layer)
        for layer in model.layers
        if isinstance(layer, (Proposals, DetectionLayer))
        and "non_max_suppression" in signature(layer.call).parameters
    }

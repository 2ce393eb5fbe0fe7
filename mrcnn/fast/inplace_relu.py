"""ReLUs and sums that overwrite their input, for inference on a backend that runs layers separately."""

from collections import Counter
from typing import Any

import keras
from keras import layers

from mrcnn import backend
from mrcnn.backend import keras_internals, layer_graph
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.typing import Tensor

# max_value, negative_slope and threshold of a ReLU that is max(x, 0).
DEFAULT_RELU = (None, 0, 0)

# Layers whose output is new memory and not a view of their input's.
ALLOCATING_LAYERS = (
    layers.Conv2D,
    layers.BatchNormalization,
    layers.Add,
    layers.UpSampling2D,
    RoiConv2D,
)


class InPlaceReLU(layers.ReLU):
    """keras.layers.ReLU with default settings, in the memory of its input."""

    def call(self, inputs: Tensor) -> Tensor:
        return backend.relu_inplace(inputs)


class InPlaceAdd(layers.Add):
    """keras.layers.Add of two tensors of the same shape, in the memory of one of them.

    Args:
        target: Index of the input that is overwritten.
    """

    def __init__(self, target: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.target = target

    def call(self, inputs: list[Tensor]) -> Tensor:
        return backend.add_inplace(inputs[self.target], inputs[1 - self.target])


def replacements(model: keras.Model) -> dict[str, layers.Layer]:
    """Return {name: in-place layer} for each ReLU and Add that may overwrite an input.

    The input must be the output of a layer that allocates memory, and nothing else may read it. The result is
    empty on backends that do not run layers separately.
    """
    if not backend.RUNS_EAGERLY:
        return {}
    ordered = layer_graph.calls(model)
    uses = layer_graph.count_uses(model, ordered)
    in_place: dict[str, layers.Layer] = {}
    for call in ordered:
        layer, inputs = call.operation, call.input_tensors
        writable = [index for index, features in enumerate(inputs) if _is_writable(features, uses)]
        if not writable:
            continue
        options = {"name": layer.name, "dtype": getattr(layer, "dtype_policy", None)}
        if _is_default_relu(layer):
            in_place[layer.name] = InPlaceReLU(**options)
        if type(layer) is layers.Add and len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
            in_place[layer.name] = InPlaceAdd(writable[0], **options)
    return in_place


def _is_writable(features: Tensor, uses: Counter[int]) -> bool:
    producer = keras_internals.producer(features)
    return uses[id(features)] == 1 and isinstance(producer, ALLOCATING_LAYERS)


def _is_default_relu(layer: Any) -> bool:
    if type(layer) is not layers.ReLU:
        return False
    return (layer.max_value, layer.negative_slope, layer.threshold) == DEFAULT_RELU

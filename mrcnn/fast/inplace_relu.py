"""Layers that overwrite their input, for inference on PyTorch, which runs each layer by itself."""

from collections import Counter
from typing import Any

import keras
from keras import layers

from mrcnn.backend import layer_graph
from mrcnn.network.heads import RoiConv2D

Tensor = Any
# max_value, negative_slope and threshold of a ReLU that is max(x, 0).
PLAIN = (None, 0, 0)

# Layers whose result is new memory, not a view of their input's.
MAKERS = (layers.Conv2D, layers.BatchNormalization, layers.Add, layers.UpSampling2D, RoiConv2D)


class InPlaceReLU(layers.ReLU):
    """keras.layers.ReLU without limits and slopes, into the memory of its input."""

    def call(self, inputs):
        return inputs.relu_()


class InPlaceAdd(layers.Add):
    """keras.layers.Add of two tensors of one shape, into the memory of one of them.

    into: its place among the inputs.
    """

    def __init__(self, into: int, **kwargs):
        super().__init__(**kwargs)
        self.into = into

    def call(self, inputs):
        return inputs[self.into].add_(inputs[1 - self.into])


def replacements(model: keras.Model) -> dict[str, layers.Layer]:
    """{name: its twin} of each ReLU and Add that may overwrite an input, see `folding.FoldedNetwork`.

    The input must be fresh from one of MAKERS and read by nobody else.
    """
    ordered = layer_graph.calls(model)
    uses = layer_graph.uses(model, ordered)
    found: dict[str, layers.Layer] = {}
    for call in ordered:
        layer, inputs = call.operation, call.input_tensors
        own = [place for place, features in enumerate(inputs) if _is_own(features, uses)]
        options = {"name": layer.name, "dtype": getattr(layer, "dtype_policy", None)}
        if own and _is_plain_relu(layer):
            found[layer.name] = InPlaceReLU(**options)
        if own and type(layer) is layers.Add and len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
            found[layer.name] = InPlaceAdd(own[0], **options)
    return found


def _is_own(features: Tensor, uses: Counter) -> bool:
    return uses[id(features)] == 1 and isinstance(features._keras_history.operation, MAKERS)


def _is_plain_relu(layer: Any) -> bool:
    if type(layer) is not layers.ReLU:
        return False
    return (layer.max_value, layer.negative_slope, layer.threshold) == PLAIN

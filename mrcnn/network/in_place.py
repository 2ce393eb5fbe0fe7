"""ReLU that overwrites its input, for inference on PyTorch, which runs each layer by itself."""

from typing import Any

import keras
from keras import layers

from mrcnn.network import graph_calls
from mrcnn.network.heads import RoiConv2D

Tensor = Any
# max_value, negative_slope and threshold of a ReLU that is max(x, 0).
PLAIN = (None, 0, 0)

# Layers whose result is new memory, not a view of their input's.
MAKERS = (layers.Conv2D, layers.BatchNormalization, layers.Add, RoiConv2D)


class InPlaceReLU(layers.ReLU):
    """keras.layers.ReLU without limits and slopes, into the memory of its input."""

    def call(self, inputs):
        return inputs.relu_()


def replacements(model: keras.Model) -> dict[str, InPlaceReLU]:
    """{name: its twin} of each ReLU that may overwrite its input, see `folding.FoldedNetwork`.

    The input must be fresh from one of MAKERS and read by nobody else.
    """
    ordered = graph_calls.calls(model)
    uses = graph_calls.uses(model, ordered)
    found = {}
    for call in ordered:
        relu = call.operation
        limits = (relu.max_value, relu.negative_slope, relu.threshold) if type(relu) is layers.ReLU else None
        if limits == PLAIN:
            [features] = call.input_tensors
            if uses[id(features)] == 1 and isinstance(features._keras_history.operation, MAKERS):
                found[relu.name] = InPlaceReLU(name=relu.name, dtype=relu.dtype_policy)
    return found

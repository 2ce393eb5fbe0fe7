"""Batch normalisation folded into the convolution before it, for inference.

With stored statistics the normalisation is one factor and one shift per channel (Ioffe and Szegedy 2015,
section 3.1), which the kernel and the bias of the layer before can carry: one pass over the features less for
each of them. The model itself keeps its layers, weights and weight files.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mrcnn.network import convolution, graph_calls
from mrcnn.network.heads import RoiConv2D

Tensor = Any

# Layers whose result is kernel * input + bias, with the axis of output channels last.
LINEAR_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, RoiConv2D)

# Folding takes a copy of the kernel and saves a pass over the result. The box head's first kernel, for whole
# windows, is a third of all weights, and its result a thousand numbers a RoI.
LARGEST_KERNEL = 10_000_000


class FoldedNetwork:
    """A functional model for inference without the batch norms that a layer before can carry.

    original: a built functional model. Its outputs at `training=False` are those of `model`, within rounding.
    `model` shares every layer with the original but those in `pairs`: {name: (layer, its batch norm)}, of
    which it has copies with kernels and biases of their own. A batch norm that always takes the batch's
    statistics (train_bn True) stays, and one that follows something else, or is not alone in doing so.

    replacements: layers without weights that do what the original's layers of these names do, but faster.

    Call `refresh` before each use of `model`: it folds anew after any assignment to a weight of a pair, be it
    by load_weights, set_weights or to the variable itself.
    """

    def __init__(self, original: keras.Model, replacements: Mapping[str, layers.Layer] | None = None):
        self.pairs = dict(_foldable(original))
        new = {name: _copy(layer) for name, (layer, _) in self.pairs.items()} | dict(replacements or {})
        norms = {id(norm) for _, norm in self.pairs.values()}
        self.model = keras.models.clone_model(
            original,
            clone_function=lambda layer: new.get(layer.name, layer),
            call_function=lambda layer, *inputs, **options: (
                inputs[0] if id(layer) in norms else layer(*inputs, **options)
            ),
        )
        convolution.lay_out(self.model)
        self._stale = True
        for layer, norm in self.pairs.values():
            for variable in (*layer.weights, *norm.weights):
                self._watch(variable)

    def _watch(self, variable: keras.Variable) -> None:
        """Take note of assignments to a variable; Keras itself tells nobody."""
        assign = variable.assign

        def assign_and_note(value):
            self._stale = True
            return assign(value)

        variable.assign = assign_and_note

    def refresh(self) -> None:
        """Give the copies the values that follow from the original's present weights."""
        if not self._stale:
            return
        for name, (layer, norm) in self.pairs.items():
            copy = self.model.get_layer(name)
            for variable, value in zip(copy.weights, folded_weights(layer, norm), strict=True):
                variable.assign(value)
        self._stale = False


def folded_weights(layer: layers.Layer, norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias float32 of one layer that does what the layer and its batch norm do.

    layer: one of LINEAR_LAYERS; norm: over its output channels, stored statistics.
    The kernel has the layer's shape, the bias one value per channel.
    """
    kernel, *bias = (ops.convert_to_numpy(weight) for weight in layer.weights)
    mean, variance = (ops.convert_to_numpy(x) for x in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + norm.epsilon)
    if norm.scale:
        factor = factor * ops.convert_to_numpy(norm.gamma)
    shift = ((bias[0] if bias else 0.0) - mean.astype(np.float64)) * factor
    if norm.center:
        shift = shift + ops.convert_to_numpy(norm.beta)
    if isinstance(layer, layers.DepthwiseConv2D):  # its kernel ends in (channels, multiplier)
        factor = factor.reshape(kernel.shape[-2:])
    return kernel * factor.astype(np.float32), shift.astype(np.float32)


def _foldable(model: keras.Model) -> Iterator[tuple[str, tuple[layers.Layer, layers.Layer]]]:
    """(name, (layer, its batch norm)) of each pair of a model that can become one layer."""
    nodes = graph_calls.calls(model)
    uses = graph_calls.uses(model, nodes)
    calls = Counter(id(node.operation) for node in nodes)
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, layers.BatchNormalization) or getattr(norm, "train_bn", None) is True:
            continue
        features = node.input_tensors[0]
        layer = features._keras_history.operation
        alone = uses[id(features)] == calls[id(layer)] == calls[id(norm)] == 1
        small = math.prod(layer.weights[0].shape) <= LARGEST_KERNEL
        if alone and small and _is_linear(layer) and norm.axis in (-1, len(features.shape) - 1):
            yield layer.name, (layer, norm)


def _is_linear(layer: Any) -> bool:
    if not isinstance(layer, LINEAR_LAYERS) or layer.activation is not keras.activations.linear:
        return False
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _copy(layer: layers.Layer) -> layers.Layer:
    """A layer of the same kind and name, with a bias; its weights are still to come."""
    config = layer.get_config()
    if "use_bias" in config:
        config["use_bias"] = True
    for name in ("kernel_initializer", "depthwise_initializer"):  # random values would only cost time
        if name in config:
            config[name] = "zeros"
    return type(layer).from_config(config)

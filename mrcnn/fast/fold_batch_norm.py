"""Batch normalisation with stored statistics, folded into the convolution before it.

It is one factor and one shift per channel then (Ioffe and Szegedy 2015, section 3.1), which the kernel and
the bias of the layer before can carry: one pass over the features less for each of them, and in training no
copy of them for the gradient of gamma. The model itself keeps its layers, weights and weight files.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import signature
from typing import Any

import keras
from keras import layers, ops

from mrcnn.backend import layer_graph
from mrcnn.network import convolution
from mrcnn.network.heads import RoiConv2D

Tensor = Any

# The values of train_bn (None: as of Keras) with which a norm takes the batch's own statistics.
BY_BATCH, BY_BATCH_IN_TRAINING = (True,), (True, None)

# Layers whose result is kernel * input + bias, with the axis of output channels last.
LINEAR_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, RoiConv2D)

# Folding takes a copy of the kernel and saves a pass over the result. Larger kernels than this are those of
# the box head and of the last stage, and larger than their results; they are two thirds of all weights.
LARGEST_KERNEL = 1_000_000


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
        self.pairs = dict(_foldable(original, BY_BATCH))
        new = {name: _copy(layer) for name, (layer, _) in self.pairs.items()} | dict(replacements or {})
        self.model = _rebuilt(original, new, [norm for _, norm in self.pairs.values()])
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


class FoldedLayer(layers.Layer):
    """A layer and the batch norm behind it, folded anew at each call: gradients reach the weights of both.

    layer: one of LINEAR_LAYERS; norm: over its output channels, stored statistics. Their weights stay theirs.
    Call with the layer's input; returns the norm's output in the layer's compute dtype.
    """

    def __init__(self, layer: layers.Layer, norm: layers.BatchNormalization):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self._knows_training = "training" in signature(layer.call).parameters
        self._both = lambda: (layer, norm)  # out of Keras' sight: weights must not appear twice

    def call(self, inputs, training=None):
        layer, norm = self._both()
        kernel, bias = folded_weights(layer, norm)
        values = list(zip(layer.weights, (kernel, bias), strict=False))
        with keras.StatelessScope(state_mapping=values):
            outputs = layer.call(inputs, **({"training": training} if self._knows_training else {}))
        return outputs if len(values) == 2 else ops.add(outputs, ops.cast(bias, outputs.dtype))

    def compute_output_spec(self, inputs):
        return self._both()[0].compute_output_spec(inputs)


def folded_at_each_call(original: keras.Model) -> keras.Model:
    """A functional model that computes what the original does, in training too, from the same variables.

    Batch norms that always take the stored statistics (train_bn False) are folded where a layer before can
    carry them. By the chain rule the gradients of a kernel W, of gamma and of beta are those of the original:
    the norm's input, of which gamma's gradient is made there, is not needed here.
    """
    pairs = dict(_foldable(original, BY_BATCH_IN_TRAINING))
    new = {name: FoldedLayer(layer, norm) for name, (layer, norm) in pairs.items()}
    return _rebuilt(original, new, [norm for _, norm in pairs.values()])


def folded_weights(layer: layers.Layer, norm: layers.BatchNormalization) -> tuple[Tensor, Tensor]:
    """Kernel and bias float32 of one layer that does what the layer and its batch norm do.

    layer: one of LINEAR_LAYERS; norm: over its output channels, stored statistics.
    The kernel has the layer's shape, the bias one value per channel. Gradients flow to the weights of both.
    """
    kernel, *bias = (ops.cast(weight, "float32") for weight in layer.weights)
    factor = 1.0 / ops.sqrt(ops.cast(norm.moving_variance, "float32") + norm.epsilon)
    if norm.scale:
        factor = factor * ops.cast(norm.gamma, "float32")
    shift = ((bias[0] if bias else 0.0) - ops.cast(norm.moving_mean, "float32")) * factor
    if norm.center:
        shift = shift + ops.cast(norm.beta, "float32")
    if isinstance(layer, layers.DepthwiseConv2D):  # its kernel ends in (channels, multiplier)
        factor = ops.reshape(factor, kernel.shape[-2:])
    return kernel * factor, shift


def _rebuilt(
    model: keras.Model, new: Mapping[str, layers.Layer], left_out: Iterable[layers.Layer]
) -> keras.Model:
    """The model with the same layers but for new ones, by name, and without some."""
    unused = {id(layer) for layer in left_out}
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: new.get(layer.name, layer),
        call_function=lambda layer, *inputs, **options: (
            inputs[0] if id(layer) in unused else layer(*inputs, **options)
        ),
    )


def _foldable(
    model: keras.Model, by_batch: Collection[bool | None]
) -> Iterator[tuple[str, tuple[layers.Layer, layers.Layer]]]:
    """(name, (layer, its batch norm)) of each pair of a model that can become one layer.

    by_batch: the values of train_bn with which a norm takes the batch's own statistics.
    """
    nodes = layer_graph.calls(model)
    uses = layer_graph.uses(model, nodes)
    calls = Counter(id(node.operation) for node in nodes)
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, layers.BatchNormalization) or getattr(norm, "train_bn", None) in by_batch:
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

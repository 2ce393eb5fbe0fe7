"""Batch norms with stored statistics, folded into the convolution before them.

Such a norm is a factor and a shift per channel (Ioffe and Szegedy, 2015, section 3.1), which can be included
in the kernel and the bias of the preceding layer. This saves a pass over the features per norm. In training
it also saves a copy of the features for the gradient of gamma, which follows from that of the kernel by the
chain rule.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import keras
from keras import layers

from mrcnn import backend
from mrcnn.backend import keras_internals, layer_graph
from mrcnn.fast.stand_ins import ConvolutionStandIn, folded_weights
from mrcnn.network.convolution import Conv2D, DepthwiseConv2D
from mrcnn.network.normalization import BatchNorm
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D

# The values of train_bn (None for Keras' own layers) with which a norm uses the statistics of the batch.
USES_BATCH, USES_BATCH_IN_TRAINING = (True,), (True, None)

# Layers whose outputs are kernel * inputs + bias, with the output channels on the last axis, and batch norms.
# A class derived from one of them may compute something else.
LINEAR_LAYERS = {layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, Conv2D, DepthwiseConv2D, RoiConv2D}
BATCH_NORMS = {layers.BatchNormalization, BatchNorm}

# Folding copies the kernel and saves a pass over the outputs. It does not pay for kernels larger than this,
# which are those of the box head and stage 5: they are larger than their outputs and two thirds of all
# weights.
LARGEST_KERNEL = 1_000_000

Pair = tuple[layers.Layer, layers.BatchNormalization]


class FoldedCopies:
    """Copies of convolutions with the batch norms of a model folded in, for inference.

    Attributes:
        pairs: {name: (layer, its batch norm)}.
        copies: {name: copy of the layer with its own kernel and bias}.
    """

    def __init__(self, model: keras.Model):
        self.pairs = dict(foldable(model, USES_BATCH))
        self.copies = {name: _copy(layer) for name, (layer, _) in self.pairs.items()}
        self._stale = True
        for layer, norm in self.pairs.values():
            for variable in (*layer.weights, *norm.weights):
                keras_internals.watch_assignments(variable, self._mark_stale)

    def _mark_stale(self) -> None:
        self._stale = True

    def refresh(self) -> None:
        """Fold again if a weight of a pair was assigned since the last call."""
        if not self._stale:
            return
        for name, pair in self.pairs.items():
            for variable, value in zip(self.copies[name].weights, folded_weights(*pair), strict=True):
                variable.assign(value)
        self._stale = False


def training_stand_ins(model: keras.Model) -> tuple[dict[str, ConvolutionStandIn], list[layers.Layer]]:
    """Return a stand-in, by name, for each layer whose batch norm can be folded, and these norms."""
    pairs = dict(foldable(model, USES_BATCH_IN_TRAINING))
    stand_ins = {name: ConvolutionStandIn(layer, norm) for name, (layer, norm) in pairs.items()}
    return stand_ins, [norm for _, norm in pairs.values()]


def foldable(model: keras.Model, uses_batch: Collection[bool | None]) -> Iterator[tuple[str, Pair]]:
    """Return (name, (layer, its batch norm)) of each pair of a functional model that can become one layer.

    A norm qualifies if it follows a linear layer, both are called once, and nothing else reads the output of
    the layer.

    Args:
        model: A functional model.
        uses_batch: The values of train_bn for which a norm uses the statistics of the batch.
    """
    ordered = layer_graph.calls(model)
    uses = layer_graph.count_uses(model, ordered)
    call_counts = Counter(id(call.operation) for call in ordered)
    for call in ordered:
        norm = call.operation
        if type(norm) not in BATCH_NORMS or getattr(norm, "train_bn", None) in uses_batch:
            continue
        features = call.input_tensors[0]
        layer = keras_internals.producer(features)
        alone = uses[id(features)] == call_counts[id(layer)] == call_counts[id(norm)] == 1
        if not alone or not _is_linear(layer) or norm.axis not in (-1, len(features.shape) - 1):
            continue
        if math.prod(layer.weights[0].shape) <= LARGEST_KERNEL:
            yield layer.name, (layer, norm)


def _is_linear(layer: Any) -> bool:
    if type(layer) not in LINEAR_LAYERS or layer.activation is not keras.activations.linear:
        return False
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _copy(layer: layers.Layer) -> layers.Layer:
    """Return a layer of the same class and name with a bias. Its weights are assigned later."""
    config = layer.get_config()
    if "use_bias" in config:
        config["use_bias"] = True
    for name in ("kernel_initializer", "depthwise_initializer"):  # random values would only cost time
        if name in config:
            config[name] = "zeros"
    return type(layer).from_config(config)


def use_convolution_layout(model: keras.Model) -> None:
    """Store the kernels of a model's convolutions in memory as the backend reads them, for inference.

    No value changes. In training, gradients would have to be stored in the same order.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            use_convolution_layout(layer)
        elif type(layer) in (layers.Conv2D, Conv2D) or (isinstance(layer, RoiConv2D) and not layer.is_matmul):
            backend.to_convolution_layout(layer.kernel)

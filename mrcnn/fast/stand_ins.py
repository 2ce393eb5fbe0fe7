"""Layers that compute the same as another layer, with its variables."""

from collections.abc import Callable
from inspect import signature

import keras
from keras import layers, ops

from mrcnn import backend
from mrcnn.typing import Tensor


class ConvolutionStandIn(layers.Layer):
    """A stand-in for a convolution, optionally with the following batch norm, by another implementation.

    It uses the weights of the layer, and gradients reach them. Call with the layer's input.

    Args:
        layer: The convolution. Only a layer with a `convolve` method can use another implementation.
        norm: A batch norm with stored statistics over the output channels, which is folded into the kernel at
            each call; or None.
        convolution: An implementation of `backend.conv2d`.
    """

    def __init__(
        self,
        layer: layers.Layer,
        norm: layers.BatchNormalization | None = None,
        convolution: Callable[..., Tensor] = backend.conv2d,
    ):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.convolution = convolution
        self._takes_training = "training" in signature(layer.call).parameters
        # Hidden from Keras, which would list the weights twice.
        self._parts = lambda: (layer, norm)

    @property
    def layer(self) -> layers.Layer:
        """The layer that this one replaces."""
        return self._parts()[0]

    @property
    def norm(self) -> layers.BatchNormalization | None:
        """The batch norm that is folded into the layer."""
        return self._parts()[1]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        layer, norm = self._parts()
        if norm is None:
            kernel, bias = layer.kernel, layer.bias
        else:
            kernel, bias = folded_weights(layer, norm)
        if hasattr(layer, "convolve"):
            kernel, bias = (None if x is None else ops.cast(x, self.compute_dtype) for x in (kernel, bias))
            return layer.convolve(inputs, kernel, bias, self.convolution)
        return self._call_with(layer, inputs, kernel, bias, training)

    def _call_with(
        self, layer: layers.Layer, inputs: Tensor, kernel: Tensor, bias: Tensor, training: bool | None
    ) -> Tensor:
        """Call a Keras layer with other weights."""
        values = list(zip(layer.weights, (kernel, bias), strict=False))
        with keras.StatelessScope(state_mapping=values):
            outputs = layer.call(inputs, **({"training": training} if self._takes_training else {}))
        return outputs if len(values) == 2 else ops.add(outputs, ops.cast(bias, outputs.dtype))

    def compute_output_spec(self, inputs: Tensor) -> Tensor:
        return self.layer.compute_output_spec(inputs)


def folded_weights(layer: layers.Layer, norm: layers.BatchNormalization) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of a layer that replaces a layer and its batch norm (Ioffe and Szegedy, 2015).

    Args:
        layer: A convolution or dense layer: its outputs are kernel * inputs + bias.
        norm: A batch norm with stored statistics over the output channels.

    Returns:
        The kernel in the layer's shape and the bias, one value per channel, both float32. Gradients flow to
        the weights of both layers.
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

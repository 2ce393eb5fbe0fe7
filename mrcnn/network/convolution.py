"""Convolutions: Keras' layers, which on PyTorch leave the features where they are in memory."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mrcnn.network import torch_kernels

Tensor = Any


def convolve(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolution with stride 1 and "same" padding, and its bias.

    inputs: [B, h, w, C]; kernel: [rows, columns, C, filters]; bias: [filters]. Returns [B, h, w, filters].
    """
    if torch_kernels.serve():
        return torch_kernels.conv2d(inputs, kernel, bias)
    outputs = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
    # Directly behind the convolution, so that compilers make one operation of both.
    return ops.add(outputs, bias)


class Conv2D(layers.Conv2D):
    """keras.layers.Conv2D on [B, h, w, C]."""

    def call(self, inputs):
        if not torch_kernels.serve() or self.data_format != "channels_last":
            return super().call(inputs)
        options = (self.strides, self.padding, self.dilation_rate, self.groups)
        return _activated(torch_kernels.conv2d(inputs, self.kernel, self.bias, *options), self.activation)


class DepthwiseConv2D(layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D on [B, h, w, C]."""

    def call(self, inputs):
        if not torch_kernels.serve() or self.data_format != "channels_last":
            return super().call(inputs)
        rows, columns, channels, multiplier = self.kernel.shape
        kernel = ops.reshape(self.kernel, (rows, columns, 1, channels * multiplier))
        options = (self.strides, self.padding, self.dilation_rate, channels)
        return _activated(torch_kernels.conv2d(inputs, kernel, self.bias, *options), self.activation)


def lay_out(model: keras.Model) -> None:
    """Order the kernels of a model in memory as they are read; for inference, nothing else changes.

    Training would have to bring its gradients into the same order.
    """
    if not torch_kernels.serve():
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            lay_out(layer)
        elif len(getattr(layer, "kernel", np.empty(0)).shape) == 4:
            torch_kernels.lay_out(layer.kernel)


def _activated(outputs: Tensor, activation: Any) -> Tensor:
    """An activation of a convolution's result, which nobody else reads."""
    return outputs.relu_() if activation is keras.activations.relu else activation(outputs)

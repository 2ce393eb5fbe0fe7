"""Convolutions: Keras' layers, which on PyTorch leave the features where they are in memory."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mrcnn.network import torch_kernels
from mrcnn.network.torch_kernels import same_margins

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


def depthwise(inputs: Tensor, kernel: Tensor, strides: Sequence[int], padding: str) -> Tensor:
    """Depthwise convolution as a sum of shifted products, one for each cell of the window.

    XLA makes one loop over the features of it; its own depthwise convolution was six times slower on a CPU.
    inputs: [B, h, w, C]; kernel: [rows, columns, C, multiplier]; padding: "same" or "valid", as TensorFlow
    counts it. Returns [B, h', w', C * multiplier].
    """
    window, multiplier = kernel.shape[:2], kernel.shape[3]
    sides = ops.shape(inputs)[1:3]
    margins = [(0, 0)] * 2
    if padding == "same":
        margins = [same_margins(*along) for along in zip(sides, window, strides, strict=True)]
        inputs = ops.pad(inputs, [(0, 0), *margins, (0, 0)])
    height, width = (
        (side + sum(margin) - cells) // stride + 1
        for side, margin, cells, stride in zip(sides, margins, window, strides, strict=True)
    )
    outputs = 0.0
    for row in range(window[0]):
        for column in range(window[1]):
            last = row + (height - 1) * strides[0], column + (width - 1) * strides[1]
            seen = inputs[:, row : last[0] + 1 : strides[0], column : last[1] + 1 : strides[1], :, None]
            outputs = outputs + seen * ops.convert_to_tensor(kernel)[row, column]
    return ops.reshape(outputs, (-1, height, width, inputs.shape[-1] * multiplier))


class DepthwiseConv2D(layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D on [B, h, w, C]."""

    def call(self, inputs):
        if self.data_format != "channels_last":
            return super().call(inputs)
        if keras.backend.backend() == "jax" and set(self.dilation_rate) == {1}:
            outputs = depthwise(inputs, self.kernel, self.strides, self.padding)
            return self.activation(outputs if self.bias is None else ops.add(outputs, self.bias))
        if not torch_kernels.serve():
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

"""Convolutions: Keras' layers, in the formulation that each backend runs fastest."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from mrcnn.backend import torch_ops
from mrcnn.backend.torch_ops import NO_MARGINS, Margins
from mrcnn.fast import matmul_gradient

Tensor = Any
Pair = Sequence[int]


def convolve(inputs: Tensor, kernel: Tensor, bias: Tensor, training: bool | None = False) -> Tensor:
    """Convolution with stride 1 and "same" padding, and its bias.

    inputs: [B, h, w, C]; kernel: [rows, columns, C, filters]; bias: [filters]; training: whether it will be
    differentiated. Returns [B, h, w, filters].
    """
    if training and matmul_gradient.pays(inputs, kernel.shape[:2]):
        return matmul_gradient.convolution(inputs, kernel, bias)
    if torch_ops.serve():
        margins = margins_of("same", inputs.shape[1:3], kernel.shape[:2])
        return torch_ops.conv2d(inputs, kernel, bias, margins=margins)
    outputs = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
    # Directly behind the convolution, so that compilers make one operation of both.
    return ops.add(outputs, bias)


def affine(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Matrix product and its bias. inputs: [..., C]; kernel: [C, filters]; bias: [filters]."""
    if torch_ops.serve():
        return torch_ops.affine(inputs, kernel, bias)
    return ops.add(ops.matmul(inputs, kernel), bias)


def margins_of(
    padding: str, sides: Pair, window: Pair, strides: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Margins:
    """Zeros around features of these sides, as TensorFlow counts them.

    padding: "valid" for none, or "same" for as many as let the window start at every stride-th cell.
    """
    if padding == "valid":
        return NO_MARGINS
    margins = []
    for length, cells, stride, step in zip(sides, window, strides, dilation, strict=True):
        places = -(-length // stride)
        total = max((places - 1) * stride + (cells - 1) * step + 1 - length, 0)
        margins.append((total // 2, total - total // 2))
    return margins


class Conv2D(layers.Conv2D):
    """keras.layers.Conv2D on [B, h, w, C]."""

    def call(self, inputs, training=None):
        if training and self._is_plain() and matmul_gradient.pays(inputs, self.kernel_size):
            rows, columns = self.strides  # other than 1 for one cell, which is all that the stride leaves
            seen = inputs[:, ::rows, ::columns] if max(self.strides) > 1 else inputs
            return self.activation(matmul_gradient.convolution(seen, self.kernel, self.bias))
        if torch_ops.serve() and self.data_format == "channels_last":
            return _on_torch(self, inputs, self.kernel, self.groups)
        return super().call(inputs)

    def _is_plain(self) -> bool:
        """Whether this is a convolution with stride 1 and "same" padding, perhaps of every n-th cell."""
        shifts = set(self.strides) == {1} and self.padding == "same"
        one_piece = self.groups == 1 and set(self.dilation_rate) == {1}
        return self.data_format == "channels_last" and one_piece and (shifts or self.kernel_size == (1, 1))

    def lay_out(self) -> None:
        """See `lay_out` below."""
        torch_ops.lay_out(self.kernel)


class DepthwiseConv2D(layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D on [B, h, w, C]."""

    def call(self, inputs):
        if self.data_format != "channels_last":
            return super().call(inputs)
        if keras.backend.backend() == "jax" and set(self.dilation_rate) == {1}:
            outputs = depthwise(inputs, self.kernel, self.strides, self.padding)
            return self.activation(outputs if self.bias is None else ops.add(outputs, self.bias))
        if torch_ops.serve():
            rows, columns, channels, multiplier = self.kernel.shape
            kernel = ops.reshape(self.kernel, (rows, columns, 1, channels * multiplier))
            return _on_torch(self, inputs, kernel, channels)
        return super().call(inputs)


def depthwise(inputs: Tensor, kernel: Tensor, strides: Pair, padding: str) -> Tensor:
    """Depthwise convolution as a sum of shifted products, one for each cell of the window.

    XLA makes one loop over the features of it; its own depthwise convolution was 5 to 30 times slower on a
    CPU.
    inputs: [B, h, w, C]; kernel: [rows, columns, C, multiplier]; padding: "same" or "valid", as TensorFlow
    counts it. Returns [B, h', w', C * multiplier].
    """
    window, multiplier = kernel.shape[:2], kernel.shape[3]
    margins = margins_of(padding, ops.shape(inputs)[1:3], window, strides)
    inputs = ops.pad(inputs, [(0, 0), *margins, (0, 0)])
    height, width = (
        (side - cells) // stride + 1
        for side, cells, stride in zip(ops.shape(inputs)[1:3], window, strides, strict=True)
    )
    outputs = 0.0
    for row in range(window[0]):
        for column in range(window[1]):
            last = row + (height - 1) * strides[0], column + (width - 1) * strides[1]
            seen = inputs[:, row : last[0] + 1 : strides[0], column : last[1] + 1 : strides[1], :, None]
            outputs = outputs + seen * ops.convert_to_tensor(kernel)[row, column]
    return ops.reshape(outputs, (-1, height, width, inputs.shape[-1] * multiplier))


def lay_out(model: keras.Model) -> None:
    """Order the kernels of a model's convolutions in memory as they are read; only on PyTorch.

    For inference: training would have to bring its gradients into the same order. No value changes.
    """
    for layer in model.layers if torch_ops.serve() else ():
        if isinstance(layer, keras.Model):
            lay_out(layer)
        elif hasattr(layer, "lay_out"):
            layer.lay_out()


def _on_torch(layer: Any, inputs: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """What a layer of Keras computes with this kernel [rows, columns, C / groups, filters]."""
    margins = margins_of(
        layer.padding, inputs.shape[1:3], kernel.shape[:2], layer.strides, layer.dilation_rate
    )
    outputs = torch_ops.conv2d(
        inputs, kernel, layer.bias, layer.strides, margins, layer.dilation_rate, groups
    )
    # Nobody else reads the result of the convolution.
    return outputs.relu_() if layer.activation is keras.activations.relu else layer.activation(outputs)

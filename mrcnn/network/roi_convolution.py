"""Convolutions of RoI features, computed as matrix products where possible.

A convolution is a matrix product if its kernel covers the whole input, is 1x1, or is a transposed 2x2 kernel
with stride 2. Weights keep the shapes of ordinary convolutions, so weight files fit. The classes have the
names of Keras' convolutions, by which old programs choose layers; other modules import them as RoiConv2D and
RoiConv2DTranspose.

Axes: B images, N RoIs, h and w cells, C channels.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from mrcnn import backend
from mrcnn.network.initializers import GlorotUniform
from mrcnn.typing import Shape, Tensor


@keras.saving.register_keras_serializable("mrcnn", name="RoiConv2D")
class Conv2D(layers.Layer):
    """Convolve the features of each RoI with stride 1.

    Call with [B, N, h, w, C]. Returns [B, N, h, w, filters], or [B, N, 1, 1, filters] with "valid" padding.
    Weights: kernel (kernel_size, kernel_size, C, filters), bias (filters).

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel in cells.
        padding: "same", or "valid" for a kernel that covers the whole input.
        activation: Name of a Keras activation, or None.
        use_bias: Whether the layer has a bias.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        padding: str = "same",
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.filters = filters
        self.kernel_size = kernel_size
        self.padding = padding
        self.activation = keras.activations.get(activation)

    @property
    def is_matmul(self) -> bool:
        """Whether the layer is a matrix product."""
        return self.padding == "valid" or self.kernel_size == 1

    def build(self, input_shape: Shape) -> None:
        if self.padding == "valid" and tuple(input_shape[2:4]) != (self.kernel_size,) * 2:
            raise ValueError(
                f'Layer {self.name} has padding "valid", so its input must have the size of its kernel, '
                f"{self.kernel_size} x {self.kernel_size}. Received: input_shape={input_shape}"
            )
        side, channels = self.kernel_size, input_shape[-1]
        self.kernel = self.add_weight(
            shape=(side, side, channels, self.filters), initializer=GlorotUniform(), name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return self.convolve(inputs, self.kernel, self.bias)

    def convolve(
        self,
        inputs: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        convolution: Callable[..., Tensor] = backend.conv2d,
    ) -> Tensor:
        """Apply the layer with other weights or another implementation of `backend.conv2d`."""
        shape = ops.shape(inputs)
        if self.is_matmul and bias is None:
            bias = ops.zeros((self.filters,), dtype=inputs.dtype)
        if self.padding == "valid":
            flat = ops.reshape(inputs, (*shape[:2], 1, 1, -1))
            return self.activation(backend.affine(flat, ops.reshape(kernel, (-1, self.filters)), bias))
        if self.kernel_size == 1:
            return self.activation(backend.affine(inputs, ops.convert_to_tensor(kernel)[0, 0], bias))
        images = ops.reshape(inputs, (-1, *shape[2:]))
        outputs = self.activation(convolution(images, kernel, bias))
        return ops.reshape(outputs, (*shape[:4], self.filters))

    def select_channel(self, inputs: Tensor, channels: Tensor) -> Tensor:
        """Compute one output channel per RoI of a 1x1 layer, with a fraction of the arithmetic.

        Args:
            inputs: [B, N, h, w, C].
            channels: int [B, N].

        Returns:
            [B, N, h, w].
        """
        kernel = ops.take(ops.transpose(self.kernel[0, 0]), channels, axis=0)  # [B, N, C]
        assert self.bias is not None  # the last layer of the mask head has one
        bias = ops.take(self.bias, channels, axis=0)
        outputs = ops.einsum("bnhwc,bnc->bnhw", inputs, ops.cast(kernel, inputs.dtype))
        return self.activation(outputs + ops.cast(bias, inputs.dtype)[:, :, None, None])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        cells = (1, 1) if self.padding == "valid" else tuple(input_shape[2:4])
        return (*input_shape[:2], *cells, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable("mrcnn", name="RoiConv2DTranspose")
class Conv2DTranspose(layers.Layer):
    """Transposed 2x2 convolution of the features of each RoI with stride 2, which doubles height and width.

    Call with [B, N, h, w, C]. Returns [B, N, 2h, 2w, filters].
    Weights: kernel (2, 2, filters, C), bias (filters).

    Args:
        filters: Output channels.
        activation: Name of a Keras activation, or None.
    """

    def __init__(
        self,
        filters: int,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(2, 2, self.filters, input_shape[-1]), initializer=GlorotUniform(), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        batch, rois, height, width, channels = ops.shape(inputs)
        # With stride 2 the outputs do not overlap: each cell becomes a 2x2 block of its own.
        kernel = ops.reshape(ops.transpose(self.kernel, (3, 0, 1, 2)), (channels, -1))
        outputs = backend.affine(inputs, kernel, ops.tile(self.bias, 4))
        outputs = ops.reshape(outputs, (-1, height, width, 2, 2, self.filters))
        outputs = ops.transpose(outputs, (0, 1, 3, 2, 4, 5))
        outputs = ops.reshape(outputs, (batch, rois, 2 * height, 2 * width, self.filters))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, rois, height, width, _ = input_shape
        if height is None or width is None:
            return (batch, rois, None, None, self.filters)
        return (batch, rois, 2 * height, 2 * width, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "activation": keras.activations.serialize(self.activation),
        }

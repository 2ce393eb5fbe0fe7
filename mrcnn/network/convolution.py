"""Keras' convolution and pooling layers, run by the operations of `mrcnn.backend`, always channels last.

Axes: B images, h and w cells, C channels.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from mrcnn import backend
from mrcnn.backend.plain import Padding, Pair
from mrcnn.network.initializers import GlorotUniform
from mrcnn.typing import Tensor

Convolution = Callable[..., Tensor]


@keras.saving.register_keras_serializable("mrcnn")
class Conv2D(layers.Conv2D):
    """keras.layers.Conv2D on [B, h, w, C].

    Args:
        symmetric: With padding "same" and an odd kernel, whether to pad all sides equally, as PyTorch does.
            With a stride of 2, TensorFlow pads less at the top and left.
    """

    def __init__(self, *args: Any, symmetric: bool = False, **kwargs: Any):
        kwargs.setdefault("kernel_initializer", GlorotUniform())
        super().__init__(*args, **{**kwargs, "data_format": "channels_last"})
        self.symmetric = symmetric

    def call(self, inputs: Tensor) -> Tensor:
        return self.convolve(inputs, self.kernel, self.bias)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "symmetric": self.symmetric}

    def convolve(
        self,
        inputs: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        convolution: Convolution = backend.conv2d,
    ) -> Tensor:
        """Apply the layer with other weights or another implementation of `backend.conv2d`."""
        outputs = convolution(
            inputs,
            kernel,
            bias,
            strides=self.strides,
            padding=_padding(self.padding, self.kernel_size, self.strides, self.symmetric),
            dilation=self.dilation_rate,
            groups=self.groups,
        )
        return backend.activate(outputs, self.activation)


@keras.saving.register_keras_serializable("mrcnn")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D on [B, h, w, C]."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("depthwise_initializer", GlorotUniform())
        super().__init__(*args, **{**kwargs, "data_format": "channels_last"})

    def call(self, inputs: Tensor) -> Tensor:
        outputs = backend.depthwise_conv2d(
            inputs,
            self.kernel,
            self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
        )
        return backend.activate(outputs, self.activation)


@keras.saving.register_keras_serializable("mrcnn")
class MaxPooling2D(layers.MaxPooling2D):
    """keras.layers.MaxPooling2D on [B, h, w, C].

    Args:
        symmetric: See `Conv2D`.
    """

    def __init__(self, *args: Any, symmetric: bool = False, **kwargs: Any):
        super().__init__(*args, **{**kwargs, "data_format": "channels_last"})
        self.symmetric = symmetric

    def call(self, inputs: Tensor) -> Tensor:
        padding = _padding(self.padding, self.pool_size, self.strides, self.symmetric)
        return backend.max_pool(inputs, self.pool_size, self.strides, padding)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "symmetric": self.symmetric}


def _padding(padding: str, kernel_size: Pair, strides: Pair, symmetric: bool) -> Padding:
    """Return the padding to pass to the backend. Without a stride, "same" is symmetric for odd kernels."""
    if not symmetric or padding != "same" or set(strides) == {1}:
        return padding
    return [(side // 2, side // 2) for side in kernel_size]

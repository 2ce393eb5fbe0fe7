"""Gradients of convolutions as matrix products in training, if the backend's own gradients are slower."""

from collections.abc import Mapping

import keras

from mrcnn import backend
from mrcnn.backend.plain import Padding, Pair
from mrcnn.fast.stand_ins import ConvolutionStandIn
from mrcnn.network.convolution import Conv2D
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.typing import Tensor


def conv2d(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "same",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve as `backend.conv2d`, with gradients as matrix products if that is possible and faster."""
    kernel_size = tuple(kernel.shape[:2])
    dense = groups == 1 and set(dilation) == {1} and all(side % 2 for side in kernel_size)
    is_pointwise = kernel_size == (1, 1) and isinstance(padding, str)
    unit_stride = set(strides) == {1} and padding == "same"
    exact = keras.backend.standardize_dtype(inputs.dtype) == "float32"
    if (
        dense
        and exact
        and (unit_stride or is_pointwise)
        and backend.matmul_gradient_pays(inputs, kernel_size)
    ):
        if is_pointwise and max(strides) > 1:  # a 1x1 kernel reads the cells that the stride leaves
            inputs = inputs[:, :: strides[0], :: strides[1]]
        return backend.conv2d_matmul_grad(inputs, kernel, bias)
    return backend.conv2d(
        inputs, kernel, bias, strides=strides, padding=padding, dilation=dilation, groups=groups
    )


def training_stand_ins(
    model: keras.Model, stand_ins: Mapping[str, ConvolutionStandIn]
) -> dict[str, ConvolutionStandIn]:
    """Return a stand-in with these gradients, by name, for each convolution of a model.

    Args:
        model: A functional model.
        stand_ins: Stand-ins of another fast path, which get these gradients, too.
    """
    found = {}
    for layer in model.layers:
        norm = stand_ins[layer.name].norm if layer.name in stand_ins else None
        # A class derived from one of them may compute something else.
        if type(layer) is Conv2D or (type(layer) is RoiConv2D and not layer.is_matmul):
            found[layer.name] = ConvolutionStandIn(layer, norm, conv2d)
    return found

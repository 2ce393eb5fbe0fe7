"""Convolutions with gradients as matrix products, for training on a CPU.

The gradient of a kernel is a sum over all cells of a feature map, for each cell of the window one product
[C, cells] x [cells, filters]. Backends hand it to convolution routines made for large windows: those of XLA
and, without AVX-512, of oneDNN and Eigen reach between a tenth and two thirds of what matrix products do.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.backend import cpu, torch_ops

Tensor = Any
Pair = Sequence[int]

# TensorFlow's own gradients are as good on maps of fewer cells.
FEWEST_CELLS = 2048


def pays(inputs: Tensor, window: Pair) -> bool:
    """Whether `convolution` is the faster way to train on this machine.

    inputs: [B, h, w, C]; window: sides of the kernel.
    """
    exact = keras.backend.standardize_dtype(inputs.dtype) == "float32"
    if not exact or not all(side % 2 for side in window) or not cpu.is_on_cpu(inputs):
        return False
    if keras.backend.backend() == "jax":
        return True
    if max(window) == 1 or not cpu.has_avx2_at_most():
        return False
    return _cells(inputs) >= FEWEST_CELLS or keras.backend.backend() == "torch"


def convolution(inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution with stride 1 and "same" padding, and its bias if there is one.

    inputs: [B, h, w, C]; kernel: [rows, columns, C, filters], rows and columns odd; bias: [filters]; float32.
    Returns [B, h, w, filters].
    """
    if torch_ops.serve():
        return torch_ops.conv2d_by_products(inputs, kernel, bias)

    @ops.custom_gradient
    def convolved(inputs, kernel):
        def gradient(upstream):
            turned = ops.transpose(ops.flip(kernel, axis=(0, 1)), (0, 1, 3, 2))
            return _forward(upstream, turned), of_kernel(inputs, upstream, kernel.shape[:2])

        return _forward(inputs, kernel), gradient

    # The cast reads a variable: TensorFlow takes it for one that the function hides otherwise.
    outputs = convolved(inputs, ops.cast(kernel, "float32"))
    return outputs if bias is None else ops.add(outputs, bias)


def of_kernel(inputs: Tensor, upstream: Tensor, window: Pair) -> Tensor:
    """The gradient [rows, columns, C, filters] of a convolution's kernel.

    inputs: [B, h, w, C]; upstream: gradient [B, h, w, filters] of the result; window: rows and columns.
    """
    # With the rows of all images outermost, what a row of the window sees is one piece of memory, which
    # TensorFlow does not copy. XLA copies it anyway.
    rows, order = (1, (0, 1, 2, 3)) if keras.backend.backend() == "jax" else (0, (1, 0, 2, 3))
    inputs, upstream = (ops.transpose(maps, order) for maps in (inputs, upstream))
    *cells, filters = ops.shape(upstream)
    margins, channels = [0, 0, window[1] // 2, 0], inputs.shape[-1]
    margins[rows] = window[0] // 2
    padded = ops.pad(inputs, [(margin, margin) for margin in margins])
    upstream = ops.reshape(upstream, (-1, filters))
    products = []
    for column in range(window[1]):
        columns = ops.slice(padded, (0, 0, column, 0), (*ops.shape(padded)[:2], cells[2], channels))
        for row in range(window[0]):
            start = [0] * 4
            start[rows] = row
            seen = ops.reshape(ops.slice(columns, start, (*cells, channels)), (-1, channels))
            products.append(ops.matmul(ops.transpose(seen), upstream))
    found = ops.reshape(ops.stack(products), (window[1], window[0], channels, filters))
    return ops.transpose(found, (1, 0, 2, 3))


def _forward(inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.conv(inputs, kernel, padding="same", data_format="channels_last")


def _cells(inputs: Tensor) -> int:
    """Cells of feature maps; what is not known, such as the number of RoIs, counts as large."""
    return math.prod(side or FEWEST_CELLS for side in inputs.shape[:3])

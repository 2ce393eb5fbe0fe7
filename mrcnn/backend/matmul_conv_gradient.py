"""Convolutions whose gradients are computed as matrix products, for training on a CPU.

The gradient of a kernel is a sum over all cells of a feature map: one matrix product [C, cells] x [cells,
filters] for each position in the kernel. Backends use convolution routines instead, some of which reach only
a tenth of the speed of matrix products for such shapes.
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from mrcnn.backend.custom_gradients import custom_gradient
from mrcnn.typing import Tensor

Pair = Sequence[int]

# Larger maps than this count as large where a size is not known while a graph is built.
UNKNOWN_SIZE = 2048


def conv2d_matmul_grad(
    inputs: Tensor, kernel: Tensor, bias: Tensor | None, rows_first: bool = True
) -> Tensor:
    """Convolve with stride 1 and "same" padding and add the bias, in float32.

    Args:
        inputs: [B, h, w, C].
        kernel: [rows, columns, C, filters]; rows and columns are odd.
        bias: [filters], or None.
        rows_first: See `kernel_gradient`.

    Returns:
        [B, h, w, filters].
    """

    @custom_gradient
    def convolution(inputs: Tensor, kernel: Tensor) -> Any:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            flipped = ops.transpose(ops.flip(kernel, axis=(0, 1)), (0, 1, 3, 2))
            input_gradient = _forward(upstream, flipped)
            return input_gradient, kernel_gradient(inputs, upstream, kernel.shape[:2], rows_first=rows_first)

        return _forward(inputs, kernel), gradient

    # The cast reads a variable outside: TensorFlow would otherwise ask the function for its gradient.
    outputs = convolution(inputs, ops.cast(kernel, "float32"))
    return outputs if bias is None else ops.add(outputs, bias)


def kernel_gradient(
    inputs: Tensor, upstream: Tensor, kernel_size: Pair, *, rows_first: bool = True
) -> Tensor:
    """Compute the gradient of a convolution's kernel.

    Args:
        inputs: [B, h, w, C].
        upstream: Gradient [B, h, w, filters] of the outputs.
        kernel_size: Rows and columns.
        rows_first: Whether to move the rows of all images to the front. The cells that a row of the kernel
            reads are then contiguous in memory, so they need not be copied.

    Returns:
        [rows, columns, C, filters].
    """
    rows_axis, order = (0, (1, 0, 2, 3)) if rows_first else (1, (0, 1, 2, 3))
    inputs, upstream = (ops.transpose(maps, order) for maps in (inputs, upstream))
    *cells, filters = ops.shape(upstream)
    padding, channels = [0, 0, kernel_size[1] // 2, 0], inputs.shape[-1]
    padding[rows_axis] = kernel_size[0] // 2
    padded = ops.pad(inputs, [(side, side) for side in padding])
    upstream = ops.reshape(upstream, (-1, filters))
    products = []
    for column in range(kernel_size[1]):
        columns = ops.slice(padded, (0, 0, column, 0), (*ops.shape(padded)[:2], cells[2], channels))
        for row in range(kernel_size[0]):
            start = [0] * 4
            start[rows_axis] = row
            patch = ops.reshape(ops.slice(columns, start, (*cells, channels)), (-1, channels))
            products.append(ops.matmul(ops.transpose(patch), upstream))
    gradient = ops.reshape(ops.stack(products), (kernel_size[1], kernel_size[0], channels, filters))
    return ops.transpose(gradient, (1, 0, 2, 3))


def cell_count(inputs: Tensor) -> int:
    """Return the number of cells of feature maps [B, h, w, C]. Unknown sizes count as large."""
    return math.prod(side or UNKNOWN_SIZE for side in inputs.shape[:3])


def _forward(inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.conv(inputs, kernel, padding="same", data_format="channels_last")

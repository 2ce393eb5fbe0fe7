"""PyTorch's own operators, called so that they read the layout that Keras keeps: channels last.

`keras.ops.conv` moves each feature map to channels first and back again, two copies a layer; a permuted view
of the same memory does as well. Tensors are torch's throughout; shapes are those of Keras.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any
# Cells before and after, along rows and along columns.
Margins = Sequence[tuple[int, int]]
NO_MARGINS: Margins = ((0, 0), (0, 0))


def serve() -> bool:
    """Whether the running backend is PyTorch, so that these functions can be called."""
    return keras.backend.backend() == "torch"


def conv2d(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    strides: Sequence[int] = (1, 1),
    margins: Margins = NO_MARGINS,
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolution with its bias in one operation.

    inputs: [B, h, w, C]; kernel: [rows, columns, C / groups, filters]; bias: [filters]; margins: zeros before
    and after rows and columns. Returns [B, h', w', filters].
    """
    import torch

    inputs, kernel = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel))
    bias = None if bias is None else keras.ops.convert_to_tensor(bias)
    if tuple(kernel.shape[:2]) == (1, 1) and len(set(strides)) > 1:
        # The same, and oneDNN's gradient of such a kernel is wrong for three or four channels.
        inputs, strides = inputs[:, :: strides[0], :: strides[1]], (1, 1)
    images = inputs.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    (top, bottom), (left, right) = margins
    alike = (top, left) == (bottom, right)
    if not alike:
        images = torch.nn.functional.pad(images, (left, right, top, bottom))
    padding = (top, left) if alike else (0, 0)
    weights = kernel.permute(3, 2, 0, 1)
    outputs = torch.nn.functional.conv2d(
        images, weights, bias, tuple(strides), padding, tuple(dilation), groups
    )
    return outputs.permute(0, 2, 3, 1)


def conv2d_by_products(inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_gradient.convolution`."""
    images, weights = keras.ops.convert_to_tensor(inputs), keras.ops.convert_to_tensor(kernel)
    bias = None if bias is None else keras.ops.convert_to_tensor(bias)
    convolution = _convolution_by_products().apply
    return convolution(images.permute(0, 3, 1, 2), weights.permute(3, 2, 0, 1), bias).permute(0, 2, 3, 1)


@functools.cache
def _convolution_by_products() -> Any:
    """The operation on [B, C, h, w], [filters, C, rows, columns] and [filters]; PyTorch is loaded late."""
    import torch
    from torch.nn import functional

    class ConvolutionByProducts(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images, weights, bias):
            images = images.contiguous(memory_format=torch.channels_last)
            ctx.save_for_backward(images, weights)
            ctx.margin = tuple(side // 2 for side in weights.shape[2:])
            return functional.conv2d(images, weights, bias, padding=ctx.margin)

        @staticmethod
        def backward(ctx, upstream):
            images, weights = ctx.saved_tensors
            upstream = upstream.contiguous(memory_format=torch.channels_last)
            needed, found = ctx.needs_input_grad, [None, None, None]
            if needed[0]:
                found[0] = functional.conv_transpose2d(upstream, weights, padding=ctx.margin)
            if needed[1]:
                found[1] = _products(images, upstream, ctx.margin).permute(3, 2, 0, 1)
            if needed[2]:
                found[2] = upstream.sum((0, 2, 3))
            return tuple(found)

    return ConvolutionByProducts


def _products(images: Tensor, upstream: Tensor, margin: Sequence[int]) -> Tensor:
    """What `conv_gradient.of_kernel` computes, [rows, columns, C, filters], in one buffer for all cells.

    images: [B, C, h, w]; upstream: [B, filters, h, w]; margin: cells around the window's centre.
    """
    import torch

    # With the rows of all images outermost, what a row of the window sees is one piece of memory.
    images, upstream = images.permute(2, 0, 3, 1), upstream.permute(2, 0, 3, 1)
    height, channels = len(images), images.shape[-1]
    above, left = margin
    flat = upstream.reshape(-1, upstream.shape[-1])
    columns = images.new_zeros(height + 2 * above, *images.shape[1:])
    found = images.new_empty(2 * above + 1, 2 * left + 1, channels, flat.shape[-1])
    for column in range(2 * left + 1):
        _shift(images, column - left, columns[above : above + height])
        for row in range(2 * above + 1):
            seen = columns[row : row + height].view(-1, channels)
            torch.mm(seen.t(), flat, out=found[row, column])
    return found


def _shift(images: Tensor, columns: int, into: Tensor) -> None:
    """Write images [h, B, w, C] as they are seen so many columns further right, with zeros outside."""
    width = images.shape[2]
    first, last = min(max(0, -columns), width), max(0, width - max(0, columns))
    into[:, :, :first] = 0
    into[:, :, last:] = 0
    into[:, :, first:last] = images[:, :, first + columns : last + columns]


def affine(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Matrix product with its bias in one operation.

    inputs: [..., C]; kernel: [C, filters]; bias: [filters]. Returns [..., filters].
    """
    from torch.nn import functional

    inputs, kernel, bias = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel, bias))
    return functional.linear(inputs, kernel.t(), bias)


def max_pool(
    inputs: Tensor, window: Sequence[int], strides: Sequence[int], margin: tuple[int, int]
) -> Tensor:
    """Largest value of each window. inputs: [B, h, w, C]. Returns [B, h', w', C].

    margin: cells outside before and after each side, which count as -inf; equal, or one more after it where
    strides are above 1.
    """
    from torch.nn import functional

    before, after = margin
    images = inputs.permute(0, 3, 1, 2)
    # Rounded up, the number of windows has one that ends outside.
    outputs = functional.max_pool2d(
        images, tuple(window), tuple(strides), padding=before, ceil_mode=after > before
    )
    return outputs.permute(0, 2, 3, 1)


def normalize(
    inputs: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Batch normalisation with given statistics in one pass.

    inputs: [..., C]; statistics, gamma and beta: [C]; no gamma is 1, no beta 0. Returns the inputs' shape and
    dtype; the arithmetic is float32.
    """
    from torch.nn import functional

    inputs = keras.ops.convert_to_tensor(inputs)
    rows = inputs.reshape(1, -1, 1, inputs.shape[-1]).permute(0, 3, 1, 2)
    mean, variance, gamma, beta = (
        None if x is None else keras.ops.cast(x, "float32") for x in (mean, variance, gamma, beta)
    )
    outputs = functional.batch_norm(rows, mean, variance, gamma, beta, eps=epsilon)
    return outputs.permute(0, 2, 3, 1).reshape(inputs.shape)


def weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows, without a copy of each row.

    table: [S, C]; index: int [..., K] and weight [..., K], in the dtype of the table. Returns [..., C].
    """
    from torch.nn import functional

    *places, each = index.shape
    index, weight = index.reshape(-1, each), weight.reshape(-1, each)
    return functional.embedding_bag(index, table, mode="sum", per_sample_weights=weight).reshape(*places, -1)


def lay_out(variable: keras.Variable) -> None:
    """Order the memory of a kernel [rows, columns, C, filters] as `conv2d` reads it; shape and values stay.

    For weights that are read more often than updated: otherwise each call copies them.
    """
    import torch

    with torch.no_grad():
        kernel = variable.value.data.permute(3, 2, 0, 1)
        variable.value.data = kernel.contiguous(memory_format=torch.channels_last).permute(2, 3, 1, 0)

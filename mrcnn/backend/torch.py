"""Operations for PyTorch: operators that read Keras' channels-last layout in place, and eager calls.

`keras.ops.conv` copies each feature map to channels first and back, while a permuted view of the same memory
is enough. Tensors in this module are torch tensors with the shapes of Keras.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch.nn import functional

from mrcnn.backend import cpu
from mrcnn.backend.layer_graph import EagerRun
from mrcnn.backend.plain import Inputs, Padding, Pair, explicit_padding
from mrcnn.backend.plain import max_pool as plain_max_pool
from mrcnn.backend.torch_devices import get_devices
from mrcnn.backend.torch_programs import (
    first_rows,
    float_vector,
    pad_images,
    rows_from,
    while_loop,
    write_torch_program,
)
from mrcnn.typing import Tensor

__all__ = [
    "RUNS_EAGERLY",
    "activate",
    "add_inplace",
    "affine",
    "batch_norm",
    "bfloat16_is_fast",
    "bilinear_gather",
    "compiled",
    "conv2d",
    "conv2d_matmul_grad",
    "depthwise_conv2d",
    "differentiate",
    "first_maximum",
    "first_rows",
    "float_vector",
    "free_gradients",
    "get_devices",
    "is_on_cpu",
    "low_memory_forward",
    "matmul_gradient_pays",
    "max_pool",
    "pad_images",
    "relu_inplace",
    "rows_from",
    "to_convolution_layout",
    "top_k",
    "vjp",
    "while_loop",
    "write_torch_program",
]

RUNS_EAGERLY = True


# --- Layers ---


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
    """Convolve and add the bias in one operation; see `mrcnn.backend.plain.conv2d`."""
    inputs, kernel = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel))
    bias = None if bias is None else keras.ops.convert_to_tensor(bias)
    if tuple(kernel.shape[:2]) == (1, 1) and len(set(strides)) > 1:
        # This is equivalent. oneDNN computes wrong gradients of such kernels for three or four channels.
        if not isinstance(padding, str):
            inputs, padding = keras.ops.pad(inputs, ((0, 0), *padding, (0, 0))), "valid"
        inputs, strides = inputs[:, :: strides[0], :: strides[1]], (1, 1)
    pairs = explicit_padding(padding, inputs.shape[1:3], kernel.shape[:2], strides, dilation)
    (top, bottom), (left, right) = pairs
    images = inputs.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    symmetric = (top, left) == (bottom, right)
    if not symmetric:
        images = functional.pad(images, (left, right, top, bottom))
    outputs = functional.conv2d(
        images,
        kernel.permute(3, 2, 0, 1),
        bias,
        tuple(strides),
        (top, left) if symmetric else (0, 0),
        tuple(dilation),
        groups,
    )
    return outputs.permute(0, 2, 3, 1)


def depthwise_conv2d(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "same",
    dilation: Pair = (1, 1),
) -> Tensor:
    """See `mrcnn.backend.plain.depthwise_conv2d`."""
    rows, columns, channels, multiplier = kernel.shape
    kernel = keras.ops.reshape(kernel, (rows, columns, 1, channels * multiplier))
    return conv2d(inputs, kernel, bias, strides=strides, padding=padding, dilation=dilation, groups=channels)


def affine(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Multiply and add the bias in one operation; see `mrcnn.backend.plain.affine`."""
    inputs, kernel, bias = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel, bias))
    return functional.linear(inputs, kernel.t(), bias)


def activate(outputs: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an activation to a tensor that nothing else reads. ReLU overwrites it."""
    return outputs.relu_() if activation is keras.activations.relu else activation(outputs)


def max_pool(inputs: Tensor, pool_size: Pair, strides: Pair, padding: Padding) -> Tensor:
    """Apply max pooling without a padded copy; see `mrcnn.backend.plain.max_pool`."""
    inputs = keras.ops.convert_to_tensor(inputs)
    rows, columns = explicit_padding(padding, inputs.shape[1:3], pool_size, strides)
    before, after = rows
    # PyTorch pads symmetrically, by half of the pool at most. Its ceil_mode adds the last window of "same"
    # padding; with padding of other sizes it might add one too many.
    symmetric = before == after and 2 * before <= min(pool_size)
    one_more = padding == "same" and after - before == 1 and min(strides) > 1
    if tuple(rows) != tuple(columns) or not (symmetric or one_more):
        return plain_max_pool(inputs, pool_size, strides, padding)
    images = inputs.permute(0, 3, 1, 2)
    outputs = functional.max_pool2d(
        images, tuple(pool_size), tuple(strides), padding=before, ceil_mode=after > before
    )
    return outputs.permute(0, 2, 3, 1)


def batch_norm(
    inputs: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Apply batch normalization in one pass; see `mrcnn.backend.plain.batch_norm`."""
    inputs = keras.ops.convert_to_tensor(inputs)
    rows = inputs.reshape(1, -1, 1, inputs.shape[-1]).permute(0, 3, 1, 2)
    mean, variance, gamma, beta = (
        None if x is None else keras.ops.cast(x, "float32") for x in (mean, variance, gamma, beta)
    )
    outputs = functional.batch_norm(rows, mean, variance, gamma, beta, eps=epsilon)
    return outputs.permute(0, 2, 3, 1).reshape(inputs.shape)


def relu_inplace(inputs: Tensor) -> Tensor:
    """Apply ReLU in the memory of its input."""
    return inputs.relu_()


def add_inplace(target: Tensor, other: Tensor) -> Tensor:
    """Add in the memory of `target`, unless its elements share memory, as upsampled maps of side 1 do."""
    if 0 in target.stride():
        return target + other
    return target.add_(other)


def to_convolution_layout(variable: keras.Variable) -> None:
    """See `mrcnn.backend.plain.to_convolution_layout`. Otherwise each call copies the kernel."""
    with torch.no_grad():
        kernel = variable.value.data.permute(3, 2, 0, 1)
        variable.value.data = kernel.contiguous(memory_format=torch.channels_last).permute(2, 3, 1, 0)


# --- Gather and select ---


def top_k(scores: Tensor, k: int) -> Tensor:
    """See `mrcnn.backend.plain.top_k`. PyTorch's own top-k returns equal scores in arbitrary order."""
    return keras.ops.argsort(-scores, axis=-1)[:, :k]


def first_maximum(scores: Tensor) -> Tensor:
    """See `mrcnn.backend.plain.first_maximum`. PyTorch's own argmax returns the first one, too."""
    return torch.argmax(scores, dim=-1).to(torch.int32)


def bilinear_gather(
    table: Tensor,
    corners: Sequence[Tensor],
    weight_y: Tensor,
    weight_x: Tensor,
    inside: Tensor,
    samples: int = 1,
) -> Tensor:
    """Sum weighted rows without copying each row; see `mrcnn.backend.plain.bilinear_gather`."""
    pairs = (
        (1 - weight_y, 1 - weight_x),
        (1 - weight_y, weight_x),
        (weight_y, 1 - weight_x),
        (weight_y, weight_x),
    )
    products = [y * x for y, x in pairs]
    weights = torch.stack([torch.where(inside, product, 0.0) for product in products], dim=-1)
    index = torch.stack(torch.broadcast_tensors(*corners), dim=-1)
    if samples > 1:
        index, weights = (_neighbors_together(x, samples) for x in (index, weights / samples**2))
    per_row = index.shape[-1]
    outputs = functional.embedding_bag(
        index.reshape(-1, per_row),
        table,
        mode="sum",
        per_sample_weights=weights.to(table.dtype).reshape(-1, per_row),
    )
    return outputs.reshape(*index.shape[:-1], table.shape[-1])


def _neighbors_together(x: Tensor, count: int) -> Tensor:
    """Group the entries of count x count neighbors: [..., h, w, 4] gives [..., h', w', 4 * count**2]."""
    *leading, height, width, entries = x.shape
    x = x.reshape(*leading, height // count, count, width // count, count, entries).transpose(-4, -3)
    return x.reshape(*leading, height // count, width // count, count * count * entries)


# --- Gradients of convolutions as matrix products ---


def is_on_cpu(tensor: Tensor) -> bool:
    """Return whether operations on this tensor run on a CPU."""
    return tensor.device.type == "cpu"


def bfloat16_is_fast() -> bool:
    """See `mrcnn.backend.plain.bfloat16_is_fast`."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= cpu.BFLOAT16_CAPABILITY
    return cpu.has_bfloat16()


def matmul_gradient_pays(inputs: Tensor, kernel_size: Pair) -> bool:
    """Return True on x86 processors without AVX-512, for kernels of more than one cell."""
    return max(kernel_size) > 1 and is_on_cpu(inputs) and cpu.lacks_avx512()


def conv2d_matmul_grad(
    inputs: Tensor, kernel: Tensor, bias: Tensor | None, rows_first: bool = True
) -> Tensor:
    """See `mrcnn.backend.matmul_conv_gradient.conv2d_matmul_grad`."""
    images, weights = keras.ops.convert_to_tensor(inputs), keras.ops.convert_to_tensor(kernel)
    bias = None if bias is None else keras.ops.convert_to_tensor(bias)
    outputs = _Conv2DMatmulGrad.apply(images.permute(0, 3, 1, 2), weights.permute(3, 2, 0, 1), bias)
    return outputs.permute(0, 2, 3, 1)


class _Conv2DMatmulGrad(torch.autograd.Function):
    """On [B, C, h, w], [filters, C, rows, columns] and [filters]."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weights)
        ctx.padding = tuple(side // 2 for side in weights.shape[2:])
        return functional.conv2d(images, weights, bias, padding=ctx.padding)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        images, weights = ctx.saved_tensors
        upstream = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        image_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            image_gradient = functional.conv_transpose2d(upstream, weights, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            weight_gradient = _kernel_gradient(images, upstream, ctx.padding).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[2]:
            bias_gradient = upstream.sum((0, 2, 3))
        return image_gradient, weight_gradient, bias_gradient


def _kernel_gradient(images: Tensor, upstream: Tensor, padding: Pair) -> Tensor:
    """Return the gradient [rows, columns, C, filters] of a kernel, with one buffer for all patches.

    images: [B, C, h, w]; upstream: [B, filters, h, w]; padding: cells around the center of the kernel.
    """
    # With the rows of all images at the front, what one row of the kernel meets is one piece of memory.
    images, upstream = images.permute(2, 0, 3, 1), upstream.permute(2, 0, 3, 1)
    height, channels = len(images), images.shape[-1]
    above, left = padding
    flat = upstream.reshape(-1, upstream.shape[-1])
    columns = images.new_zeros(height + 2 * above, *images.shape[1:])
    gradient = images.new_empty(2 * above + 1, 2 * left + 1, channels, flat.shape[-1])
    for column in range(2 * left + 1):
        _shift(images, column - left, columns[above : above + height])
        for row in range(2 * above + 1):
            patch = columns[row : row + height].view(-1, channels)
            torch.mm(patch.t(), flat, out=gradient[row, column])
    return gradient


def _shift(images: Tensor, columns: int, target: Tensor) -> None:
    """Shift images [h, B, w, C] left by some columns into `target`, with zeros outside."""
    width = images.shape[2]
    first, last = min(max(0, -columns), width), max(0, width - max(0, columns))
    target[:, :, :first] = 0
    target[:, :, last:] = 0
    target[:, :, first:last] = images[:, :, first + columns : last + columns]


# --- Whole models ---


def compiled(
    model: keras.Model, open_shapes: bool = False, xla: bool | None = None
) -> Callable[[Inputs], dict[str, Tensor]]:
    """See `mrcnn.backend.plain.compiled`. PyTorch runs eagerly, for any shapes."""
    layers = EagerRun(model)

    def run(inputs: Inputs) -> dict[str, Tensor]:
        with torch.inference_mode():
            return layers({name: keras.ops.convert_to_tensor(x) for name, x in inputs.items()}, False)

    return run


def low_memory_forward(model: keras.Model) -> Callable[..., Any]:
    """See `mrcnn.backend.plain.low_memory_forward`."""
    return EagerRun(model)


def free_gradients(variables: Sequence[keras.Variable]) -> None:
    """Free gradients after a step. Keras would keep them until the next backward pass."""
    for variable in variables:
        variable.value.grad = None


def differentiate(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], Sequence[Tensor | None]]:
    """See `mrcnn.backend.plain.differentiate`."""

    def call(inputs: Inputs) -> Sequence[Tensor | None]:
        variables = [variable.value for variable in network.trainable_variables]
        with torch.enable_grad():
            return torch.autograd.grad(loss(inputs), variables, allow_unused=True)

    return call


def vjp(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """See `mrcnn.backend.plain.vjp`."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        gradients = torch.autograd.grad(function(*inputs), inputs, upstream, allow_unused=True)
    zeros = (torch.zeros_like(x) for x in inputs)
    return [zero if gradient is None else gradient for gradient, zero in zip(gradients, zeros, strict=True)]

"""Operations for JAX, which compiles everything with XLA and therefore needs to know all sizes."""

from collections.abc import Callable
from typing import Any

import jax
import keras
from keras import ops

from mrcnn.backend import compilation_cache, cpu, matmul_conv_gradient
from mrcnn.backend.jax_devices import get_devices, parts_of_batch
from mrcnn.backend.plain import Inputs, Padding, Pair, explicit_padding
from mrcnn.backend.plain import depthwise_conv2d as plain_depthwise_conv2d
from mrcnn.typing import Tensor

__all__ = [
    "bfloat16_is_fast",
    "compiled",
    "compiles_with_xla",
    "conv2d_matmul_grad",
    "depthwise_conv2d",
    "differentiate",
    "get_devices",
    "is_on_cpu",
    "matmul_gradient_pays",
    "sizes_may_vary",
    "vjp",
]

_cache_folder = compilation_cache.cache_folder("jax")
if _cache_folder is not None and not jax.config.values.get("jax_compilation_cache_dir"):
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder))


def conv2d_matmul_grad(
    inputs: Tensor, kernel: Tensor, bias: Tensor | None, rows_first: bool = False
) -> Tensor:
    """See `mrcnn.backend.matmul_conv_gradient.conv2d_matmul_grad`. XLA copies the patches in either order."""
    return matmul_conv_gradient.conv2d_matmul_grad(inputs, kernel, bias, rows_first)


def depthwise_conv2d(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "same",
    dilation: Pair = (1, 1),
) -> Tensor:
    """Convolve depthwise as a sum of shifted products, which XLA fuses into one loop.

    See `mrcnn.backend.plain.depthwise_conv2d`.
    """
    if set(dilation) != {1}:
        return plain_depthwise_conv2d(
            inputs, kernel, bias, strides=strides, padding=padding, dilation=dilation
        )
    kernel_size, multiplier = kernel.shape[:2], kernel.shape[3]
    pairs = explicit_padding(padding, ops.shape(inputs)[1:3], kernel_size, strides)
    inputs = ops.pad(inputs, ((0, 0), *pairs, (0, 0)))
    height, width = (
        (side - cells) // stride + 1
        for side, cells, stride in zip(ops.shape(inputs)[1:3], kernel_size, strides, strict=True)
    )
    outputs = 0.0
    for row in range(kernel_size[0]):
        for column in range(kernel_size[1]):
            last = row + (height - 1) * strides[0], column + (width - 1) * strides[1]
            shifted = inputs[:, row : last[0] + 1 : strides[0], column : last[1] + 1 : strides[1], :, None]
            outputs = outputs + shifted * ops.convert_to_tensor(kernel)[row, column]
    outputs = ops.reshape(outputs, (-1, height, width, inputs.shape[-1] * multiplier))
    return outputs if bias is None else ops.add(outputs, bias)


def compiles_with_xla(choice: bool | None = None) -> bool:
    """Return the user's choice, or True."""
    return choice is None or choice


def sizes_may_vary(choice: bool | None = None) -> bool:
    """Return False, because XLA has to know all sizes."""
    return False


def is_on_cpu(tensor: Tensor) -> bool:
    """Return whether operations on this tensor run on a CPU."""
    return jax.default_backend() == "cpu"


def bfloat16_is_fast() -> bool:
    """See `mrcnn.backend.plain.bfloat16_is_fast`. On a CPU, XLA uses no bfloat16 instructions."""
    device = jax.local_devices()[0]
    if device.platform == "gpu":
        major, _, minor = str(device.compute_capability).partition(".")
        return major.isdigit() and (int(major), int(minor or 0)) >= cpu.BFLOAT16_CAPABILITY
    return device.platform == "tpu"


def matmul_gradient_pays(inputs: Tensor, kernel_size: Pair) -> bool:
    """Return True on a CPU, where XLA's gradients of convolutions are slow."""
    return is_on_cpu(inputs)


def compiled(
    model: keras.Model, open_shapes: bool = False, xla: bool | None = None
) -> Callable[[Inputs], dict[str, Tensor]]:
    """See `mrcnn.backend.plain.compiled`. JAX compiles each set of shapes."""

    @jax.jit
    def call(trainable: list[Tensor], non_trainable: list[Tensor], inputs: Inputs) -> Any:
        return model.stateless_call(trainable, non_trainable, inputs, training=False)[0]

    parts = parts_of_batch(model)

    def to_devices(value: Tensor) -> Tensor:
        # A program with a distribution of its own may pass a batch that cannot be split.
        is_split = parts is not None and len(value) % len(parts.device_set) == 0
        return jax.device_put(value, parts) if is_split else value

    def run(inputs: Inputs) -> dict[str, Tensor]:
        trainable = [variable.value for variable in model.trainable_variables]
        non_trainable = [variable.value for variable in model.non_trainable_variables]
        return call(trainable, non_trainable, {name: to_devices(value) for name, value in inputs.items()})

    return run


def differentiate(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], list[Tensor | None]]:
    """See `mrcnn.backend.plain.differentiate`."""

    def stateless_loss(trainable: list[Tensor], non_trainable: list[Tensor], inputs: Inputs) -> Tensor:
        state = [
            *zip(network.trainable_variables, trainable, strict=True),
            *zip(network.non_trainable_variables, non_trainable, strict=True),
        ]
        with keras.StatelessScope(state_mapping=state):
            return loss(inputs)

    gradient = jax.jit(jax.grad(stateless_loss))

    def call(inputs: Inputs) -> list[Tensor | None]:
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return gradient(trainable, non_trainable, inputs)

    return call


def vjp(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """See `mrcnn.backend.plain.vjp`."""
    return list(jax.vjp(function, *inputs)[1](upstream))

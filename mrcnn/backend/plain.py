"""The operations of the network, implemented with `keras.ops` for every backend.

`mrcnn.backend` replaces some of them if another implementation of the same arithmetic measured faster.

Axes: B images, h and w cells of a feature map, C channels, S rows of a table. Feature maps are channels last.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.backend.devices import Devices, Parts
from mrcnn.backend.matmul_conv_gradient import conv2d_matmul_grad
from mrcnn.typing import Tensor

__all__ = [
    "MAKES_TENSORFLOW_GRAPHS",
    "RUNS_EAGERLY",
    "activate",
    "add_inplace",
    "affine",
    "batch_norm",
    "bfloat16_is_fast",
    "bilinear_gather",
    "compiled",
    "compiles_with_xla",
    "conv2d",
    "conv2d_matmul_grad",
    "crop_and_resize",
    "depthwise_conv2d",
    "differentiate",
    "first_maximum",
    "first_rows",
    "float_vector",
    "free_gradients",
    "gather",
    "get_devices",
    "half_sum_of_squares",
    "is_on_cpu",
    "low_memory_forward",
    "matmul_gradient_pays",
    "max_pool",
    "mean_of_neighbors",
    "momentum_step",
    "move_average",
    "non_max_suppression",
    "normalize_by_batch",
    "pad_images",
    "quick_train_function",
    "relu_inplace",
    "require_eager_execution",
    "rows_from",
    "sizes_may_vary",
    "to_convolution_layout",
    "to_numpy",
    "top_k",
    "vjp",
    "while_loop",
    "write_torch_program",
]

Pair = Sequence[int]
# "same" and "valid" as TensorFlow counts them, or zeros before and after rows and columns.
Padding = str | Sequence[Pair]
Inputs = Mapping[str, Any]

# Whether each layer runs separately, so that memory can be reused between layers.
RUNS_EAGERLY = False
# Whether Keras can write the network as a TensorFlow graph, for SavedModel and LiteRT.
MAKES_TENSORFLOW_GRAPHS = False
# Function that writes a model as a program of torch.export, or None if the backend has none; see
# `mrcnn.backend.torch_programs`.
write_torch_program: Callable[..., None] | None = None
# Bilinear samples of boxes, one per bin, 0 outside the map, by an operator that XLA does not support, or None
# if the backend has none. It takes maps, float32 [B, h, w, C] of each level; boxes, finite [N, 4], normalized
# to the maps; images and levels, int32 [N], the image and the map of each box; and the bins (height, width).
# Returns float32 [N, height, width, C].
crop_and_resize: Callable[[list[Tensor], Tensor, Tensor, Tensor, tuple[int, int]], Tensor] | None = None
# `mrcnn.network.suppression.non_max_suppression` by an operator that XLA does not support, or None if the
# backend has none.
non_max_suppression: Callable[..., tuple[Tensor, Tensor]] | None = None
# A step of SGD with momentum in one operation on a single device, or None if the backend has none. It takes a
# variable, its velocity (a variable of the same shape), the gradient, the learning rate and the momentum. It
# assigns `momentum * velocity - learning_rate * gradient` to the velocity and adds that to the variable.
momentum_step: Callable[..., None] | None = None


# --- Layers ---


def explicit_padding(
    padding: Padding, size: Pair, kernel_size: Pair, strides: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Sequence[Pair]:
    """Return the padding, in zeros, before and after rows and columns.

    Args:
        padding: "valid" for none, "same" for enough padding that a kernel starts at every stride-th cell, or
            the pairs themselves.
        size: Height and width of the feature map.
        kernel_size, strides, dilation: Along rows and along columns.

    Returns:
        ((top, bottom), (left, right)).
    """
    if padding == "valid":
        return ((0, 0), (0, 0))
    if not isinstance(padding, str):
        return padding
    pairs = []
    for length, cells, stride, step in zip(size, kernel_size, strides, dilation, strict=True):
        outputs = -(-length // stride)
        total = max((outputs - 1) * stride + (cells - 1) * step + 1 - length, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


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
    """Convolve and add the bias.

    Args:
        inputs: [B, h, w, C].
        kernel: [rows, columns, C / groups, filters].
        bias: [filters], or None.
        strides, dilation: Along rows and along columns.
        padding: See `Padding`.
        groups: Number of groups of channels, each with its own filters.

    Returns:
        [B, h', w', filters].
    """
    if not isinstance(padding, str):
        inputs, padding = ops.pad(inputs, ((0, 0), *padding, (0, 0))), "valid"
    # Keras takes the number of groups from the shapes.
    outputs = ops.conv(
        inputs,
        kernel,
        strides=tuple(strides),
        padding=padding,
        data_format="channels_last",
        dilation_rate=tuple(dilation),
    )
    # The sum stands directly behind the convolution, so that compilers fuse both.
    return outputs if bias is None else ops.add(outputs, bias)


def depthwise_conv2d(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "same",
    dilation: Pair = (1, 1),
) -> Tensor:
    """Convolve each channel separately. `kernel` is [rows, columns, C, multiplier]; see `conv2d`.

    Returns:
        [B, h', w', C * multiplier].
    """
    if not isinstance(padding, str):
        inputs, padding = ops.pad(inputs, ((0, 0), *padding, (0, 0))), "valid"
    outputs = ops.depthwise_conv(
        inputs,
        kernel,
        strides=tuple(strides),
        padding=padding,
        data_format="channels_last",
        dilation_rate=tuple(dilation),
    )
    return outputs if bias is None else ops.add(outputs, bias)


def affine(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Multiply inputs [..., C] by a kernel [C, filters] and add a bias [filters]."""
    return ops.add(ops.matmul(inputs, kernel), bias)


def activate(outputs: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an activation to a tensor that nothing else reads."""
    return activation(outputs)


def max_pool(inputs: Tensor, pool_size: Pair, strides: Pair, padding: Padding) -> Tensor:
    """Return the largest value at each position of the pool. Cells outside the map do not count.

    Args:
        inputs: [B, h, w, C].
        pool_size, strides: Along rows and along columns.
        padding: See `Padding`.

    Returns:
        [B, h', w', C].
    """
    if not isinstance(padding, str):
        inputs = ops.pad(inputs, ((0, 0), *padding, (0, 0)), constant_values=-float("inf"))
        padding = "valid"
    return ops.max_pool(inputs, tuple(pool_size), tuple(strides), padding, data_format="channels_last")


def batch_norm(
    inputs: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Apply batch normalization with given statistics, computed in float32.

    Args:
        inputs: [..., C].
        mean, variance, gamma, beta: [C]. A missing gamma is 1, a missing beta 0.
        epsilon: Added to the variance.

    Returns:
        The shape and dtype of `inputs`.
    """
    x = ops.cast(inputs, "float32")
    mean, variance, gamma, beta = (
        None if value is None else ops.cast(value, "float32") for value in (mean, variance, gamma, beta)
    )
    outputs = ops.batch_normalization(x, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)
    return ops.cast(outputs, inputs.dtype)


def normalize_by_batch(
    inputs: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply batch normalization with the statistics of the batch, computed in float32.

    Args:
        inputs: [..., C], with n values per channel.
        gamma, beta: [C]; None for a layer without them.
        epsilon: Added to the variance.
        training: Whether this is a part of a training step.

    Returns:
        The outputs, in the shape and dtype of `inputs`; the mean, float32 [C]; and the sum of the squared
        distances from it, divided by n - 1, float32 [C].
    """
    x = ops.cast(inputs, "float32")
    mean, variance = ops.moments(x, axes=tuple(range(len(x.shape) - 1)))
    outputs = ops.batch_normalization(x, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)
    count = ops.cast(ops.size(x) / ops.size(mean), "float32")
    return ops.cast(outputs, inputs.dtype), mean, variance * count / ops.maximum(count - 1.0, 1.0)


def relu_inplace(inputs: Tensor) -> Tensor:
    """Apply ReLU to a tensor that nothing else reads, in place on an eager backend."""
    return ops.relu(inputs)


def add_inplace(target: Tensor, other: Tensor) -> Tensor:
    """Add two tensors of the same shape, in the memory of `target` on an eager backend."""
    return ops.add(target, other)


def to_convolution_layout(variable: keras.Variable) -> None:
    """Reorder a kernel [rows, columns, C, filters] in memory as `conv2d` reads it. Values do not change.

    This is only useful for weights that are read more often than updated.
    """


def half_sum_of_squares(x: Tensor) -> Tensor:
    """Return half the sum of the squares of a tensor or variable, a float32 scalar."""
    return 0.5 * ops.sum(ops.square(ops.cast(x, "float32")))


def move_average(average: keras.Variable, value: Tensor, rate: Tensor) -> None:
    """Move a running average, a float32 variable, toward a value: add `(value - average) * rate`.

    Args:
        average: The variable.
        value: In the shape of the variable.
        rate: A float32 scalar.
    """
    before = ops.convert_to_tensor(average)
    average.assign(before + (value - before) * rate)


# --- Gather and select ---


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest scores, best first. Equal scores keep their order.

    Args:
        scores: [B, N] float.
        k: At most N.

    Returns:
        int32 [B, k].
    """
    return ops.top_k(scores, k)[1]


def first_maximum(scores: Tensor) -> Tensor:
    """Return the index of the first largest entry of the last axis: [..., C] gives int32 [...].

    This only uses comparisons, which every export format supports. Keras' argmax for TensorFlow reads the
    bits of floats, which ONNX, OpenVINO and LiteRT do not support.
    """
    count = scores.shape[-1]
    is_largest = scores == ops.max(scores, axis=-1, keepdims=True)
    index = ops.where(is_largest, ops.arange(count, dtype="int32"), count - 1)
    return ops.min(index, axis=-1)


def rows_from(x: Tensor, start: Tensor, count: int) -> Tensor:
    """Return `count` rows from a row on: x [B, N, ...] and an integer tensor `start` give [B, count, ...]."""
    sizes = [known or ops.shape(x)[axis] for axis, known in enumerate(x.shape)]
    return ops.slice(x, (0, start, *[0] * (len(sizes) - 2)), (sizes[0], count, *sizes[2:]))


def first_rows(x: Tensor, count: Tensor) -> Tensor:
    """Return the first `count` rows, an integer tensor, 1 to N: x [B, N, ...] gives [B, count, ...]."""
    return x[:, :count]


def float_vector(numbers: Sequence[float | Tensor]) -> Tensor:
    """Return numbers, such as the sizes of a tensor, as a float32 vector."""
    return ops.stack([ops.cast(number, "float32") for number in numbers])


def pad_images(images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Pad images [B, h, w, C] with zeros before and after their rows and columns."""
    return ops.pad(images, ((0, 0), rows, columns, (0, 0)))


def while_loop(
    condition: Callable[..., Tensor], body: Callable[..., tuple[Tensor, ...]], variables: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Replace the variables by `body(*variables)` as long as `condition(*variables)` is true."""
    return ops.while_loop(condition, body, variables)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows of each image: x [B, N, ...] and index int [B, K] give [B, K, ...]."""
    for _ in x.shape[2:]:
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(x, index, axis=1)


def bilinear_gather(
    table: Tensor,
    corners: Sequence[Tensor],
    weight_y: Tensor,
    weight_x: Tensor,
    inside: Tensor,
    samples: int = 1,
) -> Tensor:
    """Interpolate between four rows of a table.

    Args:
        table: [S, C].
        corners: Row indices int32 [..., h, w]: upper left, upper right, lower left, lower right.
        weight_y, weight_x: Weights [..., h, w] of the lower and of the right rows, in the dtype of `table`.
        inside: bool [..., h, w]. The result is 0 where it is False.
        samples: Number of neighbors to average along each of the axes h and w.

    Returns:
        [..., h / samples, w / samples, C].
    """
    upper_left, upper_right, lower_left, lower_right = (ops.take(table, index, axis=0) for index in corners)
    upper = upper_left + (upper_right - upper_left) * weight_x[..., None]
    lower = lower_left + (lower_right - lower_left) * weight_x[..., None]
    outputs = upper + (lower - upper) * weight_y[..., None]
    outputs = ops.where(inside[..., None], outputs, ops.zeros_like(outputs))
    return mean_of_neighbors(outputs, samples)


def mean_of_neighbors(x: Tensor, count: int) -> Tensor:
    """Average `count` neighbors along h and w: [..., h, w, C] gives [..., h / count, w / count, C]."""
    if count == 1:
        return x
    *leading, height, width, channels = ops.shape(x)
    rows = ops.reshape(x, (*leading, height // count, count, width * channels))
    rows = sum(rows[..., index, :] for index in range(count))
    columns = ops.reshape(rows, (*leading, height // count, width // count, count, channels))
    return sum(columns[..., index, :] for index in range(count)) / count**2


# --- Whole models ---


def require_eager_execution() -> None:
    """Raise RuntimeError if the program has turned off eager execution, which Keras needs."""


def compiles_with_xla(choice: bool | None = None) -> bool:
    """Return whether XLA compiles the model: the user's choice, or the backend's default if None."""
    return bool(choice)


def sizes_may_vary(choice: bool | None = None) -> bool:
    """Return whether tensor sizes may depend on the data. XLA must know them all. `choice`: as above."""
    return not compiles_with_xla(choice)


def low_memory_forward(model: keras.Model) -> Callable[..., Any]:
    """Return the forward pass f(inputs, training) of a functional model that takes the least memory."""
    forward: Callable[..., Any] = model.call
    return forward


def free_gradients(variables: Sequence[keras.Variable]) -> None:
    """Free the gradients that variables of the backend hold after a training step."""


def is_on_cpu(tensor: Tensor) -> bool:
    """Return whether operations on this tensor run on a CPU."""
    return True


def bfloat16_is_fast() -> bool:
    """Return whether networks run faster in bfloat16 than in float32 on this machine."""
    return False


def matmul_gradient_pays(inputs: Tensor, kernel_size: Pair) -> bool:
    """Return whether `conv2d_matmul_grad` trains faster than the backend's own gradients.

    Args:
        inputs: [B, h, w, C]; sizes may be None.
        kernel_size: Rows and columns of the kernel.
    """
    return False


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Convert a tensor of the backend, or its `Parts` on several devices, to an array on the host."""
    if isinstance(tensor, Parts):
        return np.concatenate([np.asarray(part) for part in tensor])
    return np.asarray(ops.convert_to_numpy(tensor))


def compiled(
    model: keras.Model, open_shapes: bool = False, xla: bool | None = None
) -> Callable[[Inputs], dict[str, Tensor]]:
    """Return a compiled function that runs a model for inference, and whose results stay on the device.

    `keras.Model.predict` copies every output to the host; the pyramid of a large image takes 90 MB.

    Args:
        model: A functional model. The call always uses its current weights.
        open_shapes: Whether to compile once for all sizes that the inputs leave open, if the backend supports
            it. The compiler can then optimize less, which suits models with few layers. Otherwise each set of
            input shapes compiles separately.
        xla: The user's choice; see `compiles_with_xla`. JAX always compiles, and PyTorch never.

    Returns:
        A function from {input name: array} to {output name: tensor}. If several devices hold the weights (see
        `Devices`), it splits each batch over them; the batch must be a multiple of their number.
    """
    return lambda inputs: model(inputs, training=False)


def quick_train_function(network: keras.Model) -> Callable[..., Any]:
    """Return a function for `train_function` of a compiled network whose first call takes less time.

    Its results only change by rounding.

    Args:
        network: A model with an optimizer that is built. `make_train_function` has been called.
    """
    function: Callable[..., Any] = network.train_function
    return function


def differentiate(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], Sequence[Tensor | None]]:
    """Return a function from inputs to gradients of a loss, in the order of `network.trainable_variables`.

    The gradient of a variable that the loss does not depend on is None, or zeros on JAX. `loss` runs the
    network.
    """
    raise NotImplementedError


def vjp(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """Return the gradients of a function with respect to its inputs, given the gradient of its result."""
    raise NotImplementedError


def get_devices(device_count: int, training: bool = True) -> Devices:
    """Return the devices for which to build a network.

    Args:
        device_count: `GPU_COUNT` of the Config, the number of devices of all machines. If fewer are present,
            a warning says so and one device runs the whole batch.
        training: Whether the network is for training. For detection, each process uses only its own devices.

    Raises:
        ValueError: If several processes were started and `device_count` is not the number of their devices.
    """
    return Devices()

"""Operations for TensorFlow, which runs its own kernels, or XLA on an accelerator."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from mrcnn.backend import compilation_cache, cpu, plain
from mrcnn.backend.matmul_conv_gradient import cell_count
from mrcnn.backend.plain import Inputs, Padding, Pair
from mrcnn.backend.tensorflow_devices import call_on_replicas, get_devices, strategy_of
from mrcnn.typing import Tensor

__all__ = [
    "MAKES_TENSORFLOW_GRAPHS",
    "bfloat16_is_fast",
    "compiled",
    "compiles_with_xla",
    "conv2d",
    "crop_and_resize",
    "differentiate",
    "gather",
    "get_devices",
    "half_sum_of_squares",
    "is_on_cpu",
    "matmul_gradient_pays",
    "momentum_step",
    "move_average",
    "non_max_suppression",
    "normalize_by_batch",
    "quick_train_function",
    "require_eager_execution",
    "sizes_may_vary",
    "vjp",
]

MAKES_TENSORFLOW_GRAPHS = True
compilation_cache.use_for_tensorflow()

# On smaller maps TensorFlow's own gradients are as fast.
SMALLEST_MAP = 2048
# The passes over the graph that take long and do not make a training step on a CPU faster. Of the others, the
# simplification of arithmetic saves memory.
COSTLY_PASSES = (
    "auto_mixed_precision",
    "constant_folding",
    "debug_stripper",
    "dependency_optimization",
    "function_optimization",
    "implementation_selector",
    "layout_optimizer",
    "loop_optimization",
    "pin_to_host_optimization",
    "remapping",
    "scoped_allocator_optimization",
    "shape_optimization",
)


def crop_and_resize(
    maps: list[Tensor], boxes: Tensor, images: Tensor, levels: Tensor, pool_shape: tuple[int, int]
) -> Tensor:
    """See `mrcnn.backend.plain.crop_and_resize`."""
    indices, parts = [], []
    for level, features in enumerate(maps):
        index = tf.where(levels == level)[:, 0]
        indices.append(tf.cast(index, tf.int32))
        parts.append(
            tf.image.crop_and_resize(features, tf.gather(boxes, index), tf.gather(images, index), pool_shape)
        )
    # Every box belongs to one level, so the parts fill the result.
    return tf.dynamic_stitch(indices, parts)


def non_max_suppression(
    boxes: Tensor, valid: Tensor, max_output: int, threshold: float, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `mrcnn.network.suppression.non_max_suppression`.

    The operator takes one column of scores per group and returns scores instead of indices. The score of a
    box is the number of boxes from it to the last one, which also keeps their order.
    """
    boxes = tf.stop_gradient(tf.cast(boxes, "float32"))
    last = tf.shape(boxes)[1]
    scores = tf.where(valid, tf.cast(tf.range(last, 0, -1), "float32"), 0.0)[..., None]  # [B, N, groups]
    if groups is not None:
        scores = tf.where(groups[..., None] == tf.range(tf.reduce_max(groups) + 1), scores, 0.0)
    _, scores, _, count = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        scores,
        max_output_size_per_class=max_output,
        max_total_size=max_output,
        iou_threshold=threshold,
        score_threshold=0.0,
        clip_boxes=False,
    )
    filled = tf.range(max_output) < count[:, None]
    return tf.where(filled, last - tf.cast(scores, "int32"), 0), filled


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
    """See `mrcnn.backend.plain.conv2d`. On a CPU, one convolution per group.

    TensorFlow has no gradient of grouped convolutions for CPUs, and that of XLA takes minutes.
    """
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    bias = None if bias is None else tf.convert_to_tensor(bias)
    if groups == 1 and isinstance(padding, str):
        # Without keras.ops.conv, whose checks read the kernel three times.
        outputs = tf.nn.conv2d(inputs, kernel, tuple(strides), padding.upper(), dilations=tuple(dilation))
        return outputs if bias is None else tf.nn.bias_add(outputs, bias)
    settings: dict[str, Any] = {"strides": strides, "padding": padding, "dilation": dilation}
    if groups == 1 or not is_on_cpu(inputs):
        return plain.conv2d(inputs, kernel, bias, groups=groups, **settings)
    parts = zip(tf.split(inputs, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    outputs = tf.concat([plain.conv2d(*part, **settings) for part in parts], axis=-1)
    return outputs if bias is None else tf.add(outputs, bias)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """See `mrcnn.backend.plain.gather`. Here it is one operation instead of twenty."""
    return tf.gather(x, index, batch_dims=1)


def normalize_by_batch(
    inputs: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `mrcnn.backend.plain.normalize_by_batch`. In training it is one operation, also in the gradient.

    Other formats, to which networks for detection are exported, lack this operation.
    """
    if not training or gamma is None or beta is None:
        return plain.normalize_by_batch(inputs, gamma, beta, epsilon, training)
    x = tf.cast(inputs, "float32")
    maps = x if len(x.shape) == 4 else tf.reshape(x, (-1, 1, 1, x.shape[-1]))
    unused = tf.constant([], "float32")
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps, scale=gamma, offset=beta, mean=unused, variance=unused, epsilon=epsilon, is_training=True
    )
    outputs = outputs if len(x.shape) == 4 else tf.reshape(outputs, tf.shape(x))
    return tf.cast(outputs, inputs.dtype), mean, variance


def half_sum_of_squares(x: Tensor) -> Tensor:
    """See `mrcnn.backend.plain.half_sum_of_squares`."""
    return tf.nn.l2_loss(tf.cast(x, "float32"))


def momentum_step(
    variable: Any, velocity: Any, gradient: Tensor, learning_rate: Tensor, momentum: float
) -> None:
    """See `mrcnn.backend.plain.momentum_step`."""
    variable, velocity = (x.value if isinstance(x, keras.Variable) else x for x in (variable, velocity))
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle,
        accum=velocity.handle,
        lr=tf.cast(learning_rate, variable.dtype),
        grad=tf.cast(gradient, variable.dtype),
        momentum=tf.cast(momentum, variable.dtype),
    )


def move_average(average: keras.Variable, value: Tensor, rate: Tensor) -> None:
    """See `mrcnn.backend.plain.move_average`. On a single device it is a step of gradient descent."""
    if tf.distribute.has_strategy():
        plain.move_average(average, value, rate)
        return
    tf.raw_ops.ResourceApplyGradientDescent(
        var=average.value.handle, alpha=rate, delta=tf.subtract(average.value, value)
    )


def require_eager_execution() -> None:
    """See `mrcnn.backend.plain.require_eager_execution`."""
    if not tf.executing_eagerly():
        raise RuntimeError(
            "Keras 3 needs TensorFlow's eager execution, which this program has turned off. Remove "
            "disable_v2_behavior(), disable_eager_execution() and tf.Graph().as_default()."
        )


def compiles_with_xla(choice: bool | None = None) -> bool:
    """Return the user's choice, or if it is None, whether there is a single accelerator.

    On a CPU, TensorFlow's own kernels are as fast and need no compilation. XLA does not compile for several
    devices.
    """
    if choice is not None:
        return choice
    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return one_device and not is_on_cpu(None)


def sizes_may_vary(choice: bool | None = None) -> bool:
    """Return whether tensor sizes may depend on the data. XLA must know them all."""
    return not compiles_with_xla(choice)


def is_on_cpu(tensor: Tensor) -> bool:
    """Return whether operations on this tensor run on a CPU."""
    return not tf.config.list_physical_devices("GPU")


def bfloat16_is_fast() -> bool:
    """See `mrcnn.backend.plain.bfloat16_is_fast`."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return cpu.has_bfloat16()
    details = tf.config.experimental.get_device_details(gpus[0])
    return tuple(details.get("compute_capability", ())) >= cpu.BFLOAT16_CAPABILITY


def matmul_gradient_pays(inputs: Tensor, kernel_size: Pair) -> bool:
    """Return True on x86 processors without AVX-512, for kernels of more than one cell on large maps."""
    return (
        is_on_cpu(inputs)
        and max(kernel_size) > 1
        and cpu.lacks_avx512()
        and (cell_count(inputs) >= SMALLEST_MAP)
    )


def _call(model: keras.Model, inputs: Inputs) -> Any:
    return model(inputs, training=False)


def compiled(
    model: keras.Model, open_shapes: bool = False, xla: bool | None = None
) -> Callable[[Inputs], dict[str, Tensor]]:
    """See `mrcnn.backend.plain.compiled`."""
    strategy = strategy_of(model)
    if strategy is not None:
        return call_on_replicas(model, strategy)
    signature = None
    if open_shapes and not compiles_with_xla(xla):
        inputs = keras.tree.flatten(model.inputs)
        signature = [{x.name: tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in inputs}]

    # Each model gets its own callable. TensorFlow counts how often it traces a piece of code, and would warn
    # about retracing after a program changes thresholds a few times.
    call = tf.function(
        functools.partial(_call, model),
        jit_compile=compiles_with_xla(xla),
        input_signature=signature,
        autograph=False,  # the network has no Python conditions on tensors
    )

    def run(inputs: Inputs) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = call(
            {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
        )
        return outputs

    return run


def quick_train_function(network: keras.Model) -> Callable[..., Any]:
    """See `mrcnn.backend.plain.quick_train_function`. An accelerator runs Keras' function.

    The step is one graph for a fixed number of images, where Keras nests two graphs for any number, and its
    graph is optimized lightly.
    """
    function: Callable[..., Any] = network.train_function
    if not is_on_cpu(None) or network.run_eagerly:
        return function
    steps: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def call(batches: Any) -> Any:
        if tf.distribute.has_strategy() or not isinstance(batches, tf.data.Iterator):
            return function(batches)
        batch = next(batches)
        signature = tf.nest.map_structure(_with_count, batches.element_spec, batch)
        key = tuple(tf.nest.flatten(signature))
        if key not in steps:
            steps[key] = tf.function(
                network.train_step,
                input_signature=[signature],
                autograph=False,
                jit_compile=network.jit_compile,
            )
        with _light_optimization():
            return steps[key](batch)

    return call


def _with_count(spec: tf.TensorSpec, array: Tensor) -> tf.TensorSpec:
    """Return the specification of an array of a batch, with the number of images."""
    return tf.TensorSpec((array.shape[0], *spec.shape[1:]), spec.dtype)


@contextlib.contextmanager
def _light_optimization() -> Iterator[None]:
    """Compile graphs without the costly passes, unless the program has set options for them.

    TensorFlow's options are global, and a graph is compiled again if they differ. So they change only during
    a call, but during each one.
    """
    optimizer = tf.config.optimizer
    unset = [name for name in COSTLY_PASSES if name not in optimizer.get_experimental_options()]
    optimizer.set_experimental_options(dict.fromkeys(unset, False))
    try:
        yield
    finally:
        optimizer.set_experimental_options(dict.fromkeys(unset))


def differentiate(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], list[Tensor | None]]:
    """See `mrcnn.backend.plain.differentiate`."""

    @tf.function
    def call(inputs: Inputs) -> Any:
        with tf.GradientTape() as tape:
            value = loss(inputs)
        return tape.gradient(value, [variable.value for variable in network.trainable_variables])

    return call


def vjp(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """See `mrcnn.backend.plain.vjp`."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    zero = tf.UnconnectedGradients.ZERO
    return list(tape.gradient(outputs, inputs, output_gradients=upstream, unconnected_gradients=zero))

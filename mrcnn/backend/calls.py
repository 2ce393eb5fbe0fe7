"""One compiled call of a model on each backend, results left on the device.

`keras.Model.predict` copies every output to the host; the feature pyramid of a large image is 90 MB.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import layer_graph

# Parameters of glibc's mallopt(3): how much free memory at the end of the heap goes back to the system, and
# how much is asked for beyond what is needed.
M_TRIM_THRESHOLD, M_TOP_PAD = -1, -2
KEPT_BYTES, ASKED_BYTES = (1 << 31) - 1, 1 << 26

Tensor = Any
Inputs = Mapping[str, np.ndarray | Tensor]


class Parts(tuple):
    """The tensors that several TensorFlow devices hold of one batch, in the batch's order."""


def compiles_with_xla(choice: bool | None = None) -> bool:
    """The user's choice or, if None, whether XLA is worth its compile time.

    That is so with JAX always, with TensorFlow on an accelerator.
    TensorFlow's own kernels are as fast on a CPU and start a minute earlier, and XLA does not compile for
    several devices there; torch runs eagerly.
    """
    if choice is not None:
        return choice
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        one_device = tensorflow.distribute.get_strategy().num_replicas_in_sync == 1
        return one_device and bool(tensorflow.config.list_physical_devices("GPU"))
    return keras.backend.backend() == "jax"


def sizes_may_vary(choice: bool | None = None) -> bool:
    """Whether the sizes of tensors may depend on the data, as they may not under XLA. choice: as above."""
    return keras.backend.backend() != "jax" and not compiles_with_xla(choice)


def uses_native_kernels() -> bool:
    """Whether graphs run on TensorFlow's own kernels, which XLA would not know."""
    return keras.backend.backend() == "tensorflow" and not compiles_with_xla()


def keep_host_memory() -> None:
    """Let the C library keep freed memory for the next step; only on Linux, without effect elsewhere.

    Otherwise it hands large blocks back to the system and gets them again, to be zeroed page by page: that
    was as much processor time as the arithmetic of a training step of the light network. TensorFlow asks for
    this itself whenever it starts to read a generator, so the call has to be repeated after that.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_TOP_PAD, ASKED_BYTES)


def give_back_host_memory() -> None:
    """Hand freed memory back to the system, such as that of building a network; only on Linux."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        gc.collect()
        trim(0)


def _glibc(name: str) -> Callable | None:
    """A function of the GNU C library, None where there is another."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None


def compiled(model: keras.Model, open_shapes: bool = False) -> Callable[[Inputs], dict[str, Tensor]]:
    """A fast inference call of a model with named inputs and outputs.

    open_shapes: compile once for all sizes that the model's inputs leave open, where the backend can; it
    then knows less while it compiles, which suits models of few layers.
    Returns a function from {input name: array} to {output name: tensor on the device}; otherwise it compiles
    once for each set of input shapes. It always uses the model's present weights. Called in the scope of
    several devices (see `distribution.Devices`), they share each batch, which has to be a multiple of their
    number.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        strategy = tensorflow.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            return _shared_tensorflow_call(model, strategy)
        return _tensorflow_call(model, open_shapes and uses_native_kernels())
    if backend == "jax":
        return _jax_call(model)
    return _eager_call(model)


def sparing(model: keras.Model, call: Callable) -> Callable:
    """The forward pass of a functional model, f(inputs, training), in the way that takes the least memory.

    call: the model's own, which is as good wherever a compiler decides what to keep.
    """
    return layer_graph.EagerRun(model) if keras.backend.backend() == "torch" else call


def let_gradients_go(variables: Sequence[keras.Variable]) -> None:
    """Free the gradients that PyTorch's variables hold, of a step that has used them.

    Keras does it in the next step, when all features of its forward pass are there.
    """
    if keras.backend.backend() == "torch":
        for variable in variables:
            variable.value.grad = None


def loss_gradients(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], list[np.ndarray | None]]:
    """A call that differentiates a loss by the trainable variables of a network, and changes nothing.

    loss: from {input name: tensor} to a scalar; it runs the network.
    Returns a function from {input name: array} to the gradients in the order of network.trainable_variables,
    None for a variable that the loss does not depend on. Random states and statistics are put back.
    """
    backend = keras.backend.backend()
    gradients = {"tensorflow": _tensorflow_gradients, "jax": _jax_gradients, "torch": _torch_gradients}
    call = gradients[backend](network, loss)

    def run(inputs: Inputs) -> list[np.ndarray | None]:
        state = [to_numpy(variable.value) for variable in network.non_trainable_variables]
        try:
            tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
            return [None if gradient is None else to_numpy(gradient) for gradient in call(tensors)]
        finally:
            for variable, value in zip(network.non_trainable_variables, state, strict=True):
                variable.assign(value)

    return run


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of any backend, or its parts on several devices, as an array on the host."""
    if isinstance(tensor, Parts):
        return np.concatenate([np.asarray(part) for part in tensor])
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _tensorflow_call(model: keras.Model, open_shapes: bool) -> Callable:
    import tensorflow

    signature = None
    if open_shapes:
        inputs = keras.tree.flatten(model.inputs)
        signature = [{x.name: tensorflow.TensorSpec(x.shape, x.dtype, name=x.name) for x in inputs}]

    @tensorflow.function(jit_compile=compiles_with_xla(), input_signature=signature)
    def call(inputs):
        return model(inputs, training=False)

    def run(inputs: Inputs) -> dict[str, Tensor]:
        return call({name: tensorflow.convert_to_tensor(array) for name, array in inputs.items()})

    return run


def _shared_tensorflow_call(model: keras.Model, strategy: Any) -> Callable:
    import tensorflow

    @tensorflow.function
    def call(inputs):
        return strategy.run(lambda part: model(part, training=False), args=(inputs,))

    def on_devices(value: np.ndarray | Parts) -> Tensor:
        if not isinstance(value, Parts):
            value = Parts(np.split(value, strategy.num_replicas_in_sync))
        return strategy.experimental_distribute_values_from_function(
            lambda context: tensorflow.convert_to_tensor(value[context.replica_id_in_sync_group])
        )

    def run(inputs: Inputs) -> dict[str, Parts]:
        outputs = call({name: on_devices(value) for name, value in inputs.items()})
        return {name: Parts(strategy.experimental_local_results(value)) for name, value in outputs.items()}

    return run


def _jax_call(model: keras.Model) -> Callable:
    import jax

    @jax.jit
    def call(trainable, non_trainable, inputs):
        return model.stateless_call(trainable, non_trainable, inputs, training=False)[0]

    distribution = keras.distribution.distribution()

    def on_devices(value: np.ndarray | Tensor) -> Tensor:
        if distribution is None:
            return value
        return keras.distribution.distribute_tensor(value, distribution.get_data_layout(value.shape))

    def run(inputs: Inputs) -> dict[str, Tensor]:
        trainable = [variable.value for variable in model.trainable_variables]
        non_trainable = [variable.value for variable in model.non_trainable_variables]
        return call(trainable, non_trainable, {name: on_devices(value) for name, value in inputs.items()})

    return run


def _eager_call(model: keras.Model) -> Callable:
    import torch

    layers = layer_graph.EagerRun(model)

    def run(inputs: Inputs) -> dict[str, Tensor]:
        with torch.inference_mode():
            return layers({name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}, False)

    return run


def _tensorflow_gradients(network: keras.Model, loss: Callable) -> Callable:
    import tensorflow

    @tensorflow.function
    def call(inputs):
        with tensorflow.GradientTape() as tape:
            value = loss(inputs)
        return tape.gradient(value, [variable.value for variable in network.trainable_variables])

    return call


def _jax_gradients(network: keras.Model, loss: Callable) -> Callable:
    import jax

    def loss_of(trainable, non_trainable, inputs):
        state = [
            *zip(network.trainable_variables, trainable, strict=True),
            *zip(network.non_trainable_variables, non_trainable, strict=True),
        ]
        with keras.StatelessScope(state_mapping=state):
            return loss(inputs)

    gradient = jax.jit(jax.grad(loss_of))

    def call(inputs):
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return gradient(trainable, non_trainable, inputs)

    return call


def _torch_gradients(network: keras.Model, loss: Callable) -> Callable:
    import torch

    def call(inputs):
        variables = [variable.value for variable in network.trainable_variables]
        with torch.enable_grad():
            return torch.autograd.grad(loss(inputs), variables, allow_unused=True)

    return call

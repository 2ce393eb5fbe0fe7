"""One compiled call of a model on each backend, results left on the device.

`keras.Model.predict` copies every output to the host; the feature pyramid of a large image is 90 MB.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

# Parameters of glibc's mallopt(3): how much free memory at the end of the heap goes back to the system, and
# how much is asked for beyond what is needed.
M_TRIM_THRESHOLD, M_TOP_PAD = -1, -2
KEPT_BYTES, ASKED_BYTES = (1 << 31) - 1, 1 << 26

Tensor = Any
Inputs = Mapping[str, np.ndarray | Tensor]


def compiles_with_xla() -> bool:
    """Whether XLA is worth its compile time: with JAX always, with TensorFlow on an accelerator.

    TensorFlow's own kernels are as fast on a CPU and start a minute earlier; torch runs eagerly.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return bool(tensorflow.config.list_physical_devices("GPU"))
    return keras.backend.backend() == "jax"


def keep_host_memory() -> None:
    """Let the C library keep freed memory for the next step; only on Linux, without effect elsewhere.

    Otherwise it hands large blocks back to the system and gets them again, to be zeroed page by page: that
    was as much processor time as the arithmetic of a training step of the light network. TensorFlow asks for
    this itself whenever it starts to read a generator, so the call has to be repeated after that.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_TOP_PAD, ASKED_BYTES)


def compiled(model: keras.Model) -> Callable[[Inputs], dict[str, Tensor]]:
    """A fast inference call of a model with named inputs and outputs.

    Returns a function from {input name: array} to {output name: tensor on the device}; it compiles once for
    each set of input shapes, and always uses the model's present weights.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_call(model)
    if backend == "jax":
        return _jax_call(model)
    return _eager_call(model)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of any backend as an array on the host."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _tensorflow_call(model: keras.Model) -> Callable:
    import tensorflow

    @tensorflow.function(jit_compile=compiles_with_xla())
    def call(inputs):
        return model(inputs, training=False)

    def run(inputs: Inputs) -> dict[str, Tensor]:
        return call({name: tensorflow.convert_to_tensor(array) for name, array in inputs.items()})

    return run


def _jax_call(model: keras.Model) -> Callable:
    import jax

    @jax.jit
    def call(trainable, non_trainable, inputs):
        return model.stateless_call(trainable, non_trainable, inputs, training=False)[0]

    def run(inputs: Inputs) -> dict[str, Tensor]:
        trainable = [variable.value for variable in model.trainable_variables]
        non_trainable = [variable.value for variable in model.non_trainable_variables]
        return call(trainable, non_trainable, dict(inputs))

    return run


def _eager_call(model: keras.Model) -> Callable:
    import torch

    def run(inputs: Inputs) -> dict[str, Tensor]:
        with torch.no_grad():
            tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
            return model(tensors, training=False)

    return run

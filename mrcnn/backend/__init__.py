"""The only interface to TensorFlow, JAX and PyTorch.

This module determines once which backend Keras runs on. Code outside this package neither asks for the
backend nor imports a framework. `plain` implements every operation with `keras.ops`; `tensorflow`, `jax` and
`torch` replace those for which another implementation of the same arithmetic measured faster.
"""

import keras

from mrcnn.backend.custom_gradients import custom_gradient as custom_gradient
from mrcnn.backend.forks import require_unforked as require_unforked
from mrcnn.backend.gradients import loss_gradients as loss_gradients
from mrcnn.backend.host_memory import give_back_host_memory as give_back_host_memory
from mrcnn.backend.host_memory import keep_host_memory as keep_host_memory
from mrcnn.backend.plain import *  # noqa: F403

_BACKEND = keras.backend.backend()

if _BACKEND == "tensorflow":
    from mrcnn.backend.tensorflow import *  # noqa: F403
elif _BACKEND == "jax":
    from mrcnn.backend.jax import *  # noqa: F403
elif _BACKEND == "torch":
    from mrcnn.backend.torch import *  # noqa: F403
else:
    raise ImportError(
        f'The Keras backend must be "tensorflow", "jax" or "torch". Received: "{_BACKEND}". Set the '
        "environment variable KERAS_BACKEND."
    )

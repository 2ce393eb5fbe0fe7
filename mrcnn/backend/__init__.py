"""The one seam to TensorFlow, JAX and PyTorch.

This file asks once which backend Keras runs on. Nothing outside this folder asks again or imports a
framework. `plain` states every operation in `keras.ops`; `tensorflow`, `jax` and `torch` replace those
that measured faster in another formulation of the same numbers.
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

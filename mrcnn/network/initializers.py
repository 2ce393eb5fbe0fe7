"""Random weights of new layers, drawn by NumPy: the same on every backend, and nothing is compiled."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.typing import Tensor


@keras.saving.register_keras_serializable("mrcnn")
class GlorotUniform(keras.initializers.GlorotUniform):
    """Draw weights from the uniform distribution of Glorot and Bengio (2010), the default of Keras' layers.

    Keras' own initializer draws with the backend. JAX then compiles a program for each shape of a kernel,
    which takes longer than building the network.

    Args:
        seed: An integer. None takes one from Python's `random`, which `keras.utils.set_random_seed` sets.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """Return values between -limit and limit, where limit = sqrt(6 / (fan_in + fan_out)).

        Args:
            shape: Shape of a kernel: sides, then input channels and output channels.
            dtype: Dtype of the tensor, by default Keras' float type.
        """
        *sides, inputs, outputs = shape
        fans = math.prod(sides) * (inputs + outputs)
        limit = math.sqrt(6.0 / fans)
        values = np.random.default_rng(self.seed).random(shape, dtype="float32")
        return ops.convert_to_tensor((2.0 * values - 1.0) * np.float32(limit), dtype or keras.config.floatx())

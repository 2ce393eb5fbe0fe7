"""Random weights of new layers, drawn by NumPy: the same on every backend, without compiling anything."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.typing import Tensor


@keras.saving.register_keras_serializable("mrcnn")
class GlorotUniform(keras.initializers.GlorotUniform):
    """The uniform distribution of Glorot and Bengio (2010), the default of Keras' layers.

    Keras draws it with the backend. JAX then compiles a program for each shape of a kernel, which takes
    longer than building the network.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """Return values between -limit and limit, limit = sqrt(6 / (inputs + outputs of a cell)).

        Args:
            shape: Shape of a kernel: sides, then input channels and output channels.
            dtype: Dtype of the tensor, by default Keras' float type.
        """
        *sides, inputs, outputs = shape
        limit = math.sqrt(6.0 / (math.prod(sides) * (inputs + outputs)))
        values = np.random.default_rng(self.seed).random(shape, dtype="float32")
        return ops.convert_to_tensor((2.0 * values - 1.0) * np.float32(limit), dtype or keras.config.floatx())

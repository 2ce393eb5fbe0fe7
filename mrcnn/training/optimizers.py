"""Keras' optimizers SGD and Adam, extended to add the gradient of the L2 penalty themselves.

The gradient of the penalty is a multiple of each weight. A backend that differentiates the penalty computes
this gradient first and keeps it, with the size of all weights, in memory together with the features of all
layers.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.backend import keras_internals
from mrcnn.typing import Tensor

# Weights of normalization layers.
NORM_WEIGHTS = ("gamma", "beta")


def l2_penalty(
    variables: Sequence[keras.Variable], weight_decay: float, of_sum: bool = False, of_norms: bool = False
) -> Tensor:
    """Compute weight decay as the Keras 2 library defines it: the mean of squares of each tensor.

    Args:
        variables: Trainable variables. Biases are decayed.
        weight_decay: Factor of the penalty.
        of_sum: Whether to take half the sum of squares instead, as other libraries do.
        of_norms: Whether gamma and beta are decayed, too.

    Returns:
        A float32 scalar.
    """
    decayed = [variable for variable in variables if of_norms or variable.name not in NORM_WEIGHTS]
    if not decayed:
        return ops.zeros(())
    halves = ops.stack([backend.half_sum_of_squares(variable) for variable in decayed])
    if of_sum:
        return weight_decay * ops.sum(halves)
    factors = np.array([2.0 * weight_decay / math.prod(variable.shape) for variable in decayed], "float32")
    return ops.sum(halves * ops.convert_to_tensor(factors))


def mean_momentum(step: Any) -> Any:
    """Return the momentum of a running mean that grows with it: step / (step + 9).

    The mean starts with the weights after the first step and spans about a tenth of the steps until now, so a
    short training does not end near the weights that it started with.

    Args:
        step: Number of steps before this one, an array or tensor.
    """
    return step / (step + 9.0)


class _L2Gradient(keras_internals.ClipsAfterSum, keras_internals.AveragesWeights):
    """Optimizer mixin that adds the gradient of `l2_penalty` to each gradient before clipping.

    Args:
        l2_factor: WEIGHT_DECAY, divided by the devices whose gradients are summed; 0 adds nothing.
        clips_after_sum: Whether to clip gradients after several TensorFlow devices have summed them.
        l2_of_sum, l2_of_norms: `of_sum` and `of_norms` of `l2_penalty`.
        mean_grows: Whether the momentum of the running mean of the weights is that of `mean_momentum`, but at
            most `ema_momentum`. If False, it is `ema_momentum` from the second step on, as Keras has it.
    """

    def __init__(
        self,
        *args: Any,
        l2_factor: float = 0.0,
        clips_after_sum: bool = False,
        l2_of_sum: bool = False,
        l2_of_norms: bool = False,
        mean_grows: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.mean_grows = mean_grows
        self.l2_factor = l2_factor
        self.l2_of_sum = l2_of_sum
        self.l2_of_norms = l2_of_norms
        self.clips_after_sum = clips_after_sum

    def apply(self, grads: Sequence[Tensor], trainable_variables: Any = None) -> None:
        """Apply gradients as Keras' optimizers do, then free the backend's gradients."""
        if trainable_variables is None:
            variables = keras_internals.optimized_variables(self)
        else:
            variables = list(trainable_variables)
        grads = [self._add_l2(*pair) for pair in zip(grads, variables, strict=True)]
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        backend.free_gradients(variables)

    def clipped(self, grads: list[Tensor]) -> list[Tensor]:
        """Return the gradients, clipped as Keras does. The global norm takes one operation per gradient."""
        limit = self.global_clipnorm  # type: ignore[attr-defined]
        if self.clipnorm or not limit:  # type: ignore[attr-defined]
            return super().clipped(grads)
        halves = [backend.half_sum_of_squares(gradient) for gradient in grads]
        norm = ops.sqrt(2.0 * ops.sum(ops.stack(halves)))
        scale = limit * ops.minimum(1.0 / norm, 1.0 / limit) + (norm - norm)  # NaN if the norm is not finite
        return [gradient * scale for gradient in grads]

    def momentum_of_mean(self) -> Tensor | None:
        """Return the momentum of the running mean of the weights in this step; None to use Keras' own."""
        if not self.mean_grows:
            return None
        step = ops.cast(self.iterations, "float32")  # type: ignore[attr-defined]
        return ops.minimum(mean_momentum(step), self.ema_momentum)  # type: ignore[attr-defined]

    def _add_l2(self, gradient: Tensor, variable: keras.Variable) -> Tensor:
        is_decayed = self.l2_of_norms or variable.name not in NORM_WEIGHTS
        if not self.l2_factor or not is_decayed:
            return gradient
        factor = self.l2_factor if self.l2_of_sum else 2.0 * self.l2_factor / math.prod(variable.shape)
        decay = factor * ops.convert_to_tensor(variable)
        return decay if gradient is None else gradient + decay

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),  # type: ignore[misc]
            "l2_factor": self.l2_factor,
            "clips_after_sum": self.clips_after_sum,
            "l2_of_sum": self.l2_of_sum,
            "l2_of_norms": self.l2_of_norms,
            "mean_grows": self.mean_grows,
        }


# On PyTorch, keras.optimizers.SGD() makes an object of a subclass that updates all weights at once. Here the
# objects get no variables: these would start the framework, and then several machines could not connect.
_SGD: type = type(keras.optimizers.SGD.__new__(keras.optimizers.SGD))
_Adam: type = type(keras.optimizers.Adam.__new__(keras.optimizers.Adam))


@keras.saving.register_keras_serializable("mrcnn")
class SGDWithL2(_L2Gradient, _SGD):
    """keras.optimizers.SGD that can add the gradient of the L2 penalty."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Update a weight as Keras does, in one operation if the backend has one."""
        step = backend.momentum_step
        if step is None or self.clips_after_sum or self.nesterov or not self.momentum:
            super().update_step(gradient, variable, learning_rate)
            return
        velocity = self.momentums[keras_internals.variable_index(self, variable)]
        step(variable, velocity, gradient, learning_rate, self.momentum)


@keras.saving.register_keras_serializable("mrcnn")
class AdamWithL2(_L2Gradient, _Adam):
    """keras.optimizers.Adam that can add the gradient of the L2 penalty."""


def adds_l2_gradient(optimizer: keras.Optimizer | None) -> bool:
    """Return whether an optimizer (or the one whose loss it scales) adds the gradient of the L2 penalty."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return isinstance(inner, _L2Gradient) and inner.l2_factor != 0.0

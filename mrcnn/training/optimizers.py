"""Optimisers of training: those of Keras, which know the gradient of the original's L2 penalty.

It is a multiple of each weight. A backend that differentiates the penalty computes it first of all and holds
it, as much memory as all weights take, beside the features of all layers.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.backend import calls as execution

Tensor = Any

# Weights that the penalty leaves out, as the original does: those of normalisation.
NOT_DECAYED = ("gamma", "beta")


def l2_penalty(variables: Sequence[keras.Variable], weight_decay: float) -> Tensor:
    """Weight decay of the original: the mean of squares of each tensor, gamma and beta left out.

    variables: trainable ones; biases count, too. Returns a float32 scalar.
    """
    decayed = [variable for variable in variables if variable.name not in NOT_DECAYED]
    return weight_decay * sum(ops.mean(ops.square(ops.cast(v, "float32"))) for v in decayed)


class AddsPenalty:
    """Part of an optimiser: to each gradient it adds that of `l2_penalty`, before they are clipped.

    penalty: factor of the L2 penalty, WEIGHT_DECAY divided by the devices whose gradients are added up.
    """

    penalty = 0.0

    def apply(self, grads, trainable_variables=None):
        """As in Keras; afterwards PyTorch's variables hold no gradients."""
        known = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        grads = [self._with_penalty(*pair) for pair in zip(grads, known, strict=True)]
        super().apply(grads, trainable_variables)
        execution.let_gradients_go(known)

    def _with_penalty(self, gradient, variable):
        if variable.name in NOT_DECAYED:
            return gradient
        factor = 2.0 * self.penalty / math.prod(variable.shape)
        decay = factor * ops.convert_to_tensor(variable)
        return decay if gradient is None else gradient + decay


def adding_penalty(kind: type, penalty: float) -> type:
    """The class of optimisers of this kind that add the gradient of an L2 penalty of this factor.

    Saved with a model and loaded again, one is of the kind itself, and the penalty is differentiated.
    """
    kind = type(kind())  # on PyTorch Keras makes one of another class, which moves all weights at once
    members = {"penalty": penalty, "__module__": kind.__module__}
    return type(kind.__name__, (AddsPenalty, kind), members)


def adds_penalty(optimizer: keras.Optimizer | None) -> bool:
    """Whether an optimiser, or the one whose loss it scales, is one of `adding_penalty`."""
    return isinstance(getattr(optimizer, "inner_optimizer", optimizer), AddsPenalty)

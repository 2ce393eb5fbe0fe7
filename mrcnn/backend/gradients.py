"""Gradients of a loss for inspection, without changing the network."""

from collections.abc import Callable

import keras
import numpy as np

from mrcnn import backend
from mrcnn.backend.plain import Inputs
from mrcnn.typing import Tensor


def loss_gradients(
    network: keras.Model, loss: Callable[[Inputs], Tensor]
) -> Callable[[Inputs], list[np.ndarray | None]]:
    """Return a function that computes the gradients of a loss and does not change the network.

    Args:
        network: The owner of the variables.
        loss: From {input name: tensor} to a scalar. It runs the network.

    Returns:
        A function from {input name: array} to the gradients, in the order of `network.trainable_variables`. A
        variable that the loss does not depend on has None, or zeros on JAX. Random states and statistics are
        restored.
    """
    gradients = backend.differentiate(network, loss)

    def run(inputs: Inputs) -> list[np.ndarray | None]:
        state = [backend.to_numpy(variable.value) for variable in network.non_trainable_variables]
        try:
            tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
            return [None if x is None else backend.to_numpy(x) for x in gradients(tensors)]
        finally:
            for variable, value in zip(network.non_trainable_variables, state, strict=True):
                variable.assign(value)

    return run

"""Cache of compiled training steps, one for each layer group that a network trains.

Compiling may take longer than a short training. A program that trains "heads", "all" and "heads" again
compiles twice instead of three times.
"""

from dataclasses import dataclass
from typing import Any

import keras

from mrcnn import backend
from mrcnn.backend import keras_internals

# Number of steps that a network keeps, one for each of the usual stages ("heads", "4+", "all"). Each holds
# the state of its optimizer and, on TensorFlow, about 100 MB of graphs.
LARGEST_COUNT = 3


@dataclass(frozen=True)
class CompiledStep:
    """A compiled training step.

    Attributes:
        depends_on: Everything that the compiled program depends on. Steps with equal values are the same.
        optimizer: Its optimizer.
        initial_scalars: The first value of each scalar variable of the optimizer, by the variable's id.
        state: The attributes that `keras.Model.compile` sets; see `keras_internals.compiled_state`.
    """

    depends_on: tuple[Any, ...]
    optimizer: keras.Optimizer
    initial_scalars: dict[int, Any]
    state: dict[str, Any]


class CompiledSteps:
    """The compiled training steps of one network, the most recently used one last."""

    def __init__(self) -> None:
        self._steps: list[CompiledStep] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, network: keras.Model, depends_on: tuple[Any, ...]) -> None:
        """Keep the step that the network was just compiled for, and drop the oldest of too many.

        The optimizer of the network is built.
        """
        network.make_train_function()
        network.train_function = backend.quick_train_function(network)
        network.make_test_function()
        optimizer = network.optimizer
        scalars = {id(v): backend.to_numpy(v) for v in optimizer.variables if v.shape == ()}
        state = keras_internals.compiled_state(network)
        self._steps.append(CompiledStep(depends_on, optimizer, scalars, state))
        del self._steps[:-LARGEST_COUNT]

    def restart(self, network: keras.Model, depends_on: tuple[Any, ...], learning_rate: Any) -> bool:
        """Reactivate a step, with the optimizer state and the metrics that it started with.

        Args:
            network: The network of the steps.
            depends_on: What the step depends on.
            learning_rate: Learning rate of the optimizer. A schedule is part of `depends_on`.

        Returns:
            Whether such a step exists. If not, nothing changes.
        """
        step = next((step for step in self._steps if step.depends_on == depends_on), None)
        if step is None:
            return False
        self._steps.remove(step)
        self._steps.append(step)
        keras_internals.restore_compiled_state(network, step.state)
        for variable in step.optimizer.variables:
            value = step.initial_scalars.get(id(variable))
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype) if value is None else value)
        if isinstance(learning_rate, (int, float)):
            step.optimizer.learning_rate = learning_rate
        return True

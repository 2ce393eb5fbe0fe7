"""Compiled training steps, one for each layer group that a network trains, kept for the next time.

Compiling takes longer than many short trainings. A program that trains "heads", "all" and "heads" again
compiles twice, not three times.
"""

from dataclasses import dataclass
from typing import Any

import keras

from mrcnn import backend
from mrcnn.backend import keras_internals

# Steps that one network keeps: as many as there are layer groups. Each holds the state of its optimizer.
LARGEST_COUNT = 5


@dataclass(frozen=True)
class CompiledStep:
    """A compiled training step.

    Attributes:
        depends_on: All that its program depends on. Two steps with equal values are the same.
        optimizer: Its optimizer.
        initial_scalars: The first value of each scalar variable of the optimizer, by the variable's id.
        state: What `keras.Model.compile` sets, see `keras_internals.compiled_state`.
    """

    depends_on: tuple[Any, ...]
    optimizer: keras.Optimizer
    initial_scalars: dict[int, Any]
    state: dict[str, Any]


class CompiledSteps:
    """The compiled training steps of one network, the last used one at the end."""

    def __init__(self) -> None:
        self._steps: list[CompiledStep] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, network: keras.Model, depends_on: tuple[Any, ...]) -> None:
        """Keep the step that the network was just compiled for, and drop the oldest one if there are many.

        The optimizer of the network is built.
        """
        network.make_train_function()
        network.make_test_function()
        optimizer = network.optimizer
        scalars = {id(v): backend.to_numpy(v) for v in optimizer.variables if v.shape == ()}
        state = keras_internals.compiled_state(network)
        self._steps.append(CompiledStep(depends_on, optimizer, scalars, state))
        del self._steps[:-LARGEST_COUNT]

    def restart(self, network: keras.Model, depends_on: tuple[Any, ...], learning_rate: Any) -> bool:
        """Make a step the present one again, with the optimizer state and the metrics it started with.

        Args:
            network: The network of the steps.
            depends_on: What the step depends on.
            learning_rate: Of the optimizer; a schedule is part of `depends_on`.

        Returns:
            Whether there is such a step. Otherwise nothing changed.
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

"""Checks of the arguments of `MaskRCNN.train`, before anything is written."""

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import keras


def check(epochs: Any, learning_rate: Any, layers: Any, custom_callbacks: Any) -> None:
    """Check arguments of `MaskRCNN.train`.

    Raises:
        ValueError: If one of them is of another kind. The message names it and says what it must be.
    """
    rules = {
        "epochs": (epochs, _is_count(epochs), "an integer, the total number of epochs"),
        "learning_rate": (
            learning_rate,
            _is_rate(learning_rate),
            "a finite number, not negative, or a schedule of keras.optimizers.schedules or mrcnn.schedules",
        ),
        "layers": (layers, isinstance(layers, str), 'a text such as "heads" or "all"'),
        "custom_callbacks": (custom_callbacks, _are_callbacks(custom_callbacks), "a list of Keras callbacks"),
    }
    for name, (value, is_kept, requirement) in rules.items():
        if not is_kept:
            raise ValueError(f"`{name}` must be {requirement}. Received: {name}={value!r}")


def is_done(epochs: int, epoch: int) -> bool:
    """Return whether all epochs have run, and warn if so.

    Args:
        epochs: The total number.
        epoch: The number of completed epochs.
    """
    if epochs > epoch:
        return False
    warnings.warn(
        f"Nothing to train: epochs={epochs} is the total number, and {epoch} have already run. Pass a larger "
        "number, or load the weights with resume=False to start a new run.",
        stacklevel=3,
    )
    return True


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return callable(value)
    return math.isfinite(value) and float(value) >= 0


def _are_callbacks(values: Any) -> bool:
    if values is None:
        return True
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    return is_list and all(isinstance(value, keras.callbacks.Callback) for value in values)

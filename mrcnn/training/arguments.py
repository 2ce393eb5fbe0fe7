"""Checks of the arguments of `MaskRCNN.train`, before anything is written."""

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from mrcnn.config import Config


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


def require_proposals(config: "Config") -> None:
    """Check that the network makes its own proposals, because batches of a Dataset contain none.

    Raises:
        ValueError: If USE_RPN_ROIS is False. The message says how to train with other RoIs.
    """
    if not config.USE_RPN_ROIS:
        raise ValueError(
            "USE_RPN_ROIS must be True for train(), whose batches contain no RoIs. Received: "
            f"USE_RPN_ROIS={config.USE_RPN_ROIS!r}. To train the heads with random RoIs, call compile() and "
            "then keras_model.fit with the batches of mrcnn.model.data_generator(dataset, config, "
            "batch_size=config.BATCH_SIZE, random_rois=config.POST_NMS_ROIS_TRAINING)."
        )


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


def warn_of_renumbered(known: Sequence[str] | None, names: Sequence[str]) -> None:
    """Warn if a dataset gives classes other ids than the weights that the training starts from.

    Args:
        known: The names that the weights have learned, by id; None if unknown.
        names: The names in the dataset.
    """
    learned = [name.strip() for name in known or ()]
    names = [name.strip() for name in names]
    ids = {name: (learned.index(name), names.index(name)) for name in names if name in learned}
    moved = [f"{name!r} {old} -> {new}" for name, (old, new) in ids.items() if old != new]
    if moved:
        warnings.warn(
            "The dataset gives classes other ids than the weights have learned: "
            f"{', '.join(moved)}. To keep the ids, call `renumber_classes({learned[1:]})` of a dataset of "
            "mrcnn.formats before `prepare`, or add the classes of your own dataset in this order. To learn "
            'other ids, load the weights with exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"].',
            stacklevel=3,
        )


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

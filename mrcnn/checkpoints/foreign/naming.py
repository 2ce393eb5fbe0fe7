"""Rename the weights of another library to fit our layers."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mrcnn.checkpoints.foreign.classes import COCO_IDS, TORCHVISION_CLASS_NAMES, coco_class_names
from mrcnn.checkpoints.foreign.kinds import KINDS, RESNETS, Renames, kind_of, resnet_size
from mrcnn.checkpoints.foreign.reading import read_state
from mrcnn.checkpoints.foreign.states import State
from mrcnn.errors import InvalidDataError

# Keys that hold no weights: counters, anchors, and the mean and std of the images.
NO_WEIGHTS = re.compile(r".*\.num_batches_tracked|(.*\.)?anchor_generator\..*|pixel_mean|pixel_std")


@dataclasses.dataclass(frozen=True)
class ForeignWeights:
    """Weights of another library under the names of our layers.

    Deltas and logits are in our order. The boxes of the RPN are relative to `RPN_BBOX_STD_DEV` of 1, those of
    the box head to `BBOX_STD_DEV` of (0.1, 0.1, 0.2, 0.2). conv1 takes RGB images with 0..255 minus the mean.

    Attributes:
        kind: A key of `KINDS`: "torchvision", "torchvision-v2" or "detectron2".
        layers: {layer name: weights, float32}, in the order of a weight file. Convolutions before a batch
            norm have no bias.
        backbone: A value of RESNETS; None for another network.
        num_classes: Number of classes including the background; 91 for torchvision's COCO weights.
        class_names: Their names if the classes are COCO's, else None.
        missing: Layers that the file lacks, completely or partly.
        unused: Keys of the file that belong to no layer.
    """

    kind: str
    layers: dict[str, list[np.ndarray]]
    backbone: str | None
    num_classes: int
    class_names: tuple[str, ...] | None
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def read_foreign_weights(path: str | os.PathLike[str]) -> ForeignWeights:
    """Read weights of torchvision or Detectron2, named like our layers.

    Args:
        path: A .pth, .safetensors or .pkl file, recognized by its content rather than its suffix; or a
            ReadFile. It may be a checkpoint with the state dict under "model" or "state_dict", and keys may
            have the prefix of DistributedDataParallel.

    Raises:
        MissingFileError, UnreadableFileError: If the file does not exist, or is a folder.
        InvalidDataError: If the file is damaged, or belongs to another network.
    """
    return name_weights(read_state(path), Path(path))


def name_weights(state: State, path: str | Path | None = None) -> ForeignWeights:
    """Convert a state dict of another library to weights under the names of our layers.

    Args:
        state: {key: array}.
        path: Name of the file, for errors.

    Raises:
        InvalidDataError: If the state dict belongs to another network, or a shape does not fit its key.
    """
    kind = kind_of(state, path)
    facts = KINDS[kind]
    state = {
        _current_name(key, facts.old_names): values
        for key, values in state.items()
        if not NO_WEIGHTS.fullmatch(key)
    }
    rows = facts.rows(state)
    layers: dict[str, list[np.ndarray]] = {}
    used: set[str] = set()
    for layer, parts in rows:
        if not all(key in state for key, _ in parts):
            continue
        layers[layer] = [_converted(path, key, state[key], transform) for key, transform in parts]
        used.update(key for key, _ in parts)
    logits = layers.get("mrcnn_class_logits")
    num_classes = logits[0].shape[-1] if logits else 0
    return ForeignWeights(
        kind=kind,
        layers=layers,
        backbone=RESNETS.get(resnet_size(state, facts)),
        num_classes=num_classes,
        class_names=coco_class_names(num_classes),
        missing=tuple(layer for layer, _ in rows if layer not in layers),
        unused=tuple(key for key in state if key not in used),
    )


def _current_name(key: str, old_names: Renames) -> str:
    for pattern, replacement in old_names:
        key = re.sub(f"^{pattern}$", replacement, key)
    return key


def _converted(
    path: str | Path | None, key: str, values: np.ndarray, transform: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    try:
        return np.ascontiguousarray(transform(values))
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise InvalidDataError(f"unexpected shape {values.shape}: {error}", file=path, entry=key) from error


def without_gaps(weights: ForeignWeights, num_classes: int) -> ForeignWeights:
    """Keep only COCO's 80 categories of torchvision's 91 outputs, if the model has no outputs for the gaps.

    Args:
        weights: Weights with all classes.
        num_classes: Number of classes of the model, including the background.
    """
    has_gaps = weights.class_names == TORCHVISION_CLASS_NAMES
    return select_classes(weights, COCO_IDS) if has_gaps and num_classes == len(COCO_IDS) else weights


def select_classes(weights: ForeignWeights, ids: Sequence[int]) -> ForeignWeights:
    """Keep only some classes, by selecting their rows in the last layers of the heads.

    The scores of the remaining classes become slightly larger, because the softmax has fewer terms.

    Args:
        weights: Weights with all classes.
        ids: Class ids to keep, the background (0) first; for torchvision's COCO weights `classes.COCO_IDS`.
    """
    chosen = list(ids)
    layers = dict(weights.layers)
    for layer, entries in (("mrcnn_class_logits", 1), ("mrcnn_bbox_fc", 4), ("mrcnn_mask", 1)):
        if layer in layers:
            layers[layer] = [_columns(values, chosen, entries) for values in layers[layer]]
    class_names = weights.class_names and tuple(weights.class_names[index] for index in chosen)
    return dataclasses.replace(weights, layers=layers, num_classes=len(chosen), class_names=class_names)


def _columns(values: np.ndarray, ids: list[int], entries: int) -> np.ndarray:
    grouped = values.reshape(*values.shape[:-1], -1, entries)[..., ids, :]
    return np.ascontiguousarray(grouped.reshape(*values.shape[:-1], -1))

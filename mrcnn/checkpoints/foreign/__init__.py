"""Read weight files of torchvision's and Detectron2's Mask R-CNN, and rename the weights to fit our layers.

    weights = foreign.read_foreign_weights("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth")
    weights.kind, weights.num_classes, weights.class_names

Nothing in a file is executed, and PyTorch is not needed. The network must compute the same as that of the
other library. The settings for this depend on `ForeignWeights.kind`.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.checkpoints.foreign import names
from mrcnn.checkpoints.foreign.classes import COCO_IDS, TORCHVISION_CLASS_NAMES, coco_class_names
from mrcnn.checkpoints.foreign.detectron2 import read_numpy_pickle
from mrcnn.checkpoints.foreign.names import Row
from mrcnn.checkpoints.foreign.pth import MAGIC_NUMBER, read_pth
from mrcnn.checkpoints.foreign.safetensors import read_safetensors
from mrcnn.checkpoints.foreign.states import State
from mrcnn.checkpoints.opening import ZIP_MAGIC, check_file, read_start
from mrcnn.errors import InvalidDataError

PICKLE_START = b"\x80"
LONGEST_MAGIC = 64


# Names of torchvision's first release, which its published file of `maskrcnn_resnet50_fpn` has.
Renames = list[tuple[str, str | Callable[[re.Match[str]], str]]]
TORCHVISION_OLD_NAMES: Renames = [
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)", r"backbone.fpn.\1_blocks.\2.0.\3"),
    (
        r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)",
        lambda match: f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}",
    ),
]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A network of another library.

    Attributes:
        title: Its name, for messages.
        marker: A key that only its state dicts have.
        rows: Returns its table of `names`.
        stage4_key: Key of stage 4 of its ResNet, which tells the ResNets apart.
        preset: Name of the class in `mrcnn.config` with its settings.
        old_names: Patterns of keys of earlier releases, and the current keys.
    """

    title: str
    marker: str
    rows: Callable[[State], list[Row]]
    stage4_key: str
    preset: str
    old_names: Renames = dataclasses.field(default_factory=list)


KINDS = {
    "torchvision": Kind(
        "torchvision's maskrcnn_resnet50_fpn",
        "roi_heads.box_head.fc6.weight",
        names.torchvision_rows,
        "backbone.body.layer3",
        "TorchvisionConfig",
        TORCHVISION_OLD_NAMES,
    ),
    "torchvision-v2": Kind(
        "torchvision's maskrcnn_resnet50_fpn_v2",
        "roi_heads.box_head.0.0.weight",
        names.torchvision_v2_rows,
        "backbone.body.layer3",
        "TorchvisionV2Config",
    ),
    "detectron2": Kind(
        "Detectron2's Mask R-CNN with FPN",
        "backbone.fpn_lateral2.weight",
        names.detectron2_rows,
        "backbone.bottom_up.res4",
        "Detectron2Config",
    ),
}
# By number of blocks in stage 4, and of groups of channels.
RESNETS = {(6, 1): "resnet50", (23, 1): "resnet101", (23, 32): "resnext101_32x8d"}

# Keys that hold no weights: counters, anchors, and the mean and std of the images.
NO_WEIGHTS = re.compile(r".*\.num_batches_tracked|(.*\.)?anchor_generator\..*|pixel_mean|pixel_std")


# Only trainable batch norms of PyTorch count their batches. They add this number to the variance; the frozen
# ones of torchvision's published `maskrcnn_resnet50_fpn` add 0.
BATCH_COUNTER = "num_batches_tracked"
PYTORCH_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Preset:
    """The settings for weights of another library.

    Attributes:
        name: Name of a class in `mrcnn.config`.
        settings: Settings that differ from those of the class.
    """

    name: str
    settings: dict[str, Any]


def preset_for(state: State, path: str | Path | None = None) -> Preset:
    """Return the settings that fit the weights of a state dict, judging by its keys.

    A file does not determine everything: see the docstring of `mrcnn.config.TorchvisionConfig` about
    BATCH_NORM_EPSILON.

    Args:
        state: {key: array}; see `read_state`.
        path: Name of the file, for errors.

    Raises:
        InvalidDataError: If it belongs to another network, or its ResNet has another depth.
    """
    kind = kind_of(state, path)
    facts = KINDS[kind]
    blocks, groups = _resnet_size(state, facts)
    backbone = RESNETS.get((blocks, groups))
    if backbone is None:
        raise InvalidDataError(
            "the file must have a ResNet of 50 or 101 layers, or ResNeXt-101 32x8d. Received: a ResNet with "
            f"{blocks} blocks in stage 4 and {groups} groups of channels.",
            file=path,
        )
    logits = next(values for key, values in state.items() if key.endswith("box_predictor.cls_score.weight"))
    settings: dict[str, Any] = {"NUM_CLASSES": len(logits), "BACKBONE": backbone}
    if kind == "torchvision" and any(key.endswith(BATCH_COUNTER) for key in state):
        settings["BATCH_NORM_EPSILON"] = PYTORCH_EPSILON
    if groups > 1:
        settings["RESNET_STYLE"] = "pytorch"
    return Preset(facts.preset, settings)


def _resnet_size(state: State, facts: Kind) -> tuple[int, int]:
    """The number of blocks of stage 4, and of groups of channels."""
    return names.block_count(state, facts.stage4_key), names.group_count(state, facts.stage4_key)


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


@dataclasses.dataclass(frozen=True)
class ReadFile(os.PathLike[str]):
    """A file that has been read. Functions that take its path take this object and do not read it again.

    Attributes:
        path: The file.
        state: {key of the other library: float32 array}; see `read_state`.
    """

    path: Path
    state: State

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


def is_foreign_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts like a pickle, a zip archive or a .safetensors file."""
    return _reader(Path(path)) is not None


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


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the arrays of a .pth, .safetensors or .pkl file.

    Args:
        path: The file, or a ReadFile, whose `state` is returned.

    Returns:
        {key of the other library: float32 array}.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_foreign_weights`.
    """
    if isinstance(path, ReadFile):
        return path.state
    path = check_file(path)
    reader = _reader(path)
    if reader is None:
        raise InvalidDataError(
            "the file must be a .pth, .safetensors or .pkl file, but its content is none of these.", file=path
        )
    return reader(path)


def _reader(path: Path) -> Callable[[Path], State] | None:
    start = read_start(path, LONGEST_MAGIC)
    if start.startswith(ZIP_MAGIC):
        return read_pth
    if start.startswith(PICKLE_START):
        return read_pth if _is_old_pth(path) else read_numpy_pickle
    return read_safetensors if start[8:9] == b"{" else None


def _is_old_pth(path: Path) -> bool:
    """Return whether the first pickle is the magic number of PyTorch's older files."""
    encoded = MAGIC_NUMBER.to_bytes(10, "little")
    return encoded in read_start(path, LONGEST_MAGIC)


def kind_of(state: State, path: str | Path | None = None) -> str:
    """Return the key of `KINDS` that a state dict belongs to.

    Raises:
        InvalidDataError: If it belongs to none.
    """
    for kind, facts in KINDS.items():
        if facts.marker in state:
            return kind
    titles = ", ".join(facts.title for facts in KINDS.values())
    raise InvalidDataError(
        f"the file must hold the weights of one of: {titles}. Received: {len(state)} keys, starting with "
        f"{list(state)[:3]}",
        file=path,
    )


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
        backbone=RESNETS.get(_resnet_size(state, facts)),
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

"""The networks of other libraries: how to recognize them, and which settings fit them."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrcnn.checkpoints.foreign import names
from mrcnn.checkpoints.foreign.names import Row
from mrcnn.checkpoints.foreign.states import State
from mrcnn.errors import InvalidDataError

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
    blocks, groups = resnet_size(state, facts)
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


def resnet_size(state: State, facts: Kind) -> tuple[int, int]:
    """Return the number of blocks of stage 4 of a ResNet, and of groups of channels."""
    return names.block_count(state, facts.stage4_key), names.group_count(state, facts.stage4_key)


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
        f"The file holds the weights of no known network. Pass a file of one of these: {titles}. Received: "
        f"{len(state)} keys, starting with {list(state)[:3]}",
        file=path,
    )

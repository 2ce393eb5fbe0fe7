"""Compare a weight file with a model, layer by layer, and explain why layers do not fit.

This module only needs names and shapes: {layer name: [shape of each weight]}.
"""

import dataclasses
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mrcnn.checkpoints.model_info import ModelInfo
from mrcnn.checkpoints.weight_files import HEAD_PREFIXES

Shapes = Mapping[str, Sequence[tuple[int, ...]]]

# Layers whose shapes depend on NUM_CLASSES, and mrcnn_bbox, which has no weights: old scripts list it too.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


class Setting(NamedTuple):
    """One axis of a weight whose length depends on a setting of `Config`."""

    layer: str
    weight: int  # index in the layer
    axis: int
    entries: int  # per unit of the setting
    name: str
    unit: str
    exclude: list[str]  # layers to exclude instead of changing the setting; empty if there is no such choice


SETTINGS = [
    Setting("mrcnn_class_logits", 0, -1, 1, "NUM_CLASSES", "classes", CLASS_LAYERS),
    Setting("mrcnn_bbox_fc", 0, -1, 4, "NUM_CLASSES", "classes", CLASS_LAYERS),
    Setting("mrcnn_mask", 0, -1, 1, "NUM_CLASSES", "classes", CLASS_LAYERS),
    Setting("conv1", 0, 2, 1, "IMAGE_CHANNEL_COUNT", "image channels", ["conv1"]),
    Setting("fpn_c5p5", 0, -1, 1, "TOP_DOWN_PYRAMID_SIZE", "pyramid channels", []),
    Setting("mrcnn_class_conv1", 0, -1, 1, "FPN_CLASSIF_FC_LAYERS_SIZE", "units in the box head", []),
    Setting("mrcnn_class_conv1", 0, 0, 1, "POOL_SIZE", "rows per pooled RoI", ["mrcnn_class_conv1"]),
    Setting("rpn_model", 2, -1, 2, "len(RPN_ANCHOR_RATIOS)", "anchor ratios", ["rpn_model"]),
]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """The result of loading a weight file, layer by layer.

    Attributes:
        filepath: Path of the file.
        loaded: Layers of the model that get their weights from the file, in model order.
        excluded: Names in `exclude` that are a layer of the model or of the file.
        missing_in_file: Layers of the model that the file lacks. They keep their weights.
        unused_in_file: Layers of the file that the model lacks.
        is_backbone_only: Whether the file has no layers of the pyramid, the RPN or the heads, like ImageNet
            weights.
        origin: The network of another library that the weights belong to; None for weights of this library.
        info: The description of the model in the file, or None if there is none.
        class_names: Names of the loaded classes by class id; None if the file does not contain them.
    """

    filepath: str
    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing_in_file: tuple[str, ...]
    unused_in_file: tuple[str, ...]
    is_backbone_only: bool
    origin: str | None = None
    info: ModelInfo | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def unexpected_missing(self) -> tuple[str, ...]:
        """The layers of `missing_in_file` that a file of this kind should have."""
        return tuple(
            name
            for name in self.missing_in_file
            if not (self.is_backbone_only and name.startswith(HEAD_PREFIXES))
        )

    def __str__(self) -> str:
        """Return a table with the number of layers of each kind, and the names of layers not loaded."""
        lines = [
            f"Weights of {self.filepath}" + (" (a backbone)" if self.is_backbone_only else ""),
            f"  {'loaded':<16}{len(self.loaded):4d} layers",
        ]
        for kind in ("excluded", "missing_in_file", "unused_in_file"):
            names = getattr(self, kind)
            lines.append(f"  {kind.replace('_', ' '):<16}{len(names):4d} layers")
            lines += _wrapped(names) if names else []
        return "\n".join(lines)


def compare(
    filepath: str,
    file_shapes: Shapes,
    model_shapes: Shapes,
    exclude: Collection[str],
    origin: str | None = None,
) -> LoadReport:
    """Divide the layers of a file and a model into layers to load and layers that only one of them has.

    Args:
        filepath: Path of the file, for the report.
        file_shapes: Shapes of the layers with weights in the file.
        model_shapes: Shapes of the layers with weights in the model.
        exclude: Names of layers that keep their weights.
        origin: See `LoadReport`.
    """
    return LoadReport(
        filepath=filepath,
        loaded=tuple(n for n in model_shapes if n in file_shapes and n not in exclude),
        excluded=tuple(exclude),
        missing_in_file=tuple(n for n in model_shapes if n not in file_shapes and n not in exclude),
        unused_in_file=tuple(n for n in file_shapes if n not in model_shapes and n not in exclude),
        is_backbone_only=not any(name.startswith(HEAD_PREFIXES) for name in file_shapes),
        origin=origin,
    )


def mismatched_layers(report: LoadReport, file_shapes: Shapes, model_shapes: Shapes) -> list[str]:
    """Return the layers of `report.loaded` whose shapes, or number of weights, differ."""
    return [name for name in report.loaded if list(file_shapes[name]) != list(model_shapes[name])]


def describe(
    report: LoadReport, file_shapes: Shapes, model_shapes: Shapes, not_finite: Collection[str] = ()
) -> str:
    """List every layer that does not fit, with both shapes, and what to do about it.

    Args:
        report: A report from `compare`.
        file_shapes, model_shapes: The arguments of `compare`.
        not_finite: Names of the weights in the file that hold NaN or infinite values.

    Returns:
        Several lines, or "" if all layers fit.
    """
    mismatched = mismatched_layers(report, file_shapes, model_shapes)
    lines = []
    for title, names in (
        ("In the model but not in the file:", report.unexpected_missing),
        ("In the file but not in the model:", report.unused_in_file),
        ("NaN or infinite values in the file:", not_finite),
    ):
        lines += [title, *_wrapped(names)] if names else []
    if mismatched:
        lines.append("Different shapes:")
    for name in mismatched:
        lines.append(f"    {name}: file {_row(file_shapes[name])}, model {_row(model_shapes[name])}")
    if lines:
        remedies = likely_remedies(report, file_shapes, model_shapes, not_finite)
        lines += ["What to do:", *(f"    {remedy}" for remedy in remedies)]
    return "\n".join(lines)


def likely_remedies(
    report: LoadReport, file_shapes: Shapes, model_shapes: Shapes, not_finite: Collection[str] = ()
) -> list[str]:
    """Return one line per likely cause of the differences, settings of `Config` first.

    Args:
        report, file_shapes, model_shapes, not_finite: See `describe`.
    """
    mismatched = mismatched_layers(report, file_shapes, model_shapes)
    remedies = _setting_remedies(mismatched, file_shapes, model_shapes)
    if report.origin is not None and len(mismatched) > len(CLASS_LAYERS):
        remedies.insert(
            0, f"these are weights of {report.origin}; build the model with the settings for them"
        )
    missing, unused = report.unexpected_missing, report.unused_in_file
    if any(not name.startswith(HEAD_PREFIXES) for name in (*missing, *unused)):
        in_file, in_model = _resnet(file_shapes), _resnet(model_shapes)
        if in_file != in_model:
            remedies.append(
                (
                    f"the file has {in_file or 'another backbone'}, but the model has "
                    f"{in_model or 'another backbone'}; set BACKBONE"
                )
                + (f" = {in_file!r}" if in_file else " to the backbone of the file")
            )
    if not_finite:
        remedies.append("the training that wrote the file diverged; use the weights of an earlier epoch")
    if mismatched and not remedies:
        remedies.append(f"pass exclude={mismatched!r} to keep the model's weights there")
    if missing or unused:
        remedies.append("list these layers in `exclude`, or pass strict=False, to load the others")
    return remedies


def _setting_remedies(mismatched: list[str], file_shapes: Shapes, model_shapes: Shapes) -> list[str]:
    remedies: dict[str, str] = {}
    for setting in SETTINGS:
        if setting.layer not in mismatched:
            continue
        try:
            in_file, in_model = (
                shapes[setting.layer][setting.weight][setting.axis] // setting.entries
                for shapes in (file_shapes, model_shapes)
            )
        except IndexError:  # another number of weights or axes: no matter of this setting
            continue
        if in_file != in_model:
            choice = f" or pass exclude={setting.exclude!r}" if setting.exclude else f" = {in_file}"
            remedies[setting.name] = (
                f"the file has {in_file} {setting.unit}, but the model has {setting.name}={in_model}; set "
                f"{setting.name}{choice}"
            )
    return list(remedies.values())


def settings_of(shapes: Shapes) -> dict[str, Any]:
    """Return the settings of `Config` that follow from the shapes of a weight file."""
    found: dict[str, Any] = {}
    if backbone := _resnet(shapes):
        found["BACKBONE"] = backbone
    for setting in SETTINGS:
        if setting.layer in shapes and setting.name.isupper():
            try:
                length = shapes[setting.layer][setting.weight][setting.axis]
            except IndexError:
                continue
            found.setdefault(setting.name, length // setting.entries)
    return found


def size(shapes: Shapes) -> int:
    """Return the number of values in all layers."""
    return sum(math.prod(shape) for arrays in shapes.values() for shape in arrays)


def least_size(settings: Mapping[str, Any]) -> int:
    """Return a lower bound of the number of weights of a network with these settings.

    This prevents a file of a few bytes from requesting a network of terabytes.
    """
    pyramid, units = settings["TOP_DOWN_PYRAMID_SIZE"], settings["FPN_CLASSIF_FC_LAYERS_SIZE"]
    mask, classes = settings["MASK_HEAD_CHANNELS"], settings["NUM_CLASSES"]
    hidden = 0 if settings.get("BOX_HEAD_CONVOLUTIONS") else units * units
    return (
        settings["POOL_SIZE"] ** 2 * pyramid * units
        + hidden
        + 9 * pyramid * settings["RPN_CHANNELS"]
        + 2 * settings["RPN_CHANNELS"] * len(settings["RPN_ANCHOR_RATIOS"])
        + mask * mask
        + classes * (5 * units + mask)
    )


def _resnet(names: Collection[str]) -> str | None:
    """Return the name of the ResNet, by its layer names: only ResNet-101 has blocks 4g to 4w."""
    if "res4g_branch2a" in names:
        return "resnet101"
    return "resnet50" if "res4a_branch2a" in names else None


def _row(shapes: Sequence[tuple[int, ...]]) -> str:
    return " ".join(str(tuple(shape)).replace(" ", "") for shape in shapes)


def _wrapped(names: Collection[str]) -> list[str]:
    indent = " " * 4
    return textwrap.wrap(
        ", ".join(names),
        96,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )

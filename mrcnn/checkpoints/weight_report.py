"""Comparison of a weight file with a model, layer by layer: what fits, what does not, likely why.

Works on names and shapes alone: {layer name: [shape of each weight]}.
"""

import dataclasses
import textwrap
from collections.abc import Collection, Mapping, Sequence

from mrcnn.checkpoints.weight_files import HEAD_PREFIXES

Shapes = Mapping[str, Sequence[tuple[int, ...]]]

# Layers whose shape follows from NUM_CLASSES, and mrcnn_bbox, which users name beside them though
# it has no weights.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]

# Where a setting shows in a shape: layer, index of the weight, axis, entries per unit, the
# setting, what it counts, and the layers that can be left out instead of changing it.
SETTINGS: list[tuple[str, int, int, int, str, str, list[str]]] = [
    ("mrcnn_class_logits", 0, -1, 1, "NUM_CLASSES", "classes", CLASS_LAYERS),
    ("mrcnn_bbox_fc", 0, -1, 4, "NUM_CLASSES", "classes", CLASS_LAYERS),
    ("mrcnn_mask", 0, -1, 1, "NUM_CLASSES", "classes", CLASS_LAYERS),
    ("conv1", 0, 2, 1, "IMAGE_CHANNEL_COUNT", "image channels", ["conv1"]),
    ("fpn_c5p5", 0, -1, 1, "TOP_DOWN_PYRAMID_SIZE", "pyramid channels", []),
    ("mrcnn_class_conv1", 0, -1, 1, "FPN_CLASSIF_FC_LAYERS_SIZE", "units in the class head", []),
    ("mrcnn_class_conv1", 0, 0, 1, "POOL_SIZE", "rows per pooled ROI", ["mrcnn_class_conv1"]),
    ("rpn_model", 2, -1, 2, "len(RPN_ANCHOR_RATIOS)", "anchor ratios", ["rpn_model"]),
]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What becomes of every layer with weights when a file is loaded.

    filepath: the file.
    loaded: layers of the model that take the file's weights, in model order.
    excluded: names given in `exclude` that are a layer of the model or the file.
    missing_in_file: layers of the model that the file lacks; they keep their present weights.
    unused_in_file: layers of the file that the model lacks.
    is_backbone_only: whether the file has no layer of pyramid, RPN and heads (ImageNet weights).
    """

    filepath: str
    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing_in_file: tuple[str, ...]
    unused_in_file: tuple[str, ...]
    is_backbone_only: bool

    @property
    def unexpected_missing(self) -> tuple[str, ...]:
        """The layers of missing_in_file that this kind of file should have."""
        return tuple(
            name
            for name in self.missing_in_file
            if not (self.is_backbone_only and name.startswith(HEAD_PREFIXES))
        )

    def __str__(self) -> str:
        """A table: kind, number of layers, and the names of all that were not loaded."""
        lines = [
            f"Weights of {self.filepath}" + (" (a backbone)" if self.is_backbone_only else ""),
            f"  {'loaded':<16}{len(self.loaded):4d} layers",
        ]
        for kind in ("excluded", "missing_in_file", "unused_in_file"):
            names = getattr(self, kind)
            lines.append(f"  {kind.replace('_', ' '):<16}{len(names):4d} layers")
            lines += _wrapped(names) if names else []
        return "\n".join(lines)


def compare(filepath: str, file_shapes: Shapes, model_shapes: Shapes, exclude: Collection[str]) -> LoadReport:
    """Sort the layers with weights of file and model by what is to happen to them.

    exclude: names as given by the user, already known to name a layer.
    """
    return LoadReport(
        filepath=filepath,
        loaded=tuple(n for n in model_shapes if n in file_shapes and n not in exclude),
        excluded=tuple(exclude),
        missing_in_file=tuple(n for n in model_shapes if n not in file_shapes and n not in exclude),
        unused_in_file=tuple(n for n in file_shapes if n not in model_shapes and n not in exclude),
        is_backbone_only=not any(name.startswith(HEAD_PREFIXES) for name in file_shapes),
    )


def misfits(report: LoadReport, file_shapes: Shapes, model_shapes: Shapes) -> list[str]:
    """The layers to be loaded whose shapes, or number of weights, differ."""
    return [name for name in report.loaded if list(file_shapes[name]) != list(model_shapes[name])]


def describe(
    report: LoadReport, file_shapes: Shapes, model_shapes: Shapes, broken: Collection[str] = ()
) -> str:
    """Every layer that does not fit, with both shapes, and the likely cures; "" if all fit.

    broken: layers whose weights in the file are not all finite.
    """
    different = misfits(report, file_shapes, model_shapes)
    lines = []
    for title, names in (
        ("In the model but not in the file:", report.unexpected_missing),
        ("In the file but not in the model:", report.unused_in_file),
        ("NaN or infinite values in the file:", broken),
    ):
        lines += [title, *_wrapped(names)] if names else []
    if different:
        lines.append("Other shapes:")
    for name in different:
        lines.append(f"    {name}: file {_row(file_shapes[name])}, model {_row(model_shapes[name])}")
    if lines:
        cures = likely_cures(report, file_shapes, model_shapes, broken)
        lines += ["Likely cure:", *(f"    {cure}" for cure in cures)]
    return "\n".join(lines)


def likely_cures(
    report: LoadReport, file_shapes: Shapes, model_shapes: Shapes, broken: Collection[str] = ()
) -> list[str]:
    """One line for each cause that the differences point to, the settings of `Config` first."""
    different = misfits(report, file_shapes, model_shapes)
    cures = _setting_cures(different, file_shapes, model_shapes)
    missing, unused = report.unexpected_missing, report.unused_in_file
    if any(not name.startswith(HEAD_PREFIXES) for name in (*missing, *unused)):
        theirs, ours = _resnet(file_shapes), _resnet(model_shapes)
        if theirs != ours:
            cures.append(
                f"file looks like {theirs or 'another backbone'}, model like "
                f"{ours or 'another backbone'}; set BACKBONE"
                + (f" = {theirs!r}" if theirs else " to the one of the file")
            )
    if broken:
        cures.append("training has diverged before this file was saved; take an earlier file")
    if different and not cures:
        cures.append(f"pass exclude={different!r} to keep the model's weights there")
    if missing or unused:
        cures.append("name the layers in exclude, or pass strict=False, to load the others")
    return cures


def _setting_cures(different: list[str], file_shapes: Shapes, model_shapes: Shapes) -> list[str]:
    cures: dict[str, str] = {}
    for layer, weight, axis, entries, setting, counted, optional in SETTINGS:
        if layer not in different:
            continue
        try:
            theirs = file_shapes[layer][weight][axis] // entries
            ours = model_shapes[layer][weight][axis] // entries
        except IndexError:  # another number of weights or axes: not a matter of this setting
            continue
        if theirs != ours:
            instead = f" or pass exclude={optional!r}" if optional else f" = {theirs}"
            cures[setting] = f"file has {theirs} {counted}, model {setting}={ours}; set {setting}"
            cures[setting] += instead
    return list(cures.values())


def _resnet(names: Collection[str]) -> str | None:
    """Which ResNet the layer names belong to: blocks 4g to 4w are those of ResNet-101."""
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

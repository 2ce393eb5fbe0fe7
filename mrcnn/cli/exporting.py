"""The command `mrcnn export`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.models import load_keras_model
from mrcnn.cli.options import refuse
from mrcnn.files.images import read_image
from mrcnn.formats.image_files import open_image
from mrcnn.formats.predictions import images_of
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.typing import Image

# Ranges of feature maps change little with more images.
CALIBRATION_IMAGES = 100
CHECK_IMAGES = 10


def export_model(
    model: str,
    output: Path,
    *,
    format: str | None,
    calibration: Path | None,
    class_names: str | None,
    check: Path | None,
    unchecked: bool,
    settings: Sequence[str],
    choice: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Export a model; see the command.

    Args:
        model: A weight file, or a published name.
        output: The file or folder to write.
        format: One of `mrcnn.export.FORMATS`, or None for that of the suffix.
        calibration: An image, or a folder or zip archive of images, for int8.
        class_names: Names of the classes, separated by commas; see `split_names`.
        check: An image, or a folder or zip archive of images, on which to compare the file with the model.
        unchecked: Whether not to compare.
        settings: Settings that differ from those of the weight file.
        choice: The `page` and `channels` of these images; see `read_image`.
        options: size, dtype and precision of `mrcnn.export.export`.

    Returns:
        A description of the file, and a sentence.

    Raises:
        DataError: If an image or the weights cannot be read.
        ValueError: If an option does not fit.
    """
    from mrcnn.export.exporting import check_precision, format_of

    if check is not None and unchecked:
        raise ValueError("--check and --no-check contradict each other. Pass only one of them.")
    precision = options["precision"]
    if calibration is not None and precision != "int8":
        raise ValueError(
            "--calibration applies only to --precision int8. Pass --precision int8, or leave out "
            f"--calibration. Received: --precision {precision}"
        )
    if calibration is None and check is None:
        refuse(
            choice or {},
            "{given} can only be used with --calibration or --check. Pass images with one of these, or leave "
            "out {given}.",
        )
    kind = format_of(output, format)
    if precision == "int8" and calibration is None and kind in ("onnx", "openvino"):
        raise ValueError(
            "--precision int8 needs images to measure the ranges of the feature maps. Pass a folder or zip "
            "archive of 10 to 300 images like those you want to detect in, for example: --calibration photos/"
        )
    images = None if calibration is None else read_images(calibration, CALIBRATION_IMAGES, choice)
    check_precision(kind, precision, images)
    check_images = None if check is None else read_images(check, CHECK_IMAGES, choice)
    loaded = load_keras_model(model, settings)
    check_choice((choice or {}).get("channels"), loaded.config)
    path = loaded.export(
        output,
        kind,
        class_names=None if class_names is None else split_names(class_names),
        calibration=images,
        check=not unchecked if check_images is None else check_images,
        **options,
    )
    value = {"path": str(path), "format": kind, "precision": precision, "megabytes": megabytes(path)}
    return value, f"Exported {path} ({value['megabytes']} MB). {_verdict(model, precision, unchecked)}"


def split_names(text: str) -> list[str]:
    """Return the names in a text such as `cell,"stone, round"`: only names with commas need quotes."""
    names = next(csv.reader([text], skipinitialspace=True), [])
    return [name.strip() for name in names]


def _verdict(model: str, precision: str, unchecked: bool) -> str:
    if unchecked:
        return f"It was not compared with {model}."
    if precision == "float32":
        return f"Its detections match those of {model}."
    return (
        f"It finds about the same as {model}. Measure how much accuracy it loses: mrcnn evaluate takes the "
        "file in place of the weights."
    )


def read_images(source: Path, count: int, choice: Mapping[str, Any] | None = None) -> list[Image]:
    """Return an image file, or the first images of a folder or zip archive, or of its folder "images".

    Raises:
        DataError: If there are none, or one cannot be read.
    """
    root, paths = images_of(source)
    names = list(paths.values())[:count]
    return [read_image(open_image(root, name), f"{root}/{name}", **(choice or {})) for name in names]


def megabytes(path: Path) -> float:
    """Return the size of an exported file, with the weights beside an .xml file, or of a folder."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    else:
        files = [path, *([path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [])]
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)

"""Export a model: choose the format, write the file, and check it."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.export import keras_formats, onnx_precision, openvino_format, torch_format
from mrcnn.export.checking import check_file
from mrcnn.export.onnx_writer import onnx_model
from mrcnn.files import atomic_write, hidden_prefix
from mrcnn.geometry.images import SHORTEST_MULTIPLE, SIZE_MULTIPLE, check_molded_size
from mrcnn.inference.detector import update_layer_settings
from mrcnn.inference.inputs import image_list, whole_image_config
from mrcnn.packages import require
from mrcnn.runtime.inputs import original_size, prepare
from mrcnn.runtime.metadata import DTYPES, PRECISIONS, Metadata, check_names
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN

# Format -> suffix of its file; a SavedModel is a folder.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "torch": ".pt2", "saved_model": ""}
# Formats with half precision and int8.
REDUCIBLE = ("onnx", "openvino", "litert")
# Formats that measure the ranges of feature maps on images for int8.
CALIBRATED = ("onnx", "openvino")


def export(
    model: "MaskRCNN",
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
    precision: str = "float32",
    calibration: Sequence[Image] | None = None,
    check: bool | Sequence[Image] = True,
) -> Path:
    """Export a model to a file for other programs.

    The input `images` is [B, height, width, channels], RGB, 0 to 255, without padding and without the mean
    subtracted. The outputs are, for D slots of detections by descending score:

        boxes       float32 [B, D, (y1, x1, y2, x2)], in pixels of `images`, y2 and x2 outside
        class_ids   int32 [B, D], 0 in unused slots
        scores      float32 [B, D]
        masks       float32 [B, D, 28, 28], the probability that a cell of the box belongs to the object
        count       int32 [B], the number of detections

    Args:
        model: A model with weights. One in training mode is copied to inference mode first.
        path: The file to write; for a SavedModel a folder. It ends in .onnx, .xml (OpenVINO), .tflite
            (LiteRT) or .pt2 (PyTorch), or has no suffix (SavedModel).
        format: "onnx", "openvino", "litert", "torch" or "saved_model". None takes the suffix of `path`.
        class_names: Names of the classes, which the file carries; with or without the background. None takes
            those of the model, or numbers.
        size: (height, width) of the images, for runtimes that need a fixed size; multiples of 64. None leaves
            it open: images up to the size of the network in the mode "square", of any size otherwise. PyTorch
            needs it in the other modes.
        dtype: "float32", or "uint8" for images of 8 bits.
        precision: The precision of the convolutions: "float32", or, for ONNX, OpenVINO and LiteRT, "float16"
            or "int8". Smaller files, and other results: evaluate them. Boxes stay float32.
        calibration: 10 to 300 images like those in which you want to detect objects, for "int8" in ONNX and
            OpenVINO. A single array is one image.
        check: Whether to load the file, run it, and compare it with `MaskRCNN.detect`, on an image of shapes
            or on images of yours, [height, width, channels] each; a single array is one image. A file that
            differs is not kept.

    Returns:
        The path.

    Raises:
        ValueError: If an argument or an image does not fit, or the network has a layer that the format cannot
            hold; or if there is a folder with other files at `path`.
        OSError: If the file cannot be written.
        ImportError: If a package is missing. The error names it.
        RuntimeError: If the file does not compute what `MaskRCNN.detect` computes.
    """
    path = Path(path)
    format = format_of(path, format)
    check_target(path, format)
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}")
    calibration = None if calibration is None else image_list(calibration)
    check = check if isinstance(check, bool) else image_list(check)
    check_precision(format, precision, calibration)
    model = _ready(model)
    metadata = describe(model, class_names=class_names, size=size, dtype=dtype, precision=precision)
    inputs = file_inputs(calibration or (), metadata)
    file_inputs(() if isinstance(check, bool) else check, metadata)  # refuses images before the export
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"model{FORMATS[format]}"
        _write(model, written, format, metadata, inputs)
        if check is not False:
            check_file(model, written, calibration if check is True else check)
        _move(written, path)
    return path


def format_of(path: Path, format: str | None) -> str:
    """Return the format of a path, and check that both fit.

    Raises:
        ValueError: If the format is not known, or the suffix belongs to another one.
    """
    suffix = path.suffix.lower()
    if format is None:
        found = [name for name, end in FORMATS.items() if end == suffix]
        if not found:
            raise ValueError(
                "`path` must end in .onnx, .xml (OpenVINO), .tflite (LiteRT) or .pt2 (PyTorch), or have no "
                f"suffix (SavedModel). Received: path={path}. To "
                "give a SavedModel another name, pass `format`."
            )
        return found[0]
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {tuple(FORMATS)}. Received: format={format!r}")
    if format != "saved_model" and suffix != FORMATS[format]:
        raise ValueError(
            f"The file of format {format!r} must end in {FORMATS[format]}. Received: path={path}"
        )
    return format


def _ready(model: "MaskRCNN") -> "MaskRCNN":
    """Return the model in inference mode, in float32, for whole images."""
    config = model.config
    fits = model.mode == "inference" and config.IMAGE_RESIZE_MODE != "crop" and config.PRECISION == "float32"
    if not fits:
        config = whole_image_config(config)
        config.PRECISION = "float32"
        return model.inference_model(config)
    update_layer_settings(model.keras_model, config)
    return model


def describe(
    model: "MaskRCNN",
    *,
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
    precision: str = "float32",
) -> Metadata:
    """Return the metadata of a file; see `export`."""
    import mrcnn

    config = model.config
    shortest = config.IMAGE_RESIZE_MODE == "shortest"
    canvas = None
    if config.IMAGE_RESIZE_MODE == "square":
        canvas = (int(config.IMAGE_SHAPE[0]), int(config.IMAGE_SHAPE[1]))
    if shortest and dtype != "float32":
        raise ValueError(
            'With IMAGE_RESIZE_MODE = "shortest", `dtype` must be "float32", because resized images have '
            f"fractions. Received: dtype={dtype!r}. Leave out `dtype` (--uint8 on the command line)."
        )
    if size is not None:
        if min(size) < 1:
            raise ValueError(
                f"`size` must be (height, width), at least 1 pixel each. Received: size={tuple(size)}"
            )
        check_molded_size(size, config.IMAGE_RESIZE_MODE)
        if canvas not in (None, tuple(size)):
            raise ValueError(
                'With IMAGE_RESIZE_MODE = "square", `size` must be the input size of the network, '
                f"{canvas}. Received: size={tuple(size)}"
            )
        canvas = size = (int(size[0]), int(size[1]))
        original_size(size, config)
    if class_names is None and len(model.class_names or ()) == config.NUM_CLASSES:
        class_names = model.class_names
    return Metadata(
        version=mrcnn.__version__,
        class_names=check_names(class_names, config.NUM_CLASSES),
        dtype=dtype,
        size=size,
        canvas=canvas,
        multiple=SHORTEST_MULTIPLE if shortest else SIZE_MULTIPLE,
        padding="after" if shortest else "center",
        config=config.stored_settings(),
        precision=precision,
    )


def check_precision(format: str, precision: str, calibration: Sequence[Image] | None) -> None:
    """Check that a format has a precision, and that there are images for int8.

    Raises:
        ValueError: If an argument does not fit.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {PRECISIONS}. Received: precision={precision!r}")
    if format not in REDUCIBLE and precision != "float32":
        raise ValueError(
            f'The format "{format}" has the precision "float32" only. Received: precision={precision!r}. '
            "For lower precision, choose ONNX, OpenVINO or LiteRT."
        )
    if calibration is not None and precision != "int8":
        raise ValueError(
            '`calibration` applies only to precision="int8". Pass precision="int8", or leave out '
            f"`calibration`. Received: precision={precision!r}"
        )
    missing = calibration is None or not len(calibration)
    if precision == "int8" and format in CALIBRATED and missing:
        raise ValueError(
            'With precision="int8", `calibration` must be a list of 10 to 300 images like those in which you '
            f"want to detect objects. Received: calibration={calibration!r}"
        )


def file_inputs(images: Sequence[Image], metadata: Metadata) -> list[np.ndarray]:
    """Return images as inputs [1, h, w, C] of a file.

    Raises:
        ValueError: If an image does not fit the settings or the size of the file.
    """
    config = metadata.read_config()
    return [prepare(image, metadata, config)[1][np.newaxis] for image in images]


def _write(
    model: "MaskRCNN", path: Path, format: str, metadata: Metadata, calibration: Sequence[np.ndarray]
) -> None:
    if format in ("onnx", "openvino"):
        onnx = require("onnx", f"Exporting {path} needs")
        graph = onnx_model(model.keras_model, model.config, metadata)
        onnx.checker.check_model(graph)
        if format == "openvino":
            openvino_format.write(graph, path, metadata, calibration)
            return
        if metadata.precision == "float16":
            graph = onnx_precision.to_half(graph)
        elif metadata.precision == "int8":
            graph = onnx_precision.to_int8(graph, calibration)
        onnx.save_model(graph, os.fspath(path))
    elif format == "litert":
        keras_formats.write_litert(model, path, metadata)
    elif format == "torch":
        torch_format.write(model, path, metadata)
    else:
        keras_formats.write_saved_model(model, path, metadata)


def check_target(path: Path, format: str) -> None:
    """Check that a file or folder can be written, because an export takes minutes.

    Raises:
        ValueError: If there is a folder in place of a file or the other way around, or a folder with other
            files.
        OSError: If it cannot be created there.
    """
    if format == "saved_model":
        _check_folder(path)
    else:
        for file in (path, path.with_suffix(".bin")) if format == "openvino" else (path,):
            if file.is_dir():
                raise ValueError(
                    f"`path` must be a file. Received: path={file}, a folder. Choose a new name."
                )
    place = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if place is None:
        raise _cannot_write(path, errno.ENOENT, "there is no such drive")
    if not place.is_dir():
        raise _cannot_write(path, errno.ENOTDIR, f"{place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _cannot_write(path, errno.EACCES, f"no permission for the folder {place}")


def _cannot_write(path: Path, number: int, reason: str) -> OSError:
    """Return the OSError for a path; the errno determines its subclass."""
    return OSError(number, f"Cannot write the file: {reason}. Choose another path", str(path))


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"`path` must be a folder. Received: path={path}, a file. Choose a new name.")
    if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"`path` must not be a folder with other files in it. Received: path={path}. Choose a new name."
        )


def _move(written: Path, path: Path) -> None:
    """Bring a finished file or folder to its place. An .xml file has its weights beside it."""
    if written.is_dir():
        _replace_folder(written, path)
        return
    with contextlib.ExitStack() as stack:
        # All files are copied before the first one gets its name. The stack ends in reverse order, with the
        # weights first.
        for part in sorted(written.parent.glob(f"{written.stem}.*"), reverse=True):
            target = path if part == written else path.with_suffix(part.suffix)
            temporary = stack.enter_context(atomic_write(target))
            shutil.copyfile(part, temporary)


def _replace_folder(written: Path, path: Path) -> None:
    """Copy a folder to its place. An older one stays there until the copy is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"prefix": hidden_prefix(path.name), "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(dir=path.parent, **options) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        shutil.copytree(written, new)
        try:
            if path.is_dir():
                path.rename(old)
            new.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)

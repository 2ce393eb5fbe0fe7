"""The description of its model that a weight file contains: settings, class names, metrics, version.

It is stored as HDF5 attributes of the file, which readers of weights ignore: `mrcnn_settings`,
`mrcnn_preprocessing`, `mrcnn_class_names`, `mrcnn_metrics` and `mrcnn_version`, each JSON text. Files may
come from strangers: sizes and types are checked before anything is used, and nothing is executed. Files are
written within the same limits, so that each of them can be read.
"""

import dataclasses
import itertools
import json
import logging
import os
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mrcnn.checkpoints.hdf5 import damage_named
from mrcnn.checkpoints.opening import check_file, read_start
from mrcnn.checkpoints.records import CALLABLES as CALLABLES
from mrcnn.checkpoints.records import (
    MAX_ENTRIES,
    MAX_NAME,
    MAX_TEXT,
    clean_name,
    fitting,
    is_name,
    is_setting_name,
    storable_settings,
)
from mrcnn.errors import InvalidDataError

if TYPE_CHECKING:
    from mrcnn.config import Config

logger = logging.getLogger(__name__)

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

PREFIX = "mrcnn_"
ATTRIBUTE_LIMIT = 64_000  # bytes of one attribute; longer texts continue in numbered ones
LARGEST_NUMBER = sys.float_info.max
SHOWN_NAMES = 10  # in a warning

# Settings that weights are valid for, although they load with any value. Others change shapes, or nothing
# that the network has learned.
NETWORK_SETTINGS = (
    "CONVENTIONS",
    "RESNET_STYLE",
    "NORM",
    "BATCH_NORM_EPSILON",
    "FPN_NORM",
    "HEAD_NORM",
    "RPN_ANCHOR_SCALES",
    "RPN_ANCHOR_RATIOS",
    "RPN_ANCHOR_STRIDE",
    "BACKBONE_STRIDES",
    "RPN_BBOX_STD_DEV",
    "BBOX_STD_DEV",
    "POOL_SIZE",
    "MASK_POOL_SIZE",
    "MEAN_PIXEL",
    "CONTRAST_PERCENTILES",
)
# Settings on which the size of objects in the input of the network depends.
IMAGE_SIZES = ("IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE")
# A description of how images become the input of the network, for programs that do not use this package.
PREPROCESSING_SETTINGS = (
    "IMAGE_CHANNEL_COUNT",
    "IMAGE_RESIZE_MODE",
    "IMAGE_MIN_DIM",
    "IMAGE_MAX_DIM",
    "IMAGE_MIN_SCALE",
    "IMAGE_VALUE_RANGE",
    "CONTRAST_PERCENTILES",
    "MEAN_PIXEL",
)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """The settings, class names and metrics of a model, as a weight file stores them.

    Attributes:
        settings: The settings, as `Config.to_dict` returns them. Names of functions are under "CALLABLES".
        class_names: Names by class id, the background first; None if they are not known.
        metrics: Numbers such as {"epoch": 8, "val_loss": 0.4}, empty if unknown. Files only store finite
            ones with printable names.
        version: Version of the package that wrote the file.
    """

    settings: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    version: str = ""

    @property
    def callables(self) -> dict[str, str]:
        """The settings that were functions in the program that wrote the file, and their names."""
        return dict(self.settings.get(CALLABLES, {}))

    def attributes(self) -> dict[str, str]:
        """Return the attributes of a weight file: {name: JSON text}.

        Whatever `read_model_info` would refuse is left out.

        Warns:
            UserWarning: If settings or class names are left out. The message names the settings.
        """
        settings = storable_settings(self.settings)
        _warn_of_left_out(self.settings.keys() - settings.keys())
        preprocessing = {"channels": "RGB", "range": [0, 255]} | {
            name: settings[name] for name in PREPROCESSING_SETTINGS if name in settings
        }
        metrics = {name: x for name, x in self.metrics.items() if is_name(name) and _is_number(x)}
        values: dict[str, Any] = {
            "settings": settings,
            "preprocessing": preprocessing,
            "class_names": self._storable_class_names(settings.get("NUM_CLASSES")),
            "metrics": fitting(metrics),
            "version": self.version,
        }
        return {PREFIX + name: json.dumps(value) for name, value in values.items()}

    def _storable_class_names(self, num_classes: Any) -> list[str] | None:
        """Return the class names, or None if a file cannot hold them.

        Warns:
            UserWarning: If the names are left out.
        """
        if self.class_names is None:
            return None
        names = list(self.class_names)
        if _are_names(names) and len(names) == num_classes and len(json.dumps(names)) <= MAX_TEXT:
            return names
        warnings.warn(
            f"The weight file will not contain the {len(names):,} class names. It takes one printable name "
            f"of at most {MAX_NAME} characters per class, with NUM_CLASSES={_short(num_classes)}, and "
            f"{MAX_TEXT:,} bytes in all. Shorten the names.",
            stacklevel=2,
        )
        return None


def _warn_of_left_out(settings: Collection[str]) -> None:
    if settings:
        names = sorted(map(clean_name, settings))
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        warnings.warn(
            "The weight file will not contain these attributes of the Config: "
            f"{', '.join(names[:SHOWN_NAMES])}{more}. All settings together may have {MAX_TEXT:,} bytes, and "
            f"a name {MAX_NAME} characters. Keep large data in files of their own, or start the names with "
            "an underscore, which marks what is not a setting.",
            stacklevel=3,
        )


def differing_settings(file: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare the settings for which weights are valid.

    Args:
        file: Settings of a weight file.
        model: `Config.to_dict` of a model.

    Returns:
        {name: (value of the file, value of the model)} of the NETWORK_SETTINGS that differ.
    """
    return {
        name: (file[name], model[name])
        for name in NETWORK_SETTINGS
        if name in file and name in model and not _is_same(file[name], model[name])
    }


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. A mean of one number applies to all channels."""
    try:
        one, other = np.broadcast_arrays(np.asarray(one, float).ravel(), np.asarray(other, float).ravel())
    except (TypeError, ValueError):
        return bool(one == other)
    return bool(np.allclose(one, other, rtol=1e-6, atol=0, equal_nan=True))


def describe_differences(file: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """List the differences in the settings for which weights are valid, and in the sizes of images.

    Args:
        file, model: See `differing_settings`.

    Returns:
        One line per setting, or "" if the weights are valid for the settings of the model.
    """
    differing = differing_settings(file, model)
    if differing:
        differing |= {
            name: (file[name], model[name])
            for name in IMAGE_SIZES
            if name in file and name in model and file[name] != model[name]
        }
    return "\n".join(f"    {name}: file {one}, model {other}" for name, (one, other) in differing.items())


def report_differences(
    path: str | os.PathLike[str], settings: Mapping[str, Any], config: "Config", *, detects: bool
) -> None:
    """Report the settings in which a weight file and the model that loads it differ.

    Args:
        path: The weight file.
        settings: Its settings.
        config: Those of the model.
        detects: Whether the model is a detector. Others may be trained with other settings.

    Warns:
        UserWarning: If the model is a detector, which then may find nothing.
    """
    differences = describe_differences(settings, config.stored_settings())
    if differences and detects:
        warnings.warn(
            f"{path} was trained with different settings than this model has, so it may find nothing:\n"
            f"{differences}\nCorrect the Config, or use the settings of the file with "
            f"mrcnn.load({os.fspath(path)!r}).",
            stacklevel=3,
        )
    elif differences:
        logger.info("%s was trained with other settings:\n%s", path, differences)


# --- Files ---


def write_attributes(file: h5py.File, attributes: Mapping[str, str]) -> None:
    """Store texts as attributes of a file, splitting a long text over several attributes."""
    for name, text in attributes.items():
        data = text.encode("utf8")
        parts = [data[start : start + ATTRIBUTE_LIMIT] for start in range(0, len(data), ATTRIBUTE_LIMIT)]
        for part, key in zip(parts, _keys(name), strict=False):
            file.attrs[key] = np.bytes_(part)


def _keys(name: str) -> Any:
    return itertools.chain([name], (f"{name}{number}" for number in itertools.count(1)))


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins like an HDF5 file."""
    return read_start(path, len(HDF5_MAGIC)) == HDF5_MAGIC


def read_model_info(path: Path, file: h5py.File) -> ModelInfo | None:
    """Return the description of its model from an open weight file, or None if there is none.

    Args:
        path: The file, for errors.
        file: The same, open.

    Raises:
        InvalidDataError: If an attribute is not valid. The message names it.
    """
    texts = {name: _read_text(path, file, PREFIX + name) for name in ("settings", "class_names", "metrics")}
    if texts["settings"] is None:
        return None
    values = {name: None if text is None else _parse(path, name, text) for name, text in texts.items()}
    version = _parse(path, "version", _read_text(path, file, PREFIX + "version") or '""')
    settings = _checked_settings(path, values["settings"])
    return ModelInfo(
        settings=settings,
        class_names=_checked_names(path, values["class_names"], settings.get("NUM_CLASSES")),
        metrics=_checked_metrics(path, values["metrics"]),
        version=version if is_name(version) else "",
    )


def model_info(path: str | Path) -> ModelInfo | None:
    """Return the description of its model from a weight file, or None without one or for other files.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: If the file cannot be read.
    """
    path = check_file(path)
    if not is_hdf5(path):
        return None
    with damage_named(path), h5py.File(path, "r") as file:
        return read_model_info(path, file)


def _read_text(path: Path, file: h5py.File, name: str) -> str | None:
    """Return the text of an attribute and its numbered continuations, or None if there is none."""
    parts: list[bytes] = []
    for key in _keys(name):
        if key not in file.attrs:
            break
        attribute = file.attrs.get_id(key)
        # The type declares the length, so it is known before anything is read.
        is_text = attribute.shape == () and attribute.dtype.kind == "S"
        if not is_text or attribute.dtype.itemsize > MAX_TEXT:
            raise _invalid(path, key, f"must be text of fixed length. Received: {attribute.dtype}")
        parts.append(bytes(file.attrs[key]))
        if sum(map(len, parts)) > MAX_TEXT:
            raise _invalid(path, name, f"must have at most {MAX_TEXT:,} bytes")
    if not parts:
        return None
    try:
        return b"".join(parts).decode("utf8")
    except UnicodeDecodeError as error:
        raise _invalid(path, name, f"must be UTF-8 text: {error.reason}") from error


def _parse(path: Path, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, PREFIX + name, f"must be JSON: {error}") from error


def _checked_settings(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise _invalid(path, PREFIX + "settings", f"must be a table of settings. Received: {_short(value)}")
    callables = value.get(CALLABLES, {})
    is_table = isinstance(callables, dict) and all(map(is_name, [*callables, *callables.values()]))
    if not is_table:
        raise _invalid(path, PREFIX + "settings", f"{CALLABLES} must be a table of names")
    for name in value:
        if not is_setting_name(name):
            raise _invalid(path, PREFIX + "settings", f"{_short(name)} is not the name of a setting")
    return value


def _checked_names(path: Path, value: Any, num_classes: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not _are_names(value):
        raise _invalid(
            path,
            PREFIX + "class_names",
            f"must be a list of printable names of at most {MAX_NAME} characters. Received: {_short(value)}",
        )
    if len(value) != num_classes:
        raise _invalid(
            path,
            PREFIX + "class_names",
            f"must have one name per class, with NUM_CLASSES={_short(num_classes)}. Received: {len(value)}",
        )
    return tuple(value)


def _checked_metrics(path: Path, value: Any) -> dict[str, float]:
    metrics = {} if value is None else value
    is_table = isinstance(metrics, dict) and len(metrics) <= MAX_ENTRIES and all(map(is_name, metrics))
    if not is_table or not all(map(_is_number, metrics.values())):
        raise _invalid(
            path, PREFIX + "metrics", f"must be a table of finite numbers. Received: {_short(value)}"
        )
    return metrics


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_ENTRIES and all(map(is_name, value))


def _is_number(value: Any) -> bool:
    # A comparison, because math.isfinite fails for integers that no float can hold.
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) <= LARGEST_NUMBER


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _invalid(path: Path, name: str, what: str) -> InvalidDataError:
    return InvalidDataError(
        f"the text {what}. Use a file from a source that you trust.",
        file=path,
        entry=f"attribute {name}",
        field=name,
    )


def clean_names(names: Sequence[Any] | None) -> tuple[str, ...] | None:
    """Return class names in the form that a weight file can store. None stays None."""
    if names is None:
        return None
    return tuple(map(clean_name, names))

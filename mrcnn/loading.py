"""Load a whole model: network, settings, weights and class names.

    model = mrcnn.load("nucleus-light")
    model = mrcnn.load("logs/coins20260131T1200/mask_rcnn_coins_0008.h5", DETECTION_MIN_CONFIDENCE=0.5)
    model = mrcnn.load("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth")

Nothing in a file is executed, and settings in a file are checked like any others.
"""

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn import config as presets
from mrcnn.checkpoints import downloads, foreign, weight_files, weight_report
from mrcnn.checkpoints.model_info import CALLABLES, ModelInfo, is_hdf5, model_info
from mrcnn.checkpoints.opening import check_file
from mrcnn.config import DERIVED, Config
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.inference.inputs import whole_image_config
from mrcnn.model import MODES, MaskRCNN


class CocoConfig(Config):
    """Settings of the COCO weights of the Keras 2 library."""

    NAME = "coco"
    NUM_CLASSES = 1 + 80


# Weights that `load` knows by name. The settings of the others are in their files.
NAMES = (*downloads.SHIPPED, "coco", *downloads.PUBLISHED)


def load(
    source: str | os.PathLike[str],
    mode: str = "inference",
    *,
    config: Config | None = None,
    model_dir: str | os.PathLike[str] = "logs",
    exclude: Sequence[str] | None = None,
    **overrides: Any,
) -> MaskRCNN:
    """Return a model with the settings, the weights and the class names of a file.

    Args:
        source: A weight file of this library; a .pth, .safetensors or .pkl file of torchvision's or
            Detectron2's Mask R-CNN; a file of the Keras 2 library, together with `config`; or one of `NAMES`,
            whose file is downloaded if necessary.
        mode: "inference" or "training". Training starts a new run; to continue a run, use
            `MaskRCNN.load_weights`.
        config: Settings to use instead of those in the file. Required for files without settings.
        model_dir: The folder of all training runs. Nothing is written before `train`.
        exclude: Names of layers that keep their random weights, which is necessary if an override changes
            their shapes.
        **overrides: Settings to change, such as DETECTION_MIN_CONFIDENCE=0.5. Without `config`, GPU_COUNT
            is 1; in inference mode, IMAGES_PER_GPU is 1, too, and IMAGE_RESIZE_MODE "crop" becomes "pad64".

    Returns:
        The model. `model.class_names` holds the names by class id, or None if the file does not contain them.

    Raises:
        MissingFileError, UnreadableFileError: If the file does not exist, or is a folder.
        InvalidDataError: If the file is damaged, does not fit the settings, or needs `config`. The message
            says what is missing.
        ConnectionError, OSError: If published weights cannot be downloaded.
        TypeError, ValueError: If an argument or a setting is not valid.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
    if config is not None and not isinstance(config, Config):
        raise TypeError(f"`config` must be a Config object, such as MyConfig(). Received: config={config!r}")
    _check_names(overrides)
    path, published = _find(source)
    file: Path | foreign.ReadFile = path
    if config is None:
        if published is None:
            file = _opened(path)
            config = _config_of_file(file, overrides)
        else:
            config = published()
        config.GPU_COUNT = 1  # those of the machine that wrote the file are not here
        if mode == "inference":
            config = whole_image_config(config)
    config = _changed(config, overrides)
    model = MaskRCNN(mode, config, model_dir)
    model.load_weights(file, exclude=exclude, resume=False)
    return model


def _check_names(overrides: Mapping[str, Any]) -> None:
    known = [name for name in dir(Config) if name.isupper()]
    for name in overrides:
        if not name.isupper():
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"load() takes settings in uppercase. Received: {name}.{hint}")


def _find(source: str | os.PathLike[str]) -> tuple[Path, type[Config] | None]:
    """Return the file of a source, and its settings if the file does not contain them."""
    name = os.fspath(source)
    if name == "coco":
        path = downloads.cache_folder() / downloads.COCO_MODEL_URL.rpartition("/")[2]
        return Path(downloads.download_trained_weights(path)), CocoConfig
    if name in downloads.PUBLISHED:
        return Path(downloads.download_trained_weights(name)), None
    if name in downloads.SHIPPED:
        return downloads.shipped_weights(name), None
    try:
        return check_file(source), None
    except MissingFileError as error:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MissingFileError(
            f"there is no such file (current folder: {os.getcwd()}), and no published weights have this "
            f"name. Correct the path, or use one of {list(NAMES)}.{hint}",
            file=source,
        ) from error


def _opened(path: Path) -> Path | foreign.ReadFile:
    """Read a file of another library, because its settings depend on its weights. Other files stay paths."""
    if path.suffix == ".keras":
        raise InvalidDataError(
            "a .keras file holds the network without the settings that prepare images for it. Open it with "
            "keras.models.load_model, or save the model with MaskRCNN.save.",
            file=path,
        )
    return foreign.ReadFile(path, foreign.read_state(path)) if foreign.is_foreign_file(path) else path


def _config_of_file(path: Path | foreign.ReadFile, overrides: Mapping[str, Any]) -> Config:
    if isinstance(path, foreign.ReadFile):
        return _config_of_foreign_file(path)
    info = model_info(path) if is_hdf5(path) else None
    with weight_files.open_weight_file(path) as layers:
        weight_files.check_stated_size(path, layers)
        shapes = {layer: [array.shape for array in arrays] for layer, arrays in layers.items() if arrays}
    if info is None:
        facts = weight_report.settings_of(shapes)
        told = "".join(f" {name} = {value!r}." for name, value in facts.items())
        raise InvalidDataError(
            "the file holds weights without the settings of their network. Pass the settings, as in "
            f"mrcnn.load({os.fspath(path)!r}, "
            f"config=MyConfig()).{' The shapes tell:' if told else ''}{told}",
            file=path,
        )
    config = _config_of_info(path, info, overrides)
    needed, present = weight_report.least_size(config.stored_settings()), weight_report.size(shapes)
    if needed > present:
        raise InvalidDataError(
            f"the settings describe a network of at least {needed:,} weights, but the file has "
            f"{present:,}. Use a file from a source that you trust.",
            file=path,
            field="mrcnn_settings",
        )
    return config


def _config_of_info(path: Path, info: ModelInfo, overrides: Mapping[str, Any]) -> Config:
    missing = {name: value for name, value in info.callables.items() if name not in overrides}
    if missing:
        arguments = ", ".join(f"{name}={value}" for name, value in missing.items())
        raise InvalidDataError(
            "the network was built with functions, which a file does not store. Pass them: "
            f"mrcnn.load({os.fspath(path)!r}, {arguments}).",
            file=path,
        )
    settings = {name: value for name, value in info.settings.items() if name not in (CALLABLES, *DERIVED)}
    config = Config.from_dict(settings)
    for name in info.callables:
        setattr(config, name, overrides[name])
    try:
        config.validate("inference")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidDataError(
            f"a setting of the file is not valid: {error}", file=path, field="mrcnn_settings"
        ) from error
    return config


def _config_of_foreign_file(file: foreign.ReadFile) -> Config:
    preset = foreign.preset_for(file.state, file.path)
    config: Config = getattr(presets, preset.name)()
    return _changed(config, preset.settings)


def _changed(config: Config, overrides: Mapping[str, Any]) -> Config:
    config = copy.deepcopy(config)
    for name, value in overrides.items():
        setattr(config, name, value)
    return config

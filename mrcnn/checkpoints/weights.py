"""Load, copy and save the weights of a model by layer name, in the Keras 2 layout.

Keras' own `.weights.h5` files store layers by class and position, so only equal graphs can exchange weights.
This module finds layers by name, which the training graph and the inference graph share.
"""

import contextlib
import dataclasses
import difflib
import errno
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.checkpoints import foreign, weight_files, weight_report
from mrcnn.checkpoints.foreign.classes import COCO_CLASS_NAMES
from mrcnn.checkpoints.hdf5 import StoredArray
from mrcnn.checkpoints.model_info import ModelInfo, model_info
from mrcnn.checkpoints.opening import check_file
from mrcnn.checkpoints.weight_files import KernelDtype as KernelDtype
from mrcnn.checkpoints.weight_files import read_weight_file as read_weight_file
from mrcnn.checkpoints.weight_report import CLASS_LAYERS as CLASS_LAYERS
from mrcnn.checkpoints.weight_report import LoadReport as LoadReport
from mrcnn.errors import InvalidDataError

logger = logging.getLogger(__name__)

WEIGHT_KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
KERAS_FORMATS = (".weights.h5", ".keras")
TRAINING_INPUT = "input_gt_boxes"  # only the training network has this input
# After so many updates, the statistics of batch norm follow its momentum; see `network.normalization`.
MANY_UPDATES = 1e6


def layer_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights of one layer of a model in the order of a weight file.

    The order does not depend on which layers are trainable. The state of a random generator is not a weight.

    Returns:
        {name in a file: variable}. A name is like "conv1/kernel:0". A nested model counts as one layer, and
        its weights have the names of its own layers.
    """
    named: dict[str, keras.Variable] = {}
    for owner, name, variable in _walk(layer):
        label = f"{owner}/{name}:0"
        # Files are read by position, so the number that makes a repeated name unique has no meaning.
        named[f"{owner}/{name}_{len(named)}:0" if label in named else label] = variable
    return named


def _walk(layer: keras.Layer) -> Iterator[tuple[str, str, keras.Variable]]:
    """Yield owner, name and variable of each weight of a layer."""
    if isinstance(layer, keras.Model):
        # A model may list the two outputs of the RPN in either order, files always list the class first.
        order = {name: index for index, name in enumerate(weight_files.RPN_LAYERS)}
        for inner in sorted(layer.layers, key=lambda part: order.get(part.name, -1)):
            yield from _walk(inner)
        return
    owner = layer.name
    while isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer  # files use the wrapper's name
    weights = [weight for weight in layer.weights if keras.backend.is_float_dtype(weight.dtype)]
    if {weight.name for weight in weights} <= set(WEIGHT_KINDS):
        weights.sort(key=lambda weight: WEIGHT_KINDS.index(weight.name))
    for weight in weights:
        path = weight.path.split("/")
        inside = path[path.index(layer.name) + 1 :] if layer.name in path else [weight.name]
        yield owner, "/".join(inside), weight


def model_weights(model: keras.Model) -> dict[str, dict[str, keras.Variable]]:
    """Return {layer name: `layer_weights`} of the layers of a model that have weights, in model order."""
    named = {layer.name: layer_weights(layer) for layer in model.layers}
    return {layer: weights for layer, weights in named.items() if weights}


def _update_counters(model: keras.Model, layer: str) -> list[keras.Variable]:
    """Return the counters of the updates of statistics of all batch norms in a layer."""
    return [variable for variable in model.get_layer(layer).variables if variable.name == "updates"]


def load_weights(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    exclude: Iterable[str] | None = None,
    strict: bool = True,
) -> LoadReport:
    """Load a weight file into the layers with the same names. On an error, nothing is loaded.

    A file with only the backbone (ImageNet weights) may always lack the pyramid, the RPN and the heads. If it
    lacks layers of the model's backbone, a warning lists them.

    Batch norm that learns statistics goes on with those of this library, torchvision and Detectron2. Those of
    other files (Keras 2, ImageNet) are replaced in the first step, as in the Keras 2 library.

    Args:
        model: A model with the layer names of the Keras 2 library.
        filepath: Published weights, weights of your own, or ImageNet weights; see `read_weight_file`; or a
            .pth, .safetensors or .pkl file of torchvision or Detectron2, see
            `mrcnn.checkpoints.foreign.read_foreign_weights`.
        exclude: Names of layers that keep their weights, which is necessary if shapes differ.
        strict: Whether to raise an error if only the file or only the model has a layer with weights. If
            False, a warning lists such layers.

    Returns:
        The LoadReport, which is also logged.

    Raises:
        MissingFileError, UnreadableFileError: If there is no file, or a folder.
        InvalidDataError: If the file cannot be read, or does not fit. The message lists every layer that
            does not fit, with both shapes and what to do.
    """
    names = [exclude] if isinstance(exclude, str) else list(exclude or ())
    variables = model_weights(model)
    model_shapes = {
        layer: [tuple(variable.shape) for variable in weights.values()]
        for layer, weights in variables.items()
    }
    layer_names = [layer.name for layer in model.layers]
    logits = model_shapes.get("mrcnn_class_logits")
    with _open_layers(filepath, layer_names, logits[0][-1] if logits else 0) as opened:
        layers = opened.layers
        known = {*layer_names, *layers, *CLASS_LAYERS}
        _warn_of_unknown(names, known, model)
        file_shapes = {layer: [array.shape for array in arrays] for layer, arrays in layers.items() if arrays}
        excluded = [name for name in names if name in known]
        report = weight_report.compare(str(filepath), file_shapes, model_shapes, excluded, opened.origin)
        report = dataclasses.replace(
            report,
            info=opened.info,
            class_names=opened.class_names if "mrcnn_class_logits" in report.loaded else None,
        )
        # Nothing is read before all shapes fit, because a damaged file can declare arrays of any size.
        problem = _check(report, file_shapes, model_shapes, strict)
        values = {
            name: [array.read() if isinstance(array, StoredArray) else array for array in layers[name]]
            for name in report.loaded
        }
    not_finite = [
        f"{weight} ({np.size(array) - np.isfinite(array).sum():,} of {np.size(array):,} values)"
        for name in report.loaded
        for weight, array in zip(variables[name], values[name], strict=True)
        if not np.isfinite(array).all()
    ]
    if not_finite:
        problem = weight_report.describe(report, file_shapes, model_shapes, not_finite)
        raise InvalidDataError(f"the weights are not finite. Nothing was loaded.\n{problem}", file=filepath)
    if problem:
        warnings.warn(f"Only some weights of {filepath} fit the model.\n{problem}", stacklevel=2)
    for name in report.loaded:
        for variable, array in zip(variables[name].values(), values[name], strict=True):
            variable.assign(array)
        if report.info is not None or (report.origin is not None and not report.is_backbone_only):
            for counter in _update_counters(model, name):
                counter.assign(MANY_UPDATES)
    logger.info("%s", report)
    return report


Layers = Mapping[str, Sequence[StoredArray | np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _OpenFile:
    """An open weight file: {layer name: arrays}, and its facts for the LoadReport."""

    layers: Layers
    class_names: tuple[str, ...] | None
    info: ModelInfo | None = None
    origin: str | None = None


@contextlib.contextmanager
def _open_layers(
    filepath: str | os.PathLike[str], known_layers: list[str], num_classes: int
) -> Iterator[_OpenFile]:
    path = check_file(filepath)
    if foreign.is_foreign_file(path):
        weights = foreign.without_gaps(foreign.read_foreign_weights(filepath), num_classes)
        # Keys without a layer are listed as layers that the model lacks.
        unused = {key: [np.empty(0)] for key in weights.unused}
        origin = foreign.KINDS[weights.kind].title
        yield _OpenFile({**weights.layers, **unused}, weights.class_names, origin=origin)
        return
    info = model_info(path)
    with weight_files.open_weight_file(path, known_layers) as layers:
        names = _coco_names(layers) if info is None else info.class_names
        yield _OpenFile(layers, names, info)


def _coco_names(layers: Mapping[str, Sequence[StoredArray]]) -> tuple[str, ...] | None:
    """Return COCO's class names, if the number of classes is that of the Keras 2 library's COCO weights."""
    logits = layers.get("mrcnn_class_logits")
    is_coco = bool(logits) and logits[0].shape[-1:] == (len(COCO_CLASS_NAMES),)  # type: ignore[index]
    return COCO_CLASS_NAMES if is_coco else None


def _warn_of_unknown(names: Iterable[str], known: Collection[str], model: keras.Model) -> None:
    """Warn about excluded names that no layer has, and suggest the closest existing name."""
    outer = {
        inner.name: layer.name
        for layer in model.layers
        if isinstance(layer, keras.Model)
        for inner in layer.layers
    }
    for name in names:
        if name in known:
            continue
        close = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if name in outer:
            hint = f" It is part of {outer[name]!r}, which can only be excluded as a whole."
        warnings.warn(
            f"`exclude` lists {name!r}, but neither the model nor the file has a layer with this name.{hint}",
            stacklevel=3,
        )


def _check(
    report: LoadReport,
    file_shapes: weight_report.Shapes,
    model_shapes: weight_report.Shapes,
    strict: bool,
) -> str:
    """Raise an error if the file cannot be loaded. If it is partly loaded, return what does not fit."""
    if not set(file_shapes) & set(model_shapes):
        raise InvalidDataError(
            "the file and the model must have layer names in common. Received: a file with "
            f"{len(file_shapes)} layers, starting with {list(file_shapes)[:5]}, and a model with "
            f"{len(model_shapes)} layers, starting with {list(model_shapes)[:5]}. Use weights of a Mask "
            "R-CNN model or of its backbone.",
            file=report.filepath,
        )
    problem = weight_report.describe(report, file_shapes, model_shapes)
    mismatched = weight_report.mismatched_layers(report, file_shapes, model_shapes)
    # ImageNet weights of another depth are common practice, so a warning is enough.
    incomplete = report.unexpected_missing and not report.is_backbone_only
    if mismatched or (strict and (incomplete or report.unused_in_file)):
        raise InvalidDataError(
            f"the weights do not fit the model. Nothing was loaded.\n{problem}",
            file=report.filepath,
        )
    return problem


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy weights to the layers of another model with the same names. On an error, nothing is copied.

    Args:
        source: The model to copy from.
        target: The model to copy to, such as the inference network of a training network.

    Raises:
        ValueError: If `source` lacks layers of `target` or has them in another shape. The message names them.
    """
    source_weights, target_weights = model_weights(source), model_weights(target)
    mismatched = [
        layer
        for layer, named in target_weights.items()
        if _shapes(source_weights.get(layer, {})) != _shapes(named)
    ]
    if mismatched:
        raise ValueError(
            f"The weights of {source.name!r} do not fit {target.name!r}: {len(mismatched)} layers are "
            f"missing or have another shape. Received: {mismatched[:10]}. Build both models with the "
            "same settings."
        )
    for layer, named in target_weights.items():
        for variable, stored in zip(named.values(), source_weights[layer].values(), strict=True):
            variable.assign(keras.ops.convert_to_numpy(stored.value))
        # A network without the layers of this package has no counters.
        counters = _update_counters(target, layer), _update_counters(source, layer)
        for counter, stored in zip(*counters, strict=False):
            counter.assign(keras.ops.convert_to_numpy(stored.value))


def _shapes(named: dict[str, keras.Variable]) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in named.values()]


def save_weights(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    training: bool | None = None,
    metrics: Mapping[str, Any] | None = None,
    kernel_dtype: KernelDtype = "float32",
) -> None:
    """Write all weights of a model in the Keras 2 layout, atomically.

    If the model is a NamedWeightsModel with a `describe` function, the file also contains the description of
    the model.

    Args:
        model: The model.
        filepath: The file to write. Its folder is created; an existing file is replaced.
        training: Whether to list the heads as a training model does, for readers that load by position. By
            default, whether the model has an input `input_gt_boxes`.
        metrics: Numbers to store with the weights, such as the logs of an epoch. Numbers that are not finite
            are left out. By default, the metrics from `describe`.
        kernel_dtype: How kernels are stored; see `weight_files.write_weight_file`.

    Raises:
        OSError: If the file cannot be written. The message contains the size needed and says what to do.
        ValueError: If the model has no weights, or a kernel has values that `kernel_dtype` cannot store.
    """
    variables = model_weights(model)
    if not variables:
        raise ValueError(
            f"`model` must have weights. Received: {model.name!r}, which is not built. Call the model "
            "once before saving it."
        )
    if training is None:
        training = any(layer.name == TRAINING_INPUT for layer in model.layers)
    weight_files.write_weight_file(
        filepath,
        {
            layer: {
                name: keras.ops.convert_to_numpy(variable.value)
                for name, variable in variables[layer].items()
            }
            for layer in weight_files.reference_order(variables, training)
        },
        _attributes(model, metrics),
        kernel_dtype,
    )


def save_whole_model(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    kernel_dtype: KernelDtype = "float32",
) -> None:
    """Write a .h5 file that `mrcnn.load` can open; see `mrcnn.model.MaskRCNN.save`.

    Args:
        model: The network of a MaskRCNN.
        filepath: The file to write.
        kernel_dtype: How kernels are stored; see `weight_files.write_weight_file`.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If `filepath` does not end with .h5, or a kernel has values that `kernel_dtype` cannot
            store.
    """
    name = str(filepath)
    if not name.endswith(".h5") or name.endswith(KERAS_FORMATS):
        raise ValueError(
            f'`filepath` must be the name of an .h5 file, such as "coins.h5". Received: {name!r}. For '
            "Keras' own formats, use keras_model.save and keras_model.save_weights."
        )
    save_weights(model, filepath, kernel_dtype=kernel_dtype)


def _attributes(model: keras.Model, metrics: Mapping[str, Any] | None) -> dict[str, str]:
    info = model.describe() if isinstance(model, NamedWeightsModel) and model.describe else None
    if info is None:
        return {}
    if metrics is not None:
        arrays = {name: np.asarray(value) for name, value in metrics.items()}
        numbers = {n: float(x) for n, x in arrays.items() if x.ndim == 0 and x.dtype.kind in "fiu"}
        info = dataclasses.replace(info, metrics=numbers)
    return info.attributes()


@keras.saving.register_keras_serializable(package="mrcnn")
class NamedWeightsModel(keras.Model):
    """A functional model that saves and loads weights by layer name.

    Build it as NamedWeightsModel(inputs, outputs, name=...). Files named `.weights.h5` or `.keras` have the
    layouts of Keras.

    Attributes:
        describe: A function that returns the description of the model for weight files, or None for none.
    """

    describe: Callable[[], ModelInfo | None] | None = None

    def _make_predict_function(self) -> None:
        """Do nothing. Servers written for Keras 2 call this before they start threads."""

    def save(self, filepath: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """Save the whole network as `keras.Model.save` does.

        Args:
            filepath: The .keras file to write, for `keras.models.load_model`.
            *args: Further arguments of `keras.Model.save`.
            **options: Further arguments of `keras.Model.save`.

        Warns:
            UserWarning: If the file is a .h5 file, which `keras.models.load_model` cannot open.
        """
        super().save(filepath, *args, **options)
        if str(filepath).endswith((".h5", ".hdf5")):
            warnings.warn(
                f"keras.models.load_model cannot open {filepath}: Keras' .h5 files lack some operations of "
                "this network. Save it as .keras for load_model, or with MaskRCNN.save for mrcnn.load. "
                "MaskRCNN.load_weights reads this file.",
                stacklevel=2,
            )

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True, **options: Any) -> None:
        """Write all weights; see `mrcnn.checkpoints.weights.save_weights`.

        Args:
            filepath: The file to write.
            overwrite: Whether to replace an existing file. If False, an existing file raises FileExistsError.
            **options: Options of Keras, only for the layouts of Keras.
        """
        if str(filepath).endswith(KERAS_FORMATS):
            super().save_weights(filepath, overwrite=overwrite, **options)
            return
        _refuse(options)
        if not overwrite and Path(filepath).exists():
            raise FileExistsError(
                errno.EEXIST,
                "The file exists already. Received: overwrite=False. Choose another name or pass "
                "overwrite=True",
                str(filepath),
            )
        save_weights(self, filepath)

    def load_weights(
        self,
        filepath: str | os.PathLike[str],
        by_name: bool = True,
        exclude: Iterable[str] | None = None,
        strict: bool = True,
        **options: Any,
    ) -> LoadReport | None:
        """Load weights by layer name; see `mrcnn.checkpoints.weights.load_weights`.

        Args:
            filepath: The file to read.
            by_name: Accepted for compatibility. Layers are always found by name.
            exclude, strict: See `mrcnn.checkpoints.weights.load_weights`.
            **options: Options of Keras, only for the layouts of Keras.

        Returns:
            The LoadReport, or None for the layouts of Keras.
        """
        if str(filepath).endswith(KERAS_FORMATS):
            if exclude is not None or not strict:
                raise ValueError(
                    "`exclude` and strict=False require a file that stores layers by name. Received: "
                    f"{filepath}, exclude={exclude!r}, strict={strict}. Save the weights under a name that "
                    "ends in .h5, such as 'model.h5'."
                )
            super().load_weights(filepath, **options)
            return None
        _refuse(options)
        return load_weights(self, filepath, exclude=exclude, strict=strict)


def _refuse(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(
            f"The options {sorted(options)} do not apply to weight files by layer name. To leave out "
            "layers, list them in `exclude`."
        )

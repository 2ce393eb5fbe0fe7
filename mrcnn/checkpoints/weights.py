"""Weights of a model by layer name: load with a report of what fitted, save in the Keras 2 layout.

Keras' own `.weights.h5` files find layers by class and position, and so can exchange the weights
of equal layers between the training and the inference graph. Here a layer is its name.
"""

import difflib
import logging
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.checkpoints import weight_files, weight_report
from mrcnn.checkpoints.weight_files import read_weight_file as read_weight_file
from mrcnn.checkpoints.weight_report import CLASS_LAYERS as CLASS_LAYERS
from mrcnn.checkpoints.weight_report import LoadReport as LoadReport

logger = logging.getLogger(__name__)

WEIGHT_KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
KERAS_FORMATS = (".weights.h5", ".keras")
TRAINING_INPUT = "input_gt_boxes"  # only the training network has it


def layer_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Weights of one layer of a model as {name in a file: variable}, in the order of a file.

    Names are "conv1/kernel:0". A model inside the model is one layer; its weights carry the names
    of its own layers. The order does not depend on what is frozen. The state of a random generator
    is no weight.
    """
    named: dict[str, keras.Variable] = {}
    for owner, name, variable in _walk(layer):
        label = f"{owner}/{name}:0"
        # Readers go by position, so that the number in a repeated name is of no matter.
        named[f"{owner}/{name}_{len(named)}:0" if label in named else label] = variable
    return named


def _walk(layer: keras.Layer) -> Iterator[tuple[str, str, keras.Variable]]:
    """Owner, name and variable of each weight of a layer."""
    if isinstance(layer, keras.Model):
        # A model may list the RPN's two outputs either way, files do not.
        order = {name: index for index, name in enumerate(weight_files.RPN_LAYERS)}
        for inner in sorted(layer.layers, key=lambda part: order.get(part.name, -1)):
            yield from _walk(inner)
        return
    owner = layer.name
    while isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer  # files carry the wrapper's name
    weights = [weight for weight in layer.weights if keras.backend.is_float_dtype(weight.dtype)]
    if {weight.name for weight in weights} <= set(WEIGHT_KINDS):
        weights.sort(key=lambda weight: WEIGHT_KINDS.index(weight.name))
    for weight in weights:
        path = weight.path.split("/")
        inside = path[path.index(layer.name) + 1 :] if layer.name in path else [weight.name]
        yield owner, "/".join(inside), weight


def model_weights(model: keras.Model) -> dict[str, dict[str, keras.Variable]]:
    """{layer name: layer_weights} of the layers of a model that have weights, in model order."""
    named = {layer.name: layer_weights(layer) for layer in model.layers}
    return {layer: weights for layer, weights in named.items() if weights}


def load_weights(
    model: keras.Model,
    filepath: str | os.PathLike,
    exclude: Iterable[str] | None = None,
    strict: bool = True,
) -> LoadReport:
    """Load a weight file into the layers of the same names, all of it or, on an error, nothing.

    model: a model whose layers carry the original's names.
    filepath: published, own or ImageNet weights; see `read_weight_file`.
    exclude: names of layers that keep their present weights; needed where shapes differ.
    strict: a layer with weights that only one side has is an error; with False, a warning.

    A file of the backbone alone (ImageNet) may lack pyramid, RPN and heads in any case. Layers of
    the model's backbone that it lacks are named in a warning.

    Returns the LoadReport, which is logged too.
    Raises ValueError naming every layer that does not fit, both shapes and the likely cure, or
    a file that cannot be read; FileNotFoundError if there is none.
    """
    names = [exclude] if isinstance(exclude, str) else list(exclude or ())
    variables = model_weights(model)
    layers = read_weight_file(filepath, known_layers=[layer.name for layer in model.layers])
    known = {layer.name for layer in model.layers} | set(layers) | set(CLASS_LAYERS)
    _warn_of_unknown(names, known, model)
    arrays = {layer: values for layer, values in layers.items() if values}
    file_shapes = {layer: [array.shape for array in values] for layer, values in arrays.items()}
    model_shapes = {
        layer: [tuple(variable.shape) for variable in weights.values()]
        for layer, weights in variables.items()
    }
    report = weight_report.compare(
        str(filepath), file_shapes, model_shapes, [name for name in names if name in known]
    )
    broken = [name for name in report.loaded if not _all_finite(arrays[name])]
    _check(report, file_shapes, model_shapes, broken, strict)
    for name in report.loaded:
        for variable, array in zip(variables[name].values(), arrays[name], strict=True):
            variable.assign(array)
    logger.info("%s", report)
    return report


def _all_finite(arrays: Iterable[np.ndarray]) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def _warn_of_unknown(names: Iterable[str], known: Collection[str], model: keras.Model) -> None:
    """Warn of excluded names that no layer has, with the nearest one that exists."""
    outer = {
        inner.name: layer.name
        for layer in model.layers
        if isinstance(layer, keras.Model)
        for inner in layer.layers
    }
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if name in outer:
            hint = f" It is a part of {outer[name]!r}, which can only be excluded as a whole."
        warnings.warn(
            f"exclude names {name!r}, which is no layer of the model nor of the file.{hint}",
            stacklevel=3,
        )


def _check(
    report: LoadReport,
    file_shapes: weight_report.Shapes,
    model_shapes: weight_report.Shapes,
    broken: Collection[str],
    strict: bool,
) -> None:
    """Raise for what must not be loaded, warn of what is loaded in part."""
    if not set(file_shapes) & set(model_shapes):
        raise ValueError(
            f"{report.filepath} and the model have no layer name in common: wrong file, or a model "
            f"without weights. Received: in the file {list(file_shapes)[:5]} and so on, "
            f"{len(file_shapes)} layers; in the model {list(model_shapes)[:5]} and so on, "
            f"{len(model_shapes)} layers."
        )
    problem = weight_report.describe(report, file_shapes, model_shapes, broken)
    unfit = broken or weight_report.misfits(report, file_shapes, model_shapes)
    # An ImageNet file of another depth is usual practice; the report and a warning tell.
    incomplete = report.unexpected_missing and not report.is_backbone_only
    if unfit or (strict and (incomplete or report.unused_in_file)):
        raise ValueError(
            f"The weights of {report.filepath} do not fit the model; nothing was loaded.\n{problem}"
        )
    if problem:
        warnings.warn(
            f"The weights of {report.filepath} fit the model only in part.\n{problem}", stacklevel=3
        )


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give a model the present weights of another one's layers of the same names; all of them or none.

    source, target: such as a training and an inference network of one architecture.
    Raises ValueError naming the layers of `target` that `source` lacks or has in another shape.
    """
    have, want = model_weights(source), model_weights(target)
    unfit = [layer for layer in want if _shapes(have.get(layer, {})) != _shapes(want[layer])]
    if unfit:
        raise ValueError(
            f"The weights of {source.name!r} do not fit {target.name!r}: {len(unfit)} layers are missing or "
            f"have another shape. Received: {unfit[:10]}. Build both with the same settings of the network."
        )
    for layer, named in want.items():
        for variable, original in zip(named.values(), have[layer].values(), strict=True):
            variable.assign(keras.ops.convert_to_numpy(original.value))


def _shapes(named: dict[str, keras.Variable]) -> list[tuple]:
    return [tuple(variable.shape) for variable in named.values()]


def save_weights(model: keras.Model, filepath: str | os.PathLike, training: bool | None = None) -> None:
    """Write all weights in the Keras 2 layout, in the order in which the original lists them.

    training: whether the heads are listed as in a training model; by default, whether the model
        has an input `input_gt_boxes`. Matters only to readers that go by position.

    Atomic: the file appears when complete, and a failure leaves an older one as it was.
    Raises OSError naming path, needed size and cure; ValueError if the model has no weights.
    """
    variables = model_weights(model)
    if not variables:
        raise ValueError(f"There are no weights to save. Received: model={model.name!r}, unbuilt.")
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
    )


@keras.saving.register_keras_serializable(package="mrcnn")
class NamedWeightsModel(keras.Model):
    """A model whose save_weights and load_weights go by layer name.

    Built like any functional model: NamedWeightsModel(inputs, outputs, name=...). Paths that end
    in `.weights.h5` or `.keras` stay with Keras.
    """

    def save_weights(self, filepath: str | os.PathLike, overwrite: bool = True, **options: Any) -> None:
        """Write all weights, see `mrcnn.checkpoints.weights.save_weights`.

        overwrite: with False an existing file is a FileExistsError.
        options: passed on to Keras for its own formats; else none is understood.
        """
        if str(filepath).endswith(KERAS_FORMATS):
            super().save_weights(filepath, overwrite=overwrite, **options)
            return
        _refuse(options)
        if not overwrite and Path(filepath).exists():
            raise FileExistsError(f"{filepath} exists. Received: overwrite=False. Choose another name.")
        save_weights(self, filepath)

    def load_weights(
        self,
        filepath: str | os.PathLike,
        by_name: bool = True,
        exclude: Iterable[str] | None = None,
        strict: bool = True,
        **options: Any,
    ) -> LoadReport | None:
        """Load weights by layer name, see `mrcnn.checkpoints.weights.load_weights`.

        by_name: accepted for old callers; names are used in any case.
        options: passed on to Keras for its own formats; else none is understood.

        Returns the LoadReport; None for Keras' own formats.
        """
        if str(filepath).endswith(KERAS_FORMATS):
            if exclude is not None:
                raise ValueError(
                    f"Layers can be excluded from files by layer name only. Received: {filepath}, "
                    f"exclude={exclude!r}. Save the weights under a name like 'model.h5'."
                )
            super().load_weights(filepath, **options)
            return None
        _refuse(options)
        return load_weights(self, filepath, exclude=exclude, strict=strict)


def _refuse(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(
            f"Weight files by layer name know no option {sorted(options)}. To leave layers out, "
            "name them in exclude."
        )

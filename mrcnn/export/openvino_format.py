"""OpenVINO's intermediate representation, from the ONNX graph."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.export.onnx_precision import is_reducible
from mrcnn.packages import require
from mrcnn.runtime.metadata import INPUT, KEY, Metadata


def write(graph: Any, path: Path, metadata: Metadata, images: Sequence[np.ndarray] = ()) -> None:
    """Convert an ONNX graph and write it.

    Args:
        graph: `onnx.ModelProto`.
        path: The .xml file. The weights go into a .bin file beside it.
        metadata: The description of the file, for its rt_info, with the precision. "float16" stores the
            weights as float16; the device chooses the precision of the arithmetic.
        images: Inputs [1, h, w, C] on which the ranges of the feature maps are measured, for "int8".
    """
    openvino = require("openvino", f"Exporting {path} needs")
    onnx = require("onnx", f"Exporting {path} needs")
    source = path.with_suffix(".onnx")
    onnx.save_model(graph, os.fspath(source))
    try:
        model = openvino.Core().read_model(os.fspath(source))
        if metadata.precision == "int8":
            model = quantize(model, images, path)
        model.set_rt_info(metadata.to_json(), KEY)
        openvino.save_model(model, os.fspath(path), compress_to_fp16=metadata.precision == "float16")
    finally:
        source.unlink()


def quantize(model: Any, images: Sequence[np.ndarray], path: Path) -> Any:
    """Return an OpenVINO model that computes its network in int8; see `onnx_precision`.

    Args:
        model: `openvino.Model` of the ONNX graph.
        images: Inputs [1, h, w, C] on which the ranges of the feature maps are measured.
        path: The file, for errors.
    """
    nncf = require("nncf", f"Exporting {path} needs")
    nncf.set_log_level(logging.WARNING)
    names = [operation.get_friendly_name() for operation in model.get_ordered_ops()]
    ignored = [name for name in names if not is_reducible(name)]
    return nncf.quantize(
        model,
        nncf.Dataset(list(images), lambda image: {INPUT: image}),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        fast_bias_correction=True,
    )

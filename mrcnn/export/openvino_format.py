"""OpenVINO's intermediate representation, from the ONNX graph."""

import os
from pathlib import Path
from typing import Any

from mrcnn.runtime.engines import require
from mrcnn.runtime.metadata import KEY, Metadata


def write(graph: Any, path: Path, metadata: Metadata) -> None:
    """Convert an ONNX graph and write it.

    Args:
        graph: `onnx.ModelProto`.
        path: The .xml file. The weights go into a .bin file beside it.
        metadata: The description of the file, for its rt_info.
    """
    openvino = require("openvino", "openvino", path)
    onnx = require("onnx", "onnx", path)
    source = path.with_suffix(".onnx")
    onnx.save_model(graph, os.fspath(source))
    try:
        model = openvino.Core().read_model(os.fspath(source))
        model.set_rt_info(metadata.to_json(), KEY)
        openvino.save_model(model, os.fspath(path), compress_to_fp16=False)
    finally:
        source.unlink()

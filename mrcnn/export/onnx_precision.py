"""Half precision and int8 for an ONNX graph.

Both change the convolutions and matrix products of the network. The steps between them, such as anchors,
boxes and non-maximum suppression, stay float32. So do the last layers of the RPN and of the box head, because
small differences there move boxes and change ranks.

The quantizer is that of ONNX Runtime. Its converter to float16 is not used: it also rounds what operators
that stay float32 pass to each other.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.export.onnx_layers import SCOPE
from mrcnn.packages import require
from mrcnn.runtime.metadata import INPUT

# Layers that compute scores and box corrections.
LAST_LAYERS = ("rpn_class_raw", "rpn_bbox_pred", "mrcnn_class_logits", "mrcnn_bbox_fc")
# Operators that are computed in half precision, and the positions of their inputs that become float16 if not
# all do.
HALF_KINDS = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Relu",
    "Clip",
    "Sigmoid",
    "Add",
    "Mul",
    "Resize",
    "MaxPool",
    "AveragePool",
    "Concat",
    "Pad",
    "Flatten",
    "Unsqueeze",
)
HALF_INPUTS = {"Pad": (0, 2), "Unsqueeze": (0,), "Resize": (0,)}
# Operators that are computed in int8.
INT8_KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "Add", "MaxPool")


def is_reducible(name: str) -> bool:
    """Return whether an operator of this name is a part of the network that takes lower precision."""
    parts = name.split("/")
    return parts[0] == SCOPE and len(parts) > 2 and not set(parts) & set(LAST_LAYERS)


def to_half(graph: Any) -> Any:
    """Return an ONNX graph that computes its network in float16.

    Args:
        graph: `onnx.ModelProto` of `onnx_writer.onnx_model`.
    """
    onnx = require("onnx", "Exporting float16 files needs")
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes: list[Any] = []
    casts: list[Any] = []
    half: dict[str, str] = {}  # a float32 tensor and its float16 version
    integers = {name for name, tensor in constants.items() if tensor.data_type == onnx.TensorProto.INT64}
    for node in result.graph.node:
        if node.op_type == "Shape" or integers.issuperset(filter(None, node.input)):
            integers.update(node.output)  # sizes, such as those of padding
            nodes.append(node)
            continue
        if not (is_reducible(node.name) and node.op_type in HALF_KINDS):
            nodes.append(node)
            continue
        for position in HALF_INPUTS.get(node.op_type, range(len(node.input))):
            name = node.input[position] if position < len(node.input) else ""
            if not name:
                continue
            if name not in half:
                half[name] = f"{name}_half"
                if name in constants:
                    values = onnx.numpy_helper.to_array(constants[name]).astype(np.float16)
                    result.graph.initializer.append(onnx.numpy_helper.from_array(values, half[name]))
                else:
                    casts.append(_cast(onnx, name, half[name], onnx.TensorProto.FLOAT16))
                    nodes.append(casts[-1])
            node.input[position] = half[name]
        (output,) = node.output
        half[output] = node.output[0] = f"{output}_half"
        casts.append(_cast(onnx, half[output], output, onnx.TensorProto.FLOAT))
        nodes += [node, casts[-1]]
    return _without_unused(result, nodes, casts)


def _cast(onnx: Any, name: str, result: str, dtype: int) -> Any:
    return onnx.helper.make_node("Cast", [name], [result], name=f"{result}_cast", to=dtype)


def _without_unused(graph: Any, nodes: list[Any], casts: list[Any]) -> Any:
    """Return a graph with these nodes, but for the constants and those of the `casts` that nothing reads."""
    added = {node.name for node in casts}
    read = {name for node in nodes if node.name not in added for name in node.input}
    read |= {output.name for output in graph.graph.output}
    nodes = [node for node in nodes if node.name not in added or node.output[0] in read]
    read |= {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in read]
    del graph.graph.node[:], graph.graph.initializer[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(constants)
    return graph


def to_int8(graph: Any, images: Sequence[np.ndarray]) -> Any:
    """Return an ONNX graph that computes its network in int8.

    Args:
        graph: `onnx.ModelProto` of `onnx_writer.onnx_model`.
        images: Inputs [1, h, w, C] of the file. The ranges of all feature maps are measured on them.
    """
    onnx = require("onnx", "Exporting int8 files needs")
    quantization = require("onnxruntime.quantization", "Exporting int8 files needs", package="onnxruntime")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        """Hands the quantizer one image after the other."""

        def __init__(self) -> None:
            self._images: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image}

    nodes = [node.name for node in graph.graph.node if is_reducible(node.name) and node.op_type in INT8_KINDS]
    with tempfile.TemporaryDirectory() as folder:
        source, target = (Path(folder) / name for name in ("float32.onnx", "int8.onnx"))
        onnx.save_model(graph, os.fspath(source))
        with _quiet():
            quantization.quantize_static(
                os.fspath(source),
                os.fspath(target),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(INT8_KINDS),
                nodes_to_quantize=nodes,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        result = onnx.load_model(os.fspath(target))
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the advice to optimize the graph first, which ONNX Runtime does when it loads the file."""
    runtime = require("onnxruntime", "Exporting int8 files needs")
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    runtime.set_default_logger_severity(3)
    try:
        yield
    finally:
        runtime.set_default_logger_severity(2)
        logging.disable(disabled)

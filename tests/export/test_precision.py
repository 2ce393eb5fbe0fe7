"""Files in half precision and int8: what is reduced, what is not, and what they find."""

import numpy as np
import pytest
from exported_models import assert_similar, needs_tensorflow, pictures

from mrcnn import export, runtime
from mrcnn.export import onnx_precision
from mrcnn.export.exporting import check_precision

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

IMAGES = pictures(*[(64, 64, 3)] * 6)


def write(model, tmp_path, name, precision):
    """A runner of a new file. Without a check, so that the tests see what it finds."""
    images = IMAGES if precision == "int8" else None
    path = export.export(model, tmp_path / name, precision=precision, calibration=images, check=False)
    runner = runtime.load(path)
    assert runner.metadata.precision == precision
    return path, runner


def types(graph):
    """{name of a tensor: its ONNX type} of the constants and of the results of all operators."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    found = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return found | {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}


def test_half_precision_of_the_network_alone(model, tmp_path):
    path, runner = write(model, tmp_path, "half.onnx", "float16")
    graph = onnx.load(path)
    dtypes, half = types(graph), onnx.TensorProto.FLOAT16
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    last = [node for node in convolutions if not onnx_precision.is_reducible(node.name)]
    assert {node.name.split("/")[1] for node in last} == {"rpn_class_raw", "rpn_bbox_pred"}
    for node in convolutions:
        assert (dtypes[node.input[1]] == half) == (node not in last), node.name
    for kind in ("NonMaxSuppression", "RoiAlign", "TopK"):
        chosen = [node for node in graph.graph.node if node.op_type == kind]
        assert chosen
        assert all(dtypes.get(node.input[0]) != half for node in chosen), kind
    assert_similar(model, runner, IMAGES)


def test_int8_of_the_network_alone(model, tmp_path):
    path, runner = write(model, tmp_path, "int8.onnx", "int8")
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    reduced = [
        node.name
        for node in convolutions
        if node.input[1] in producers and producers[node.input[1]].op_type == "DequantizeLinear"
    ]
    assert len(reduced) > 5
    assert all(onnx_precision.is_reducible(name) for name in reduced)
    assert any(not onnx_precision.is_reducible(node.name) for node in convolutions)
    assert_similar(model, runner, IMAGES)


def test_openvino_in_half_precision(model, tmp_path):
    pytest.importorskip("openvino")
    path, runner = write(model, tmp_path, "half.xml", "float16")
    whole, _ = write(model, tmp_path, "whole.xml", "float32")
    assert path.with_suffix(".bin").stat().st_size < 0.8 * whole.with_suffix(".bin").stat().st_size
    assert_similar(model, runner, IMAGES)


@pytest.mark.slow
def test_openvino_in_int8(model, tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    path, runner = write(model, tmp_path, "int8.xml", "int8")
    operations = openvino.Core().read_model(path).get_ordered_ops()
    assert sum(op.get_type_name() == "FakeQuantize" for op in operations) > 5
    assert_similar(model, runner, IMAGES)


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_litert(model, tmp_path, precision):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("ai_edge_quantizer")
    _, runner = write(model, tmp_path, "small.tflite", precision)
    assert_similar(model, runner, IMAGES)


def test_a_file_that_finds_something_else_is_refused(model, tmp_path):
    noise = [np.zeros((64, 64, 3), np.uint8)] * 2  # ranges of black images fit no other image
    with pytest.raises(RuntimeError, match=r"differ from those of MaskRCNN\.detect"):
        export.export(model, tmp_path / "x.onnx", precision="int8", calibration=noise, check=IMAGES)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    "format, precision, message",
    [
        ("onnx", "int4", "`precision` must be one of"),
        ("saved_model", "float16", 'The format "saved_model" has the precision "float32" only'),
        ("torch", "int8", 'The format "torch" has the precision "float32" only'),
        ("onnx", "int8", "`calibration` must be a list of 10 to 300 images"),
        ("openvino", "int8", "`calibration` must be a list of 10 to 300 images"),
    ],
)
def test_precisions(format, precision, message):
    with pytest.raises(ValueError, match=message):
        check_precision(format, precision, None)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_images_that_would_not_be_used(precision):
    with pytest.raises(ValueError, match=f"applies only to .*Received: precision='{precision}'"):
        check_precision("onnx", precision, IMAGES)

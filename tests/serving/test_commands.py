"""The commands `mrcnn serve` and `mrcnn benchmark`, and the requests to other servers in the guide."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading

import doc_pages as pages
import httpx
import keras
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_model import TinyConfig, vary_masks

from mrcnn import export, runtime
from mrcnn.cli.benchmark_worker import measure
from mrcnn.cli.benchmarking import what_limits
from mrcnn.cli.serving import warm_up
from mrcnn.model import MaskRCNN

PROGRAM = [sys.executable, "-c", "from mrcnn.cli import main; main()"]
GUIDE = (pages.ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)  # of those for which this network finds objects
    return vary_masks(MaskRCNN("inference", TinyConfig(), "logs"))


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory):
    names = ["leaf", "nut", "stone"][: model.config.NUM_CLASSES - 1]
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    return export.export(model, path, class_names=names, check=False)


def command(*arguments):
    done = subprocess.run([*PROGRAM, *map(str, arguments)], cwd=pages.ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_serve_until_a_signal(onnx_file):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    process = subprocess.Popen(
        [*PROGRAM, "serve", str(onnx_file), "--port", "0"],
        cwd=pages.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stderr if "http://" in line)
        address = re.search(r"http://\S+:\d+", line)[0]
        answer = httpx.post(f"{address}/detect", content=file.getvalue(), timeout=30).json()
        (expected,) = runtime.load(onnx_file).detect(image)
        has_pixels = expected["masks"].any(axis=(0, 1))  # COCO files have no objects without a pixel
        assert len(answer["annotations"]) == np.count_nonzero(has_pixels) > 0
        scores = [record["score"] for record in answer["annotations"]]
        np.testing.assert_allclose(scores, expected["scores"][has_pixels], atol=1e-6)
        drawn = httpx.post(f"{address}/overlay?min_score=0", content=file.getvalue(), timeout=30)
        assert drawn.status_code == 200
        # Requests that are under way when the signal comes.
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(
                    httpx.post(f"{address}/detect", content=file.getvalue(), timeout=30).status_code
                )
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        while httpx.get(f"{address}/health").json()["requests"] + len(answers) < len(threads):
            pass  # until all have a place or their answer
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert answers == [200] * len(threads)
        assert process.wait(30) == 0
        assert "The service has stopped." in process.stdout.read()
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_a_port_in_use_is_named_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = command("serve", "no-such-model", "--port", port)
    assert (code, out) == (1, "")
    assert f"cannot use port {port} of 127.0.0.1" in err and "Loading" not in err


def test_serving_a_model_that_is_missing():
    code, _, err = command("serve", "no-such.onnx", "--port", 0)
    assert code == 1 and "no-such.onnx: There is no such file" in err


def test_a_file_of_one_size_is_warmed_up(tmp_path):
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM, config.IMAGE_MIN_SCALE = "pad64", None, 2
    path = tmp_path / "fixed.onnx"
    export.export(MaskRCNN("inference", config, "logs"), path, size=(128, 128), check=False)
    warm_up(runtime.load(path))


def test_benchmark_reports_the_precision_of_an_exported_file(model, tmp_path):
    path = export.export(model, tmp_path / "half.onnx", precision="float16", check=False)
    case = {"model": str(path), "sizes": [64], "batches": [1], "threads": 1, "repeats": 1, "images": None}
    for precision in ("", "float16"):
        (row,) = measure({**case, "settings": [], "precision": precision})
        assert row["precision"] == "float16"
    with pytest.raises(ValueError, match=r"must be float16, .*\. Received: --precision float32"):
        measure({**case, "settings": [], "precision": "float32"})
    with pytest.raises(ValueError, match="--set cannot change the settings of an exported file"):
        measure({**case, "settings": ["DETECTION_MAX_INSTANCES=5"], "precision": ""})


def test_benchmark_ignores_hidden_images(onnx_file, tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"from a Mac")
    case = {"model": str(onnx_file), "sizes": [], "batches": [2], "threads": 1, "repeats": 1, "settings": []}
    assert len(measure({**case, "precision": "", "images": str(tmp_path)})) == 1


def test_benchmark_reads_the_chosen_part_of_images(onnx_file, tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, (2, 4, 40, 50)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    arguments = ["--images", tmp_path, "--page", 1, "--channels", "3,1,0", "--repeats", 1, "--json"]
    code, out, err = command("benchmark", onnx_file, *arguments)
    assert code == 0, err
    assert [row["size"] for row in json.loads(out)["rows"]] == [0]
    case = {"model": str(onnx_file), "sizes": [], "batches": [1], "threads": 1, "repeats": 1, "settings": []}
    choice = {"page": 1, "channels": [0, 1]}
    with pytest.raises(ValueError, match="takes images of 3 channels"):
        measure({**case, "precision": "", "images": str(tmp_path), "choice": choice})


def test_benchmark_names_options_without_images():
    code, _, err = command("benchmark", "nucleus-light", "--page", 1, "--channels", 0)
    assert code == 1 and "Pass a folder of images with --images, or leave out --page and --channels." in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["serve", "--set", "IMAGES_PER_GPU=2"],
            "--set IMAGES_PER_GPU cannot be used here, because --batch sets it.",
        ),
        (["benchmark", "--set", "IMAGES_PER_GPU=2"], "because --batch sets it. Use --batch."),
        (
            ["benchmark", "--set", "PRECISION=float16", "--precision", "float32"],
            "--set PRECISION cannot be used here, because --precision sets it.",
        ),
    ],
)
def test_settings_that_an_option_determines(arguments, message):
    from typer.testing import CliRunner

    from mrcnn.cli.app import app

    name, *options = arguments
    done = CliRunner().invoke(app, [name, "nucleus-light", *options])
    assert done.exit_code == 1 and message in done.output


def test_benchmark_chooses_the_precision_of_openvino(model, tmp_path):
    pytest.importorskip("openvino")
    path = export.export(model, tmp_path / "half.xml", precision="float16", check=False)
    case = {"model": str(path), "sizes": [64], "batches": [1], "threads": 1, "repeats": 1, "images": None}
    for precision, reported in (("", "float16"), ("float32", "float32")):
        (row,) = measure({**case, "settings": [], "precision": precision})
        assert row["precision"] == reported
    with pytest.raises(ValueError, match=r"must be float16, .*\. Received: --precision int8"):
        measure({**case, "settings": [], "precision": "int8"})


def test_benchmark_of_an_exported_file(onnx_file):
    arguments = ["--size", 64, "--batch", 1, "--batch", 2, "--threads", 1, "--repeats", 2, "--json"]
    code, out, err = command("benchmark", onnx_file, *arguments)
    assert code == 0, err
    result = json.loads(out)
    assert [(row["size"], row["batch"], row["threads"]) for row in result["rows"]] == [(64, 1, 1), (64, 2, 1)]
    for row in result["rows"]:
        assert 0 < row["lower"] <= row["median"] <= row["upper"]
        assert row["prepare"] + row["network"] + row["masks"] >= 0.99 * row["median"]
        assert row["megabytes"] is None or row["megabytes"] > 50
    assert any("of the time" in sentence for sentence in result["limits"])


def test_benchmark_shows_a_table_and_reports_errors(onnx_file):
    code, out, err = command("benchmark", onnx_file, "--size", 64, "--repeats", 1)
    assert code == 0, err
    for word in ("64 x 64", "images/s", "network", "quartiles", "float32"):
        assert word in out
    code, _, err = command("benchmark", onnx_file, "--precision", "float16", "--repeats", 1)
    assert code == 1 and "Leave it out" in err and "Traceback" not in err


def test_what_limits():
    row = {"size": 64, "batch": 1, "threads": 1, "precision": "float32"}
    parts = {"network": 0.3, "prepare": 0.6, "masks": 0.1}
    first = {**row, **parts, "lower": 0.9, "median": 1.0, "upper": 1.1}
    rows = [first, {**first, "threads": 2, "lower": 0.79, "median": 0.8, "upper": 0.81}]
    sentences = what_limits(rows)
    assert sentences[0].startswith("Preparing images takes 60% of the time.")
    assert sentences[1].startswith("The network takes 30% of the time.")
    assert sentences[2] == "2 threads: 1.2 times as fast as 1, per image."
    assert len(sentences) == 3
    rows[1] |= {"upper": 0.95}
    assert any("a model from `mrcnn export`" in sentence for sentence in sentences)
    assert not any("`mrcnn export`" in sentence for sentence in what_limits(rows, is_file=True))
    assert what_limits(rows)[2] == "2 threads: no faster or slower than 1 beyond the spread."


# --- The guide ---


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)[1]


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def test_the_description_for_triton_fits_the_file(onnx_file):
    import onnxruntime

    (text,) = blocks(section("Triton"), "protobuf")
    entries = re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[ (.+?) \]', text)
    described = {name: (kind, [int(side) for side in dims.split(",")]) for name, kind, dims in entries}
    session = onnxruntime.InferenceSession(str(onnx_file))
    kinds = {"tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        kind, dims = described.pop(tensor.name)
        assert kind == kinds[tensor.type]
        assert len(dims) == len(tensor.shape), tensor.name
        for side, actual in zip(dims, tensor.shape, strict=True):
            assert side in (-1, actual), tensor.name
    assert not described
    body = json.loads(blocks(section("Triton"), "json")[0])
    (images,) = body["inputs"]
    array = np.array(images["data"], np.float32).reshape(images["shape"])
    names = [output["name"] for output in body["outputs"]]
    outputs = dict(zip(names, session.run(names, {images["name"]: array}), strict=True))
    assert outputs["boxes"].shape[0] == len(outputs["count"]) == 1


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")
def test_the_request_to_tensorflow_serving_fits_the_file(model, tmp_path):
    import tensorflow as tf

    path = export.export(model, tmp_path / "1", "saved_model", check=False)
    body = json.loads(blocks(section("TensorFlow Serving"), "json")[0])
    signature = tf.saved_model.load(str(path)).signatures[body["signature_name"]]
    (specification,) = signature.structured_input_signature[1].values()
    images = tf.constant(body["inputs"]["images"], specification.dtype)
    assert specification.name == "images" and specification.shape.is_compatible_with(images.shape)
    outputs = signature(images=images)
    assert set(outputs) == set(re.findall(r'"(\w+)": \.\.\.', section("TensorFlow Serving")))

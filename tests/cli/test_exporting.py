"""The command `mrcnn export`: its options, and errors of those that do not fit."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("typer")

from typer.testing import CliRunner

from mrcnn.cli.app import app
from mrcnn.cli.exporting import read_images, split_names


def run(*arguments, code=0):
    """Run the command in this process, and return what it prints."""
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["m.pb"], "`path` must end in .onnx, .xml"),
        (["m.onnx", "--format", "openvino"], "must end in .xml"),
        (["m.onnx", "--precision", "int4"], "`precision` must be one of"),
        (["m.onnx", "--precision", "int8"], "for example: --calibration photos/"),
        (["m.onnx", "--calibration", "."], "--calibration applies only to --precision int8"),
        (["folder", "--precision", "float16"], "For lower precision, choose ONNX, OpenVINO or LiteRT"),
        (["m.onnx", "--check", ".", "--no-check"], "contradict each other"),
        (["m.onnx", "--page", "0"], "--page can only be used with --calibration or --check. Pass images"),
        (["m.onnx", "--page", "0", "--channels", "0"], "or leave out --page and --channels."),
        (["m.onnx", "--precision", "int8", "--calibration", "missing"], "missing: There is no such folder"),
    ],
)
def test_options_that_do_not_fit(arguments, message):
    assert message in run("nucleus-light", *arguments, code=1).stderr


@pytest.mark.parametrize(
    "text, names",
    [
        ("nucleus", ["nucleus"]),
        ('cell, 6" pipe', ["cell", '6" pipe']),
        ('cell, "stone, round"', ["cell", "stone, round"]),
        ("", []),
    ],
)
def test_names_of_classes(text, names):
    assert split_names(text) == names


def test_images_of_a_folder(photos, tmp_path):
    assert len(read_images(photos, 5)) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match='no images here or in the folder "images"'):
        read_images(tmp_path / "empty", 5)


def test_the_chosen_channels_of_images(tmp_path):
    bands = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="separate")
    (image,) = read_images(tmp_path, 5, {"channels": [3, 2, 1, 0]})
    np.testing.assert_array_equal(image, np.moveaxis(bands[::-1], 0, -1))


def test_an_image_file(photos):
    (image,) = read_images(photos / "3.png", 5)
    np.testing.assert_array_equal(image, np.asarray(Image.open(photos / "3.png")))
    (photos / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="must be a zip file, or an image"):
        read_images(photos / "notes.txt", 5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_lower_precision(precision, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    options = ["--calibration", photos] if precision == "int8" else []
    output = tmp_path / "small.onnx"
    result = run("nucleus-light", output, "--precision", precision, *options, "--check", photos, "--json")
    value = json.loads(result.stdout)
    assert value == {
        "path": str(output),
        "format": "onnx",
        "precision": precision,
        "megabytes": value["megabytes"],
    }
    assert 2 < value["megabytes"] < 10  # float32: 17 MB

"""Programs of torch.export find what MaskRCNN.detect finds."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from exported_models import TinyConfig, assert_equal, build, pictures

from mrcnn import backend, export, runtime
from mrcnn.errors import InvalidDataError
from mrcnn.network.normalization import BatchNorm

ROOT = Path(__file__).resolve().parents[2]
on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="needs PyTorch")

WITHOUT_KERAS = """
import importlib.abc, importlib.machinery, sys

class Blocked(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    names = {"keras", "tensorflow", "jax"}
    def find_spec(self, name, path=None, target=None):  # PyTorch looks for TensorFlow without importing it
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in self.names else None
    def create_module(self, spec):
        raise ImportError(f"{spec.name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from mrcnn import runtime
result = runtime.load(sys.argv[1]).detect(np.load(sys.argv[2]))[0]
np.savez(sys.argv[3], rois=result["rois"], masks=result["masks"])
assert not {"torchvision", "cv2", "h5py", "skimage"} & set(sys.modules)
"""


class PositiveRows(keras.layers.Layer):
    """The first rows [1, D, ...] that are positive; at least one."""

    def call(self, inputs):
        count = keras.ops.sum(keras.ops.cast(inputs[0, :, 0] > 0, "int32"))
        return backend.first_rows(inputs, keras.ops.maximum(count, 1))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((1, None, *inputs.shape[2:]), "float32")


class PaddedConfig(TinyConfig):
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = None


def torch_program(path):
    import torch

    return torch.export.load(path).module()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="needs another backend")
def test_other_backends_cannot_write_it(model, tmp_path):
    with pytest.raises(ValueError, match="Set the environment variable KERAS_BACKEND=torch"):
        export.export(model, tmp_path / "model.pt2")


def test_a_file_that_is_no_program(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "model.pt2").write_bytes(b"no program")
    with pytest.raises(InvalidDataError, match=r"model\.pt2: PyTorch cannot load the file"):
        runtime.load(tmp_path / "model.pt2")


@on_torch
def test_the_size_must_be_known(tmp_path):
    with pytest.raises(ValueError, match='IMAGE_RESIZE_MODE = "pad64", all images must have the same size'):
        export.export(build(PaddedConfig()), tmp_path / "model.pt2")


@on_torch
def test_an_old_pytorch_detects_and_writes_nothing(model, tmp_path, monkeypatch):
    import torch

    image = pictures((64, 64, 3))[0]
    expected = model.detect(image)[0]["scores"].tolist()
    monkeypatch.delattr(torch.compiler, "is_exporting")
    assert model.detect(image)[0]["scores"].tolist() == expected
    with pytest.raises(ImportError, match=r"needs PyTorch 2\.7 or newer. Installed: 2\."):
        export.export(model, tmp_path / "model.pt2", size=(64, 64))
    assert list(tmp_path.iterdir()) == []


@on_torch
@pytest.mark.parametrize("count, rows", [(0, 1), (1, 1), (4, 4)])
def test_batch_norm_of_as_many_rows_as_the_data_say(count, rows, tmp_path):
    """As in the mask head of a program."""
    inputs = keras.Input(batch_shape=(1, 5, 3))
    network = keras.Model(inputs, {"rows": BatchNorm()(PositiveRows()(inputs), training=False)})
    backend.write_torch_program(network, ["rows"], tmp_path / "rows.pt2", {}, (1, 5, 3))
    x = np.where(np.arange(5) < count, 1, -1)[None, :, None] * np.ones((1, 5, 3), "float32")
    (found,) = torch_program(tmp_path / "rows.pt2")(keras.ops.convert_to_tensor(x, "float32"))
    np.testing.assert_allclose(found.numpy(), x[:, :rows], rtol=1e-3)  # mean 0 and variance 1


@on_torch
@pytest.mark.slow
def test_images_of_many_sizes(model, exported):
    path = exported("tiny.pt2")
    runner = runtime.load(path)
    weights = sum(weight.nbytes for weight in model.keras_model.get_weights())
    with zipfile.ZipFile(path) as archive:
        files = [entry for entry in archive.infolist() if re.search(r"/(tensor|weight)_\d+$", entry.filename)]
    assert weights <= sum(entry.file_size for entry in files) < 1.2 * weights  # each weight once
    assert runner.class_names[1] == "class 1"
    assert runner.metadata.size is None
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3), (200, 100, 3), (40, 90, 4)))


@on_torch
@pytest.mark.slow
def test_images_of_one_size_in_8_bits(tmp_path):
    model = build(PaddedConfig())
    runner = runtime.load(export.export(model, tmp_path / "x.pt2", size=(64, 128), dtype="uint8"))
    assert_equal(model, runner, pictures((64, 128, 3)))
    with pytest.raises(ValueError, match="takes images of 64 x 128 pixels"):
        runner.detect(pictures((64, 64, 3)))


@on_torch
@pytest.mark.slow
def test_a_file_written_where_keras_computes_on_another_device(tmp_path, monkeypatch):
    """It holds nothing of that device, here the one that has shapes and no values."""
    model = build(TinyConfig())
    with monkeypatch.context() as changed:
        changed.setattr("keras.src.backend.torch.core.DEFAULT_DEVICE", "meta")
        changed.setattr(backend, "is_on_cpu", lambda tensor: False)
        path = export.export(model, tmp_path / "x.pt2", check=False)
    assert_equal(model, runtime.load(path), pictures((64, 64, 3), (50, 30, 3)))


@on_torch
@pytest.mark.slow
def test_soft_nms(tmp_path):
    config = TinyConfig()
    config.SOFT_NMS_SIGMA, config.DETECTION_MIN_CONFIDENCE, config.DETECTION_MAX_INSTANCES = 0.5, 0.05, 40
    model = build(config)
    runner = runtime.load(export.export(model, tmp_path / "soft.pt2", check=False))
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))


@on_torch
@pytest.mark.slow
def test_the_runner_needs_pytorch_alone(model, exported, tmp_path):
    (image,) = pictures((50, 64, 3))
    np.save(tmp_path / "image.npy", image)
    arguments = [str(exported("tiny.pt2")), str(tmp_path / "image.npy"), str(tmp_path / "result.npz")]
    command = [sys.executable, "-c", WITHOUT_KERAS, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = np.load(tmp_path / "result.npz"), model.detect(image)[0]
    np.testing.assert_array_equal(found["rois"], expected["rois"])
    np.testing.assert_array_equal(found["masks"], expected["masks"])


@on_torch
@pytest.mark.slow
@pytest.mark.parametrize("conventions", ["torchvision", "detectron2"])
def test_the_conventions_of_other_libraries(conventions, tmp_path):
    class OtherConfig(PaddedConfig):
        IMAGE_RESIZE_MODE = "square"
        IMAGE_MIN_DIM = 64
        RPN_BBOX_STD_DEV = np.ones(4)
        PRE_NMS_LIMIT = 30
        DETECTION_MIN_CONFIDENCE = 0.1
        CONVENTIONS = conventions

    model = build(OtherConfig())
    runner = runtime.load(export.export(model, tmp_path / "other.pt2"))
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))

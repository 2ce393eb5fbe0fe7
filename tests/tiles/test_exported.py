"""An exported file detects in large images as the model does."""

import numpy as np
import pytest
from tiny_model import TinyConfig

import mrcnn
from mrcnn import export, runtime

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


class Tiny(TinyConfig):
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = 64
    IMAGES_PER_GPU = GPU_COUNT = 1


def test_full_tiles_of_a_file_of_one_size_are_counted(tmp_path):
    """Their parts have other sizes."""
    model = mrcnn.MaskRCNN("inference", Tiny(), tmp_path)
    runner = runtime.load(export.export(model, tmp_path / "tiny.onnx", size=(256, 256), check=False))
    image = np.random.default_rng(0).integers(0, 255, (256, 300, 3), np.uint8)
    with pytest.warns(UserWarning, match="2 of 2 tiles or parts of tiles have DETECTION_MAX_INSTANCES=10"):
        found = runner.detect_large(image, tile=256, overlap=32, progress=False)
    assert found.count >= 10


def test_an_exported_file_detects_tile_by_tile(tmp_path):
    model = mrcnn.MaskRCNN("inference", Tiny(), tmp_path)
    runner = runtime.load(export.export(model, tmp_path / "tiny.onnx", check=False))
    image = np.random.default_rng(0).integers(0, 255, (64, 100, 3), np.uint8)
    options = {"tile": 64, "overlap": 16, "progress": False}
    with pytest.warns(UserWarning, match="DETECTION_MAX_INSTANCES=10"):
        ours = model.detect_large(image, **options)
    with pytest.warns(UserWarning, match="DETECTION_MAX_INSTANCES=10"):
        found = runner.detect_large(image, resume=tmp_path / "run", **options)
    assert abs(found.count - ours.count) <= 2  # scores of random weights are close to each other
    np.testing.assert_allclose(found["scores"][:5], ours["scores"][:5], atol=1e-3)

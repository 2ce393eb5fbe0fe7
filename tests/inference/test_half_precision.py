"""PRECISION = "auto": measured once, stored with the weights, used where it is faster."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

import mrcnn
from mrcnn import backend
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.inference.half_precision import check_bfloat16
from mrcnn.model import MaskRCNN


def load(path, *arguments, **settings):
    """Load a model whose file does not store its functions."""
    names = ("BACKBONE", "COMPUTE_BACKBONE_SHAPE")
    return mrcnn.load(path, *arguments, **{name: getattr(TinyConfig, name) for name in names}, **settings)


def dtype_of(model):
    return model.keras_model.get_layer("fpn_p2").compute_dtype


def test_what_is_measured_decides(tmp_path, monkeypatch):
    """And goes through the file; training resets it."""
    monkeypatch.setattr(backend, "bfloat16_is_fast", lambda: True)
    keras.utils.set_random_seed(1)
    config = TinyConfig()
    config.PRECISION = "auto"
    model = MaskRCNN("inference", config, tmp_path)
    assert dtype_of(model) == "float32"
    precisions = []

    def evaluate(self, *arguments, **options):
        precisions.append(dtype_of(self))
        return {"box_AP": [0.5], "mask_AP": [0.4 - 0.0015 * (len(precisions) == 2)]}

    monkeypatch.setattr(MaskRCNN, "evaluate", evaluate)
    found = check_bfloat16(model, toy_dataset(1), verbose=0, largest_loss=0.001)
    assert precisions == ["float32", "bfloat16"] and not model.config.BFLOAT16_IS_SAFE
    precisions.clear()
    assert found == check_bfloat16(model, toy_dataset(1), verbose=0)
    assert found["mask_AP_float32"] == 0.4 and found["mask_AP_bfloat16"] == pytest.approx(0.3985)
    assert model.config.BFLOAT16_IS_SAFE

    model.save(tmp_path / "safe.h5")
    assert dtype_of(load(tmp_path / "safe.h5")) == "bfloat16"
    assert dtype_of(load(tmp_path / "safe.h5", PRECISION="float32")) == "float32"
    training = load(tmp_path / "safe.h5", "training")
    assert dtype_of(training) == "float32"
    training.save(tmp_path / "trained.h5")
    assert load(tmp_path / "trained.h5").config.BFLOAT16_IS_SAFE is False
    monkeypatch.setattr(backend, "bfloat16_is_fast", lambda: False)
    assert dtype_of(load(tmp_path / "safe.h5")) == "float32"


def test_nothing_measured_is_not_safe(tmp_path, monkeypatch):
    model = MaskRCNN("inference", TinyConfig(), tmp_path)
    model.config.BFLOAT16_IS_SAFE = True
    monkeypatch.setattr(MaskRCNN, "evaluate", lambda *_, **__: {"box_AP": [np.nan], "mask_AP": [np.nan]})
    check_bfloat16(model, toy_dataset(1), verbose=0)
    assert model.config.BFLOAT16_IS_SAFE is False


@pytest.mark.slow
def test_the_nuclei_detector_in_bfloat16():
    """It finds the same bright disks as in float32, with about the same boxes and scores."""
    rows, columns = np.mgrid[:256, :256]
    picture = np.random.default_rng(0).integers(0, 20, (256, 256)).astype(np.uint8)
    for y in range(24, 256, 40):
        for x in range(24, 256, 40):
            picture[(rows - y) ** 2 + (columns - x) ** 2 < 100] += 120
    found, expected = (
        mrcnn.load("nucleus-light", PRECISION=name).detect([picture])[0] for name in ("bfloat16", "float32")
    )
    sure = expected["scores"] > 0.8
    assert sure.sum() >= 30
    overlaps = compute_overlaps(expected["rois"][sure], found["rois"])
    assert overlaps.max(axis=1).min() > 0.85
    near = overlaps.argmax(axis=1)
    np.testing.assert_allclose(found["scores"][near], expected["scores"][sure], atol=0.05)

"""ROIAlign by TensorFlow's operator against `network.roi_align`, wherever the boxes are."""

import keras
import numpy as np
import pytest
from tensor_tools import BACKEND, check_layer, run

from mrcnn import backend
from mrcnn.fast import native_roi_align
from mrcnn.fast.native_roi_align import NativeROIAlign
from mrcnn.network.roi_align import PyramidROIAlign

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has the operator")


def inputs(side=128, batch=2, rois=60, channels=3):
    """RoIs of all levels: inside, across and on the edges, inverted, not finite, empty; metas; a pyramid."""
    rng = np.random.default_rng(4)
    center, half = rng.random((batch, rois, 2)), np.exp(rng.uniform(-4, 0, (batch, rois, 2))) / 2
    boxes = np.concatenate([center - half, center + half], axis=2)
    boxes[:, ::3] = np.clip(boxes[:, ::3], 0, 1)
    boxes[:, 1::7, 2:] = 1.0
    boxes[:, 5] = (0, 0, 1, 1)
    boxes[:, 6] = (0.5, 0.5, 0.2, 0.2)
    boxes[:, 8, 0], boxes[:, 9, 3] = np.nan, np.inf
    boxes[:, -4:] = 0
    meta = np.zeros((batch, 14), np.float32)
    meta[:, 4:7] = (side, side, 3)
    maps = [rng.normal(size=(batch, side // s, side // s, channels)) for s in (4, 8, 16, 32)]
    return [boxes.astype(np.float32), meta, *(level.astype(np.float32) for level in maps)]


@on_tensorflow
@pytest.mark.parametrize("pool_shape", [(7, 7), (14, 14), (1, 3)])
def test_equals_roi_align(pool_shape):
    found = check_layer(NativeROIAlign(pool_shape), inputs())
    expected = run(PyramidROIAlign(pool_shape), inputs())
    # The arithmetic is the same, but a GPU contracts products and sums.
    tolerance = 0 if backend.is_on_cpu(None) else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@on_tensorflow
def test_no_rois():
    boxes, *rest = inputs()
    assert run(NativeROIAlign((7, 7)), [boxes[:, :0], *rest]).shape == (2, 0, 7, 7, 3)


@on_tensorflow
def test_half_precision():
    arrays = inputs()
    found = run(NativeROIAlign((3, 3), dtype="mixed_bfloat16"), arrays)
    assert found.dtype.name == "bfloat16"
    expected = run(PyramidROIAlign((3, 3)), arrays)
    np.testing.assert_allclose(found.astype("float32"), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("has_operator", [False, True])
@pytest.mark.parametrize("sizes_may_vary", [False, True])
def test_replacements(monkeypatch, has_operator, sizes_may_vary):
    monkeypatch.setattr(backend, "crop_and_resize", (lambda *args: None) if has_operator else None)
    monkeypatch.setattr(backend, "sizes_may_vary", lambda choice=None: sizes_may_vary)
    tensors = [keras.Input(x.shape[1:]) for x in inputs()]
    model = keras.Model(tensors, PyramidROIAlign((2, 5), name="roi_align_mask")(tensors))
    found = native_roi_align.replacements(model)
    assert list(found) == (["roi_align_mask"] if has_operator and sizes_may_vary else [])
    for layer in found.values():
        assert (type(layer), layer.pool_shape, layer.name) == (NativeROIAlign, (2, 5), "roi_align_mask")


def test_only_tensorflow_has_the_operator():
    assert (backend.crop_and_resize is not None) == (BACKEND == "tensorflow")

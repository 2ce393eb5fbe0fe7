"""TensorFlow's operator gives exactly what `roi_align` computes, wherever the boxes lie."""

import keras
import numpy as np
import pytest
from tensor_tools import check_layer, run

from mrcnn.fast.native_roi_align import CropAndResizeROIAlign
from mrcnn.network.roi_align import PyramidROIAlign

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the operator belongs to TensorFlow"
)


def inputs(side=128, batch=2, rois=60, channels=3):
    """RoIs of all levels, inside, across and on the edges, and rows of zeros; a pyramid; metas."""
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


@pytest.mark.parametrize("pool_shape", [(7, 7), (14, 14), (1, 3)])
def test_equal_to_roi_align(pool_shape):
    found = check_layer(CropAndResizeROIAlign(pool_shape), inputs())
    np.testing.assert_array_equal(found, run(PyramidROIAlign(pool_shape), inputs()))


def test_no_rois():
    boxes, *rest = inputs()
    assert run(CropAndResizeROIAlign((7, 7)), [boxes[:, :0], *rest]).shape == (2, 0, 7, 7, 3)

"""Anchors as tensors against those of `geometry.anchors`."""

import keras
import numpy as np
import pytest
from tensor_tools import check_layer

from mrcnn.geometry import anchors as geometry
from mrcnn.geometry import boxes
from mrcnn.network.anchors import Anchors

SCALES, RATIOS, STRIDES = (32, 64, 128, 256, 512), (0.5, 1, 2), (4, 8, 16, 32, 64)


@pytest.mark.parametrize("shape", [(64, 64), (128, 192), (100, 70), (320, 64)])
@pytest.mark.parametrize("anchor_stride", [1, 2])
def test_equals_numpy(shape, anchor_stride):
    layer = Anchors(SCALES, RATIOS, STRIDES, anchor_stride, name="anchors")
    found = check_layer(layer, np.zeros((2, *shape, 3), "float32"))
    levels = geometry.feature_shapes(shape, STRIDES)
    pixels = geometry.generate_pyramid_anchors(SCALES, RATIOS, levels, STRIDES, anchor_stride)
    expected = boxes.norm_boxes(pixels, shape)
    for image in found:
        np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-6)


def test_other_scales_and_ratios():
    layer = Anchors((10, 20), (0.25, 1.5), (8, 16))
    found = check_layer(layer, np.zeros((1, 64, 96, 1), "float32"))
    pixels = geometry.generate_pyramid_anchors((10, 20), (0.25, 1.5), [(8, 12), (4, 6)], (8, 16), 1)
    np.testing.assert_allclose(found[0], boxes.norm_boxes(pixels, (64, 96)), rtol=1e-5, atol=1e-6)


def test_their_number_is_known_if_the_size_of_the_image_is():
    layer = Anchors(SCALES, RATIOS, STRIDES)
    assert layer(keras.Input((None, None, 3))).shape == (None, None, 4)
    assert layer(keras.Input((1024, 1024, 3))).shape == (None, 261_888, 4)

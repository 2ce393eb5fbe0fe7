"""The region proposal network: its weights and the order of its outputs."""

import keras
import numpy as np
import pytest
from tensor_tools import run

from mrcnn.network.anchors import Anchors
from mrcnn.network.rpn import apply_rpn, build_rpn_model

FEATURES = np.random.default_rng(1).normal(size=(2, 6, 4, 5)).astype("float32")


@pytest.fixture(scope="module")
def rpn():
    return build_rpn_model(anchor_stride=1, anchors_per_location=3, depth=5, channels=8)


def test_weights(rpn):
    shapes = {layer.name: layer.kernel.shape for layer in rpn.layers if layer.weights}
    assert shapes == {
        "rpn_conv_shared": (3, 3, 5, 8),
        "rpn_class_raw": (1, 1, 8, 6),
        "rpn_bbox_pred": (1, 1, 8, 12),
    }
    assert rpn.name == "rpn_model"


def test_anchors_are_ordered_by_row_column_and_ratio(rpn):
    logits, probs, deltas = run(rpn, FEATURES)
    assert (logits.shape, probs.shape, deltas.shape) == ((2, 72, 2), (2, 72, 2), (2, 72, 4))
    shared = run(keras.Model(rpn.input, rpn.get_layer("rpn_conv_shared").output), FEATURES)
    for found, name, width in ((logits, "rpn_class_raw", 2), (deltas, "rpn_bbox_pred", 4)):
        kernel, bias = rpn.get_layer(name).get_weights()
        for row, column, ratio in ((0, 0, 0), (0, 1, 2), (5, 3, 1)):
            part = slice(width * ratio, width * (ratio + 1))
            expected = shared[:, row, column] @ kernel[0, 0][:, part] + bias[part]
            anchor = (row * 4 + column) * 3 + ratio
            np.testing.assert_allclose(found[:, anchor], expected, atol=1e-5)


def test_scores_of_each_anchor_add_up(rpn):
    logits, probs, _ = run(rpn, FEATURES)
    expected = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    np.testing.assert_allclose(probs[..., 1], expected, rtol=1e-4)
    np.testing.assert_allclose(probs.sum(axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_output_per_anchor(stride):
    image = np.zeros((1, 64, 128, 3), "float32")
    strides = (4, 8)
    anchors = Anchors((8, 16), (0.5, 1, 2), strides, stride)
    rpn = build_rpn_model(stride, 3, 5, 8)
    levels = [run(rpn, np.zeros((1, 64 // s, 128 // s, 5), "float32"))[2] for s in strides]
    assert sum(level.shape[1] for level in levels) == run(anchors, image).shape[1]


def test_apply_rpn_joins_the_levels(rpn):
    maps = [FEATURES, FEATURES[:, :3, :2]]
    inputs = [keras.Input(x.shape[1:]) for x in maps]
    joined = run(keras.Model(inputs, apply_rpn(rpn, inputs)), maps)
    single = [run(rpn, x) for x in maps]
    for index, part in enumerate(joined):
        expected = np.concatenate([outputs[index] for outputs in single], axis=1)
        np.testing.assert_allclose(part, expected, atol=1e-6)

"""The RPN with sigmoids instead of a softmax: the same scores."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import run

from mrcnn.fast import softmax_of_pairs
from mrcnn.network.rpn import build_rpn_model

MAP = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype("float32")


def network(rpn):
    feature_map = keras.Input(MAP.shape[1:], name="map")
    return keras.Model(feature_map, rpn(feature_map))


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("objectness_logit", [False, True])
def test_outputs(scale, objectness_logit):
    rpn = build_rpn_model(1, 3, 4, 8, objectness_logit=objectness_logit)
    rpn.set_weights([scale * weights for weights in rpn.get_weights()])
    model = network(rpn)
    replaced = softmax_of_pairs.replacements(model)["rpn_model"]
    assert all(ours is theirs for ours, theirs in zip(replaced.weights, rpn.weights, strict=True))
    for ours, expected in zip(run(network(replaced), MAP), run(model, MAP), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_an_rpn_with_another_score_is_left_alone():
    feature_map = keras.Input((None, None, 4))
    logits = layers.Reshape((-1, 3))(layers.Conv2D(9, 1)(feature_map))
    rpn = keras.Model(feature_map, layers.Softmax()(logits), name="rpn_model")
    assert softmax_of_pairs.replacements(network(rpn)) == {}

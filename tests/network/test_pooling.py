"""Max pooling against that of Keras."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import array, gradients, run, tensor

from mrcnn.network.pooling import MaxPooling2D

OPTIONS = [
    {"pool_size": 3, "strides": 2, "padding": "same"},  # as in ResNet
    {"pool_size": 3, "strides": 2, "padding": "valid"},
    {"pool_size": 2, "strides": 1, "padding": "same"},
    {"pool_size": (3, 2), "strides": 2, "padding": "same"},
    {"pool_size": 5, "strides": 3, "padding": "same"},
    {"pool_size": 1, "strides": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sides", [(8, 10), (7, 9), (8, 9)], ids=str)
def test_equals_keras(sides, options):
    inputs = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32) - 5.0
    expected = run(layers.MaxPooling2D(**options), inputs)
    np.testing.assert_array_equal(run(MaxPooling2D(**options), inputs), expected)


def test_gradient_goes_to_the_largest():
    inputs = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    pool = MaxPooling2D(3, strides=2, padding="same")
    (found,) = gradients(lambda x: keras.ops.sum(pool(x)), inputs)
    expected = np.zeros((8, 8))
    last = [2, 4, 6, 7]
    expected[np.ix_(last, last)] = 1
    np.testing.assert_array_equal(found[0, ..., 0], expected)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own pooling")
def test_features_keep_their_layout():
    inputs = tensor(np.ones((1, 8, 8, 3), np.float32))
    assert MaxPooling2D(3, strides=2, padding="same")(inputs).is_contiguous()
    assert array(inputs).shape == (1, 8, 8, 3)

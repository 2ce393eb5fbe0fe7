"""Convolutions of RoI features against Keras' convolutions with the same weights."""

import numpy as np
import pytest
from keras import layers
from tensor_tools import call, check_layer, run

from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.network.roi_convolution import Conv2DTranspose as RoiConv2DTranspose


def features(seed, shape=(2, 3, 7, 5, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomized(layer, shape, seed=1):
    layer.build(shape)
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return layer


def by_keras(reference, layer, x):
    """The result of a layer of Keras with the weights of `layer`, RoI by RoI."""
    wrapper = layers.TimeDistributed(reference)
    wrapper.build(x.shape)
    reference.set_weights(layer.get_weights())
    return run(wrapper, x)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
def test_same_convolution(side, activation):
    x = features(side)
    layer = randomized(RoiConv2D(6, side, activation=activation), x.shape)
    reference = layers.Conv2D(6, side, padding="same", activation=activation)
    np.testing.assert_allclose(check_layer(layer, x), by_keras(reference, layer, x), atol=1e-5)


def test_valid_convolution_that_covers_its_input():
    x = features(4, (2, 3, 5, 5, 4))
    layer = randomized(RoiConv2D(6, 5, padding="valid"), x.shape)
    found = check_layer(layer, x)
    assert found.shape == (2, 3, 1, 1, 6)
    np.testing.assert_allclose(found, by_keras(layers.Conv2D(6, 5), layer, x), atol=1e-5)


def test_valid_convolution_needs_inputs_of_the_size_of_its_kernel():
    with pytest.raises(ValueError, match=r"5 x 5.*\(2, 3, 7, 5, 4\)"):
        RoiConv2D(6, 5, padding="valid").build((2, 3, 7, 5, 4))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_transposed_convolution(activation):
    x = features(5)
    layer = randomized(RoiConv2DTranspose(6, activation=activation), x.shape)
    reference = layers.Conv2DTranspose(6, 2, strides=2, activation=activation)
    found = check_layer(layer, x)
    assert found.shape == (2, 3, 14, 10, 6)
    np.testing.assert_allclose(found, by_keras(reference, layer, x), atol=1e-5)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_select_channel_equals_indexing(activation):
    x = features(6)
    layer = randomized(RoiConv2D(5, 1, activation=activation), x.shape)
    chosen = np.array([[0, 4, 2], [3, 3, 1]], "int32")
    all_channels = run(layer, x)
    expected = np.stack([[all_channels[b, n, ..., chosen[b, n]] for n in range(3)] for b in range(2)])
    np.testing.assert_allclose(call(layer.select_channel, x, chosen), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "padding", "is_matmul"), [(1, "same", True), (3, "same", False), (5, "valid", True)]
)
def test_is_matmul(side, padding, is_matmul):
    """Whether a layer calls the convolution that it is given."""
    x, calls = features(7, (1, 2, 5, 5, 4)), []
    layer = randomized(RoiConv2D(6, side, padding=padding), x.shape)

    def convolution(inputs, kernel, bias):
        calls.append(kernel)
        return layers.Conv2D(6, side, padding="same")(inputs)

    layer.convolve(x, layer.kernel, layer.bias, convolution)
    assert layer.is_matmul == is_matmul
    assert len(calls) == (0 if is_matmul else 1)

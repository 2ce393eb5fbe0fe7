"""Convolution and pooling layers against those of Keras."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import array, gradients, rebuilt, run, tensor

from mrcnn import backend
from mrcnn.network import convolution

CONVOLUTIONS = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": (2, 3), "padding": "valid", "strides": (1, 2)},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
    {"kernel_size": 1, "strides": 2, "activation": "relu"},
    {"kernel_size": 3, "padding": "same", "use_bias": False, "activation": "sigmoid"},
    {"kernel_size": 3, "padding": "same", "groups": 2},
]

POOLS = [
    {"pool_size": 3, "strides": 2, "padding": "same"},  # as in ResNet
    {"pool_size": 3, "strides": 2, "padding": "valid"},
    {"pool_size": 2, "strides": 1, "padding": "same"},
    {"pool_size": (3, 2), "strides": 2, "padding": "same"},
    {"pool_size": 5, "strides": 3, "padding": "same"},
    {"pool_size": 1, "strides": 2},
]


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("size", [(8, 10), (7, 9)], ids=str)
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_convolution_equals_keras(kind, size, options):
    width = {"filters": 6} if kind == "Conv2D" else {"depth_multiplier": 2}
    if kind == "DepthwiseConv2D" and ("groups" in options or options.get("strides", 1) == (1, 2)):
        pytest.skip("Keras has no such depthwise convolution")
    inputs = features(2, *size, 4)
    ours, theirs = (getattr(module, kind)(**width, **options) for module in (convolution, layers))
    for layer in (ours, theirs):
        layer.build(inputs.shape)
    for mine, weight in zip(ours.weights, theirs.weights, strict=True):
        weight.assign(features(*weight.shape))
        mine.assign(weight.value)
    np.testing.assert_allclose(run(ours, inputs), run(theirs, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (8, 9)], ids=str)
def test_pooling_equals_keras(size, options):
    inputs = features(2, *size, 3) - 5.0
    expected = run(layers.MaxPooling2D(**options), inputs)
    np.testing.assert_array_equal(run(convolution.MaxPooling2D(**options), inputs), expected)


def test_the_gradient_of_groups():
    """A dense kernel with zeros between the groups computes the same."""
    inputs, kernel = features(1, 6, 7, 8), features(3, 3, 2, 12)
    blocks = np.kron(np.eye(4), np.ones((2, 3))).astype("float32")
    dense = np.tile(kernel, (1, 1, 4, 1)) * blocks

    def loss(groups):
        return lambda x, k: keras.ops.sum(backend.conv2d(x, k, strides=(2, 2), groups=groups) ** 2)

    found, expected = gradients(loss(4), inputs, kernel), gradients(loss(1), inputs, dense)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    of_blocks = (expected[1] * blocks).reshape(3, 3, 4, 2, 12).sum(axis=2)
    np.testing.assert_allclose(found[1], of_blocks, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_pooling_goes_to_the_largest():
    inputs = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    pool = convolution.MaxPooling2D(3, strides=2, padding="same")
    (found,) = gradients(lambda x: keras.ops.sum(pool(x)), inputs)
    expected = np.zeros((8, 8))
    last = [2, 4, 6, 7]
    expected[np.ix_(last, last)] = 1
    np.testing.assert_array_equal(found[0, ..., 0], expected)


@pytest.mark.parametrize(
    "layer",
    [
        convolution.Conv2D(2, 3, padding="same"),
        convolution.DepthwiseConv2D(3, padding="same"),
        convolution.MaxPooling2D(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_are_channels_last_and_rebuild(layer):
    assert rebuilt(layer).data_format == layer.data_format == "channels_last"


def test_layers_ignore_the_default_of_keras():
    keras.config.set_image_data_format("channels_first")
    try:
        layer = convolution.Conv2D(2, 3, padding="same")
        assert array(layer(tensor(features(1, 5, 6, 4)))).shape == (1, 5, 6, 2)
    finally:
        keras.config.set_image_data_format("channels_last")

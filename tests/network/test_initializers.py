"""Initial weights: Glorot's distribution, new for each layer, the same on every backend."""

import math

import keras
import numpy as np
import pytest
from tensor_tools import array
from tiny_model import TinyConfig

from mrcnn.model import MaskRCNN
from mrcnn.network.convolution import Conv2D, DepthwiseConv2D
from mrcnn.network.initializers import GlorotUniform


@pytest.mark.parametrize("shape", [(3, 3, 40, 60), (1, 1, 100, 80), (90, 120), (2, 2, 50, 70)])
def test_distribution(shape):
    """That of Keras: uniform between the same limits."""
    values = array(GlorotUniform(seed=3)(shape))
    expected = array(keras.initializers.GlorotUniform(seed=3)(shape))
    *sides, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(sides) * (inputs + outputs)))
    assert values.dtype == expected.dtype == np.float32 and values.shape == shape
    for found in (values, expected):
        assert 0.99 * limit < np.abs(found).max() <= limit
        assert abs(found.mean()) < 0.03 * limit
        np.testing.assert_allclose(found.std(), limit / math.sqrt(3), rtol=0.03)


def test_a_seed_gives_the_same_values_everywhere():
    found = array(GlorotUniform(seed=5)((1, 1, 2, 1), "float32")).ravel()
    np.testing.assert_allclose(found, [0.483067, 0.862678], rtol=1e-5)
    assert array(GlorotUniform(seed=5)((2, 1), "float16")).dtype == np.float16


@pytest.mark.parametrize("layer", [Conv2D(4, 3), DepthwiseConv2D(3)], ids=lambda layer: type(layer).__name__)
def test_layers_use_it_and_can_be_saved(layer):
    layer.build((None, 8, 8, 6))
    again = type(layer).from_config(layer.get_config())
    again.build((None, 8, 8, 6))
    name = "depthwise_initializer" if isinstance(layer, DepthwiseConv2D) else "kernel_initializer"
    assert isinstance(getattr(again, name), GlorotUniform)
    assert again.weights[0].shape == layer.weights[0].shape
    assert not np.array_equal(array(again.weights[0]), array(layer.weights[0]))  # no seed: new values


def test_a_seed_of_the_program_gives_the_same_network(tmp_path):
    networks = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        networks.append(MaskRCNN("inference", TinyConfig(), tmp_path).keras_model)
    first, same, other = (
        {weight.path: array(weight) for layer in net.layers for weight in layer.weights} for net in networks
    )
    kernels = [name for name in first if name.endswith("kernel")]
    assert len(kernels) > 10
    for name in first:
        np.testing.assert_array_equal(same[name], first[name])
    assert all(not np.array_equal(other[name], first[name]) for name in kernels)
    # Layers of one shape have different weights.
    values = [first[name].tobytes() for name in kernels]
    assert len(set(values)) == len(values)

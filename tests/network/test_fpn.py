"""The feature pyramid against the same sums in NumPy."""

import keras
import numpy as np
import pytest
from tensor_tools import run

from mrcnn.network.fpn import feature_pyramid

CHANNELS = 3
DEPTHS = (2, 3, 4, 5)


@pytest.fixture(scope="module")
def model():
    stages = [
        keras.Input((side, side // 2, depth)) for side, depth in zip((32, 16, 8, 4), DEPTHS, strict=True)
    ]
    return keras.Model(stages, feature_pyramid(stages, CHANNELS))


@pytest.fixture(scope="module")
def stages():
    rng = np.random.default_rng(1)
    sides = zip((32, 16, 8, 4), DEPTHS, strict=True)
    return [rng.normal(size=(2, side, side // 2, depth)).astype("float32") for side, depth in sides]


def test_shapes(model):
    assert [x.shape[1:] for x in model.outputs] == [
        (32, 16, 3),
        (16, 8, 3),
        (8, 4, 3),
        (4, 2, 3),
        (2, 1, 3),
    ]


def test_names_and_shapes_of_weights(model):
    shapes = {layer.name: layer.kernel.shape for layer in model.layers if layer.weights}
    expected = {
        f"fpn_c{level}p{level}": (1, 1, depth, 3) for level, depth in zip(range(2, 6), DEPTHS, strict=True)
    }
    assert shapes == expected | {f"fpn_p{level}": (3, 3, 3, 3) for level in range(2, 6)}


def test_levels_are_merged_before_they_are_smoothed(model, stages):
    """With 3x3 kernels that copy the center cell, every level is a sum of lateral connections."""
    for level in range(2, 6):
        kernel = np.zeros((3, 3, CHANNELS, CHANNELS))
        kernel[1, 1] = np.eye(CHANNELS)
        model.get_layer(f"fpn_p{level}").set_weights([kernel, np.zeros(CHANNELS)])
    found = run(model, stages)
    merged = 0
    for level in range(5, 1, -1):
        kernel, bias = model.get_layer(f"fpn_c{level}p{level}").get_weights()
        merged = stages[level - 2] @ kernel[0, 0] + bias + merged
        np.testing.assert_allclose(found[level - 2], merged, atol=1e-4)
        merged = merged.repeat(2, axis=1).repeat(2, axis=2)


def test_p6_takes_every_second_cell_of_p5(model, stages):
    found = run(model, stages)
    np.testing.assert_array_equal(found[4], found[3][:, ::2, ::2])

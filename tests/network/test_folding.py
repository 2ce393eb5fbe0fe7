"""Batch norms folded into the layers before them: the same outputs, the same stored weights."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import array, tensor

from mrcnn.network.folding import FoldedNetwork
from mrcnn.network.heads import RoiConv2D
from mrcnn.network.normalization import BatchNorm


def network():
    """Each kind of layer with a batch norm that can be folded, and each that cannot, by name."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="conv")(image)
    x = layers.ReLU()(BatchNorm(name="conv_bn")(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization(scale=False, name="depthwise_bn")(x)
    x = layers.Conv2D(4, 1, activation="relu", name="activated")(x)
    x = BatchNorm(train_bn=False, name="activated_bn")(x)
    two = layers.Conv2D(4, 1, name="two_uses")(x)
    x = layers.Add()([BatchNorm(train_bn=False, name="two_uses_bn")(two), two])
    shared = layers.Conv2D(4, 1, name="two_calls")
    x = shared(BatchNorm(train_bn=False, name="two_calls_bn")(shared(x)))
    x = BatchNorm(train_bn=True, name="by_batch_bn")(layers.Conv2D(4, 1, name="by_batch")(x))
    rois = layers.Reshape((4, 4, 4, 4))(x)
    rois = BatchNorm(train_bn=False, name="roi_conv_bn")(RoiConv2D(5, 3, name="roi_conv")(rois))
    rois = RoiConv2D(7, 4, padding="valid", name="roi_dense")(rois)
    rois = BatchNorm(train_bn=None, name="roi_dense_bn")(rois)
    flat = layers.Dense(3, use_bias=False, name="dense")(layers.Flatten()(rois))
    flat = layers.BatchNormalization(center=False, name="dense_bn")(flat)
    return keras.Model({"image": image}, {"map": x, "flat": flat})


FOLDED = {"conv", "depthwise", "roi_conv", "roi_dense", "dense"}


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.5, weight.shape) * rng.choice([1, -1], weight.shape))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.2, 1.5, layer.moving_variance.shape))


@pytest.fixture(scope="module")
def networks():
    model = network()
    randomize(model, seed=1)
    return model, FoldedNetwork(model)


def outputs(model):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return {name: array(value) for name, value in model({"image": tensor(image)}, training=False).items()}


def assert_same_outputs(model, folded):
    folded.refresh()
    found, wanted = outputs(folded.model), outputs(model)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_only_what_can_be_folded_is(networks):
    _, folded = networks
    assert folded.pairs.keys() == FOLDED
    left = {layer.name for layer in folded.model.layers if isinstance(layer, layers.BatchNormalization)}
    assert left == {"activated_bn", "two_uses_bn", "two_calls_bn", "by_batch_bn"}


def test_outputs_are_equal_and_weights_untouched(networks):
    model, folded = networks
    before = [np.copy(weight) for weight in model.get_weights()]
    assert_same_outputs(model, folded)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_layers_are_shared(networks):
    model, folded = networks
    for layer in folded.model.layers:
        if layer.weights:
            assert (layer is model.get_layer(layer.name)) == (layer.name not in FOLDED)


@pytest.mark.parametrize("change", ["set_weights", "one layer", "one variable"])
def test_a_change_of_weights_is_followed(networks, change):
    model, folded = networks
    folded.refresh()
    before = outputs(folded.model)["flat"]
    if change == "set_weights":
        model.set_weights([0.7 * weight for weight in model.get_weights()])
    elif change == "one layer":
        kernel, bias = model.get_layer("conv").get_weights()
        model.get_layer("conv").set_weights([1.5 * kernel, bias])
    else:
        mean = model.get_layer("conv_bn").moving_mean
        mean.assign(mean.value + 1.0)
    assert_same_outputs(model, folded)
    assert np.abs(outputs(folded.model)["flat"] - before).max() > 1e-3


def test_nothing_is_computed_anew_without_a_change(networks):
    _, folded = networks
    folded.refresh()
    copy = folded.model.get_layer("conv").kernel
    copy.assign(2.0 * copy.value)  # would be put right by folding
    changed = array(copy)
    folded.refresh()
    np.testing.assert_array_equal(array(copy), changed)
    folded._stale = True
    folded.refresh()
    np.testing.assert_allclose(array(copy), changed / 2.0)

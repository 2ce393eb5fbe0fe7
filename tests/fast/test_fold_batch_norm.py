"""Batch norms folded into the layers before them: the same outputs and gradients, the same stored weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array, tensor

from mrcnn import backend
from mrcnn.fast.fold_batch_norm import FoldedNetwork, folded_at_each_call
from mrcnn.network import convolution
from mrcnn.network.heads import RoiConv2D
from mrcnn.network.normalization import BatchNorm


def network(train_bn=None):
    """Each kind of layer with a batch norm that can be folded, and each that cannot, by name.

    train_bn: of the norms that can, but for roi_conv's, which is False.
    """
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="conv")(image)
    x = layers.ReLU()(BatchNorm(train_bn, name="conv_bn")(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, padding="same", name="depthwise")(x)
    x = BatchNorm(train_bn, scale=False, name="depthwise_bn")(x)
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
    rois = BatchNorm(train_bn, name="roi_dense_bn")(rois)
    flat = layers.Dense(3, use_bias=False, name="dense")(layers.Flatten()(rois))
    flat = BatchNorm(train_bn, center=False, name="dense_bn")(flat)
    other = layers.Dense(3, name="of_keras")(flat)
    flat = layers.Add()([flat, layers.BatchNormalization(name="of_keras_bn")(other)])
    return keras.Model({"image": image}, {"map": x, "flat": flat})


CAN_FOLD = {"conv", "depthwise", "roi_conv", "roi_dense", "dense"}
FOLDED = CAN_FOLD | {"of_keras"}
CANNOT = {"activated_bn", "two_uses_bn", "two_calls_bn", "by_batch_bn"}


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


def norms(model):
    return {layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)}


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
    assert norms(folded.model) == CANNOT


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


@pytest.mark.parametrize("train_bn", [False, None])
def test_folding_at_each_call_keeps_outputs_and_gradients(train_bn):
    model = network(train_bn)
    randomize(model, seed=2)
    folded = folded_at_each_call(model)
    stay = (
        CANNOT
        | {"of_keras_bn"}
        | ({f"{name}_bn" for name in CAN_FOLD - {"roi_conv"}} if train_bn is None else set())
    )
    assert norms(folded) == stay

    def loss_of(net):
        return lambda inputs: sum(ops.sum(ops.sin(x)) for x in net(inputs, training=True).values())

    image = {"image": np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)}
    wanted, found = (backend.loss_gradients(model, loss_of(net))(image) for net in (model, folded))
    largest = max(np.linalg.norm(expected) for expected in wanted)
    for variable, expected, gradient in zip(model.trainable_variables, wanted, found, strict=True):
        error, size = np.linalg.norm(gradient - expected), np.linalg.norm(expected)
        assert error <= 1e-3 * size + 1e-5 * largest, variable.path
    for name, value in outputs(model).items():
        np.testing.assert_allclose(outputs(folded)[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_large_kernels_stay_apart():
    image = keras.Input((4, 4, 500), name="image")
    x = layers.Conv2D(2001, 1, name="large")(image)
    x = layers.Conv2D(5, 1, name="small")(BatchNorm(False, name="large_bn")(x))
    model = keras.Model({"image": image}, {"x": BatchNorm(False, name="small_bn")(x)})
    assert norms(FoldedNetwork(model).model) == norms(folded_at_each_call(model)) == {"large_bn"}


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch tells what it keeps")
def test_the_backward_pass_needs_no_input_of_a_norm():
    import torch

    image = keras.Input((16, 16, 4), name="image")
    x = image
    for number in range(4):
        x = convolution.Conv2D(32, 1, name=f"conv{number}")(x)
        x = layers.ReLU()(BatchNorm(False, name=f"bn{number}")(x))
    model = keras.Model({"image": image}, x)

    def kept(net):
        storages = {}

        def pack(x):
            if x.numel() == 16 * 16 * 32:
                storages[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net({"image": tensor(np.ones((1, 16, 16, 4), np.float32))}, training=True)
        return len(storages)

    assert kept(model) >= 8  # the results of convolutions and those of ReLUs
    assert kept(folded_at_each_call(model)) == 4

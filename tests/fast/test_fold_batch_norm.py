"""Batch norms folded into the layers before them: equal outputs and gradients, weights as before."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array, tensor

from mrcnn import backend, fast
from mrcnn.backend import layer_graph
from mrcnn.fast import fold_batch_norm
from mrcnn.network import convolution
from mrcnn.network.normalization import BatchNorm
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.network.roi_convolution import Conv2DTranspose as RoiConv2DTranspose


def network(train_bn=None):
    """A batch norm behind each kind of layer that it can be folded into, and behind some that it cannot.

    Args:
        train_bn: Of the foldable norms, except that of roi_conv, which is False.
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
    """A model, the same model with folded norms, and the function that brings over its weights."""
    model = network()
    randomize(model, seed=1)
    return model, *fast.for_inference(model)


def with_stand_ins(model):
    """The model with its norms folded at each call."""
    stand_ins, norms = fold_batch_norm.training_stand_ins(model)
    return layer_graph.replace_layers(model, stand_ins, removed=norms)


class RectifiedConv2D(layers.Conv2D):
    """A layer of a user's own: not linear, though its activation is."""

    def call(self, inputs):
        return ops.relu(super().call(inputs))


class StandardizedConv2D(convolution.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True))


class ShiftedBatchNorm(BatchNorm):
    def call(self, inputs, **options):
        return super().call(inputs, **options) + 1.0


@pytest.mark.parametrize("derived", ["rectified", "standardized", "norm"])
def test_layers_derived_from_known_ones_are_not_folded(derived):
    image = keras.Input((8, 8, 3), name="image")
    kinds = {"rectified": RectifiedConv2D, "standardized": StandardizedConv2D}
    x = kinds.get(derived, layers.Conv2D)(6, 3, name="conv")(image)
    x = (ShiftedBatchNorm if derived == "norm" else BatchNorm)(train_bn=False, name="norm")(x)
    model = keras.Model(image, {"x": x})
    assert not list(fold_batch_norm.foldable(model, fold_batch_norm.USES_BATCH))


def norm_names(model):
    return {layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)}


def outputs(model):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return {name: array(value) for name, value in model({"image": tensor(image)}, training=False).items()}


def assert_same_outputs(model, other):
    found = outputs(other)
    for name, expected in outputs(model).items():
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=atol)


def test_foldable_norms_are_removed(networks):
    model, folded, _ = networks
    assert fold_batch_norm.FoldedCopies(model).pairs.keys() == FOLDED
    assert norm_names(folded) == CANNOT


def test_outputs_are_equal_and_weights_unchanged(networks):
    model, folded, refresh = networks
    before = [np.copy(weight) for weight in model.get_weights()]
    refresh()
    assert_same_outputs(model, folded)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_layers_are_shared(networks):
    model, folded, _ = networks
    for layer in folded.layers:
        if layer.weights:
            assert (layer is model.get_layer(layer.name)) == (layer.name not in FOLDED)


@pytest.mark.parametrize("change", ["set_weights", "one layer", "one variable"])
def test_refresh_follows_a_change_of_weights(networks, change):
    model, folded, refresh = networks
    refresh()
    before = outputs(folded)["flat"]
    if change == "set_weights":
        model.set_weights([0.7 * weight for weight in model.get_weights()])
    elif change == "one layer":
        kernel, bias = model.get_layer("conv").get_weights()
        model.get_layer("conv").set_weights([1.5 * kernel, bias])
    else:
        mean = model.get_layer("conv_bn").moving_mean
        mean.assign(mean.value + 1.0)
    refresh()
    assert_same_outputs(model, folded)
    assert np.abs(outputs(folded)["flat"] - before).max() > 1e-3


def test_refresh_does_nothing_without_a_change(networks):
    model, folded, refresh = networks
    refresh()
    copy = folded.get_layer("conv").kernel
    folded_kernel = array(copy)
    copy.assign(2.0 * copy.value)
    refresh()
    np.testing.assert_array_equal(array(copy), 2.0 * folded_kernel)
    bias = model.get_layer("conv").bias
    bias.assign(bias.value)
    refresh()
    np.testing.assert_array_equal(array(copy), folded_kernel)


@pytest.mark.parametrize("train_bn", [False, None])
def test_folding_at_each_call_keeps_outputs_and_gradients(train_bn):
    model = network(train_bn)
    randomize(model, seed=2)
    folded = with_stand_ins(model)
    by_batch_in_training = {f"{name}_bn" for name in CAN_FOLD - {"roi_conv"}} if train_bn is None else set()
    assert norm_names(folded) == CANNOT | {"of_keras_bn"} | by_batch_in_training

    def loss_of(net):
        return lambda inputs: sum(ops.sum(ops.sin(x)) for x in net(inputs, training=True).values())

    image = {"image": np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)}
    expected, found = (backend.loss_gradients(model, loss_of(net))(image) for net in (model, folded))
    largest = max(np.linalg.norm(gradient) for gradient in expected)
    for variable, plain, gradient in zip(model.trainable_variables, expected, found, strict=True):
        error, size = np.linalg.norm(gradient - plain), np.linalg.norm(plain)
        assert error <= 1e-3 * size + 1e-5 * largest, variable.path
    assert_same_outputs(model, folded)


def test_large_kernels_are_not_folded():
    image = keras.Input((4, 4, 500), name="image")
    x = layers.Conv2D(2001, 1, name="large")(image)
    x = layers.Conv2D(5, 1, name="small")(BatchNorm(False, name="large_bn")(x))
    model = keras.Model({"image": image}, {"x": BatchNorm(False, name="small_bn")(x)})
    assert norm_names(fast.for_inference(model)[0]) == norm_names(with_stand_ins(model)) == {"large_bn"}


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch reports which tensors it keeps")
def test_the_backward_pass_needs_no_input_of_a_norm():
    import torch

    image = keras.Input((16, 16, 4), name="image")
    x = image
    for number in range(4):
        x = convolution.Conv2D(32, 1, name=f"conv{number}")(x)
        x = layers.ReLU()(BatchNorm(False, name=f"bn{number}")(x))
    model = keras.Model({"image": image}, x)

    def kept_features(net):
        storages = {}

        def pack(x):
            if x.numel() == 16 * 16 * 32:
                storages[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net({"image": tensor(np.ones((1, 16, 16, 4), np.float32))}, training=True)
        return len(storages)

    assert kept_features(model) >= 8  # the outputs of convolutions and of ReLUs
    assert kept_features(with_stand_ins(model)) == 4


def layout_model():
    """Every layer whose kernel may be stored in another order, and those whose kernel is a matrix."""
    image = keras.Input((7, 7, 3))
    x = convolution.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.Reshape((1, 7, 7, 4))(x)
    x = RoiConv2D(4, 3, name="roi_conv")(x)
    x = RoiConv2D(5, 7, padding="valid", name="roi_valid")(x)
    x = RoiConv2DTranspose(2, name="roi_transpose")(RoiConv2D(5, 1, name="roi_pointwise")(x))
    return keras.Model(image, x)


def test_the_layout_of_kernels_changes_no_number():
    model = layout_model()
    inputs = tensor(np.random.default_rng(0).normal(size=(1, 7, 7, 3)).astype(np.float32))
    before, weights = array(model(inputs)), model.get_weights()
    fold_batch_norm.use_convolution_layout(model)
    np.testing.assert_allclose(array(model(inputs)), before, rtol=1e-6, atol=1e-6)
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
    model.get_layer("conv").kernel.assign(kernel)
    np.testing.assert_array_equal(array(model.get_layer("conv").kernel), kernel)


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch reads kernels in another order")
def test_kernels_of_convolutions_are_stored_as_they_are_read():
    import torch

    model = layout_model()
    fold_batch_norm.use_convolution_layout(model)
    kernels = {layer.name: layer.kernel.value for layer in model.layers if layer.weights}
    as_read = {
        name
        for name, kernel in kernels.items()
        if kernel.permute(3, 2, 0, 1).is_contiguous(memory_format=torch.channels_last)
        and not kernel.is_contiguous()
    }
    assert as_read == {"conv", "roi_conv"}

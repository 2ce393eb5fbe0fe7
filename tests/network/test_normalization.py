"""Batch normalization with its three ways to train, and group normalization."""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import array, check_layer, gradients, rebuilt, run

from mrcnn.network.backbone import mobilenet_v2
from mrcnn.network.heads import mask_head
from mrcnn.network.normalization import BatchNorm, GroupNorm, normalization

X = np.random.default_rng(1).normal(3, 2, (4, 5, 5, 3)).astype("float32")
GAMMA, BETA = np.array([1, 2, 0.5]), np.array([0, -1, 1])
MEAN, VARIANCE = np.array([2, 3, 4]), np.array([1, 4, 0.25])


def layer_of(train_bn, **options):
    layer = BatchNorm(train_bn=train_bn, **options)
    layer.build(X.shape)
    layer.set_weights([GAMMA, BETA, MEAN, VARIANCE])
    return layer


def normalized(mean, variance):
    return (X - mean) / np.sqrt(variance + 0.001) * GAMMA + BETA


STORED = normalized(MEAN, VARIANCE)
OF_BATCH = normalized(X.mean((0, 1, 2)), X.var((0, 1, 2)))


def statistics(layer):
    return array(layer.moving_mean.value), array(layer.moving_variance.value)


@pytest.mark.parametrize(
    "train_bn, training, expected",
    [
        (False, True, STORED),
        (False, False, STORED),
        (None, True, OF_BATCH),
        (None, False, STORED),
        (True, True, OF_BATCH),
        (True, False, OF_BATCH),
    ],
)
def test_which_statistics_normalize(train_bn, training, expected):
    found = run(layer_of(train_bn), X, training=training)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "train_bn, training, trainable, changes",
    [
        (False, True, True, False),
        (None, True, True, True),
        (None, False, True, False),
        (True, True, True, True),
        (True, False, True, False),
        (None, True, False, False),
        (True, True, False, False),
    ],
)
def test_when_the_moving_statistics_change(train_bn, training, trainable, changes):
    layer = layer_of(train_bn)
    layer.trainable = trainable
    layer(X, training=training)
    mean, variance = statistics(layer)
    assert (not np.array_equal(mean, MEAN)) == changes
    assert (not np.array_equal(variance, VARIANCE)) == changes


def test_the_first_update_replaces_what_was_stored():
    layer = layer_of(True)
    layer(X, training=True)
    mean, variance = statistics(layer)
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=0.05)
    layer(X + 1, training=True)
    moved, _ = statistics(layer)
    np.testing.assert_allclose(moved - mean, 0.01 / (1 - 0.99**2), rtol=1e-3)


def test_weights_are_the_four_of_weight_files():
    layer = layer_of(None)
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [w.name for w in layer.trainable_weights] == ["gamma", "beta"]


def test_gamma_and_beta_train_when_the_statistics_are_frozen():
    layer = layer_of(False)

    def total(gamma, beta):
        state = ([gamma, beta], [v.value for v in layer.non_trainable_variables])
        return ops.sum(layer.stateless_call(*state, ops.convert_to_tensor(X), training=True)[0])

    slopes = gradients(total, GAMMA.astype("float32"), BETA.astype("float32"))
    np.testing.assert_allclose(slopes[1], X[..., 0].size)
    expected = ((X - MEAN) / np.sqrt(VARIANCE + 0.001)).sum((0, 1, 2))
    np.testing.assert_allclose(slopes[0], expected, rtol=1e-3)


def test_configuration():
    copy = rebuilt(BatchNorm(train_bn=True, momentum=0.9, epsilon=0.01, name="bn_conv1"))
    assert (copy.train_bn, copy.momentum, copy.epsilon, copy.name) == (True, 0.9, 0.01, "bn_conv1")
    default = BatchNorm()
    assert (default.train_bn, default.momentum, default.epsilon) == (None, 0.99, 0.001)


@pytest.mark.parametrize("train_bn", [False, True])
def test_mixed_precision_keeps_the_input_type(train_bn):
    layer = layer_of(train_bn, dtype="mixed_bfloat16")
    found = layer(ops.cast(X, "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    expected = OF_BATCH if train_bn else STORED
    np.testing.assert_allclose(array(ops.cast(found, "float32")), expected, atol=0.1)
    assert {w.dtype for w in layer.weights} == {"float32"}
    if train_bn:
        np.testing.assert_allclose(statistics(layer)[0], X.mean((0, 1, 2)), rtol=0.01)


def grouped(x, groups, gamma, beta):
    """Group norm of one image or RoI [h, w, C] in NumPy."""
    parts = np.split(x.astype(np.float64), groups, axis=-1)
    parts = [(part - part.mean()) / np.sqrt(part.var() + 1e-5) for part in parts]
    return np.concatenate(parts, axis=-1) * gamma + beta


@pytest.mark.parametrize("channels, groups", [(64, 32), (24, 8), (3, 1)])
@pytest.mark.parametrize("rois", [(), (3,)], ids=["images", "rois"])
def test_group_norm_of_each_image_or_roi_by_itself(channels, groups, rois):
    rng = np.random.default_rng(2)
    x = rng.normal(3, 2, (2, *rois, 4, 5, channels)).astype("float32")
    layer = GroupNorm()
    layer.build(x.shape)
    gamma, beta = rng.normal(size=(2, channels))
    layer.set_weights([gamma, beta])
    expected = [grouped(part, groups, gamma, beta) for part in x.reshape(-1, 4, 5, channels)]
    np.testing.assert_allclose(run(layer, x), np.reshape(expected, x.shape), rtol=1e-3, atol=1e-3)
    check_layer(layer, x)


def test_a_network_of_group_norms():
    """No layer uses statistics of the batch. The names are those of batch norm."""
    image = keras.Input((64, 64, 3))
    stages = mobilenet_v2(image, norm="group")
    rois, meta = keras.Input((5, 4)), keras.Input((14,))
    pyramid = [keras.Input((None, None, 8)) for _ in range(4)]
    masks = mask_head(rois, pyramid, meta, 4, 3, channels=8, norm="group")
    assert masks.shape == (None, 5, 8, 8, 3)
    backbone, head = keras.Model(image, stages[1:]), keras.Model([rois, *pyramid, meta], masks)
    for model, name in ((backbone, "bn_Conv1"), (head, "mrcnn_mask_bn1")):
        assert not any(isinstance(layer, BatchNorm) for layer in model.layers)
        assert isinstance(model.get_layer(name), GroupNorm)


def test_unknown_normalization():
    with pytest.raises(ValueError, match="norm='layer'"):
        normalization("layer", None)


@pytest.mark.parametrize("train_bn", [None, True])
def test_regions_share_the_statistics(train_bn):
    """The heads normalize [B, N, h, w, C] over all RoIs, in training as in a detection."""
    rois = X.reshape(2, 2, *X.shape[1:])
    for training in (True, False)[: 1 + bool(train_bn)]:
        layer = BatchNorm(train_bn=train_bn)
        layer.build(rois.shape)
        layer.set_weights([GAMMA, BETA, MEAN, VARIANCE])
        found = run(layer, rois, training=training)
        np.testing.assert_allclose(found.reshape(X.shape), OF_BATCH, rtol=1e-4, atol=1e-4)


def test_gradients_of_the_statistics_of_the_batch():
    """They are those of the formula, which takes the gradient through mean and variance."""

    def formula(x):
        gamma, beta = (ops.convert_to_tensor(value.astype("float32")) for value in (GAMMA, BETA))
        mean, variance = ops.moments(x, axes=(0, 1, 2))
        return ops.sum(ops.sin((x - mean) * ops.rsqrt(variance + 0.001) * gamma + beta))

    layer = layer_of(True)
    layer.trainable = False  # so that the statistics stay
    found = gradients(lambda x: ops.sum(ops.sin(layer(x, training=True))), X)
    np.testing.assert_allclose(found, gradients(formula, X), rtol=1e-3, atol=1e-4)

"""The plain network against its fast paths: losses, gradients, one optimizer step, and detections."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import backend
from mrcnn.data.generator import DataGenerator
from mrcnn.fast import sparse_rpn_gradient
from mrcnn.model import MaskRCNN
from mrcnn.network.backbone import conv_block, identity_block
from mrcnn.network.convolution import Conv2D, DepthwiseConv2D, MaxPooling2D
from mrcnn.network.normalization import normalization


def small_backbone(image, stage5=True, train_bn=None):
    """Every kind of block of the real backbones, once each."""
    norm = normalization("batch", train_bn)
    x = layers.ReLU()(norm("bn_conv1")(Conv2D(8, 7, strides=2, padding="same", name="conv1")(image)))
    c1 = MaxPooling2D(3, strides=2, padding="same")(x)
    c2 = conv_block(c1, 3, (4, 4, 16), 2, "a", strides=1, train_bn=train_bn)
    c3 = conv_block(c2, 3, (4, 4, 16), 3, "a", train_bn=train_bn)
    c3 = identity_block(c3, 3, (4, 4, 16), 3, "b", train_bn=train_bn)
    x = DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="depthwise4")(c3)
    x = layers.ReLU(6.0)(norm("depthwise4_BN")(x))
    c4 = norm("project4_BN")(Conv2D(24, 1, use_bias=False, name="project4")(x))
    c5 = conv_block(c4, 3, (8, 8, 32), 5, "a", train_bn=train_bn)
    return [c1, c2, c3, c4, c5]


class SmallConfig(TinyConfig):
    """Frozen batch norms, which are folded."""

    BACKBONE = staticmethod(small_backbone)


class TrainedNormConfig(SmallConfig):
    """Batch norms of the heads that use the statistics of the batch, which stay."""

    TRAIN_BN = None


class ConventionsConfig(SmallConfig):
    """Conventions and frozen batch norms of torchvision's network."""

    CONVENTIONS = "torchvision"
    HEAD_NORM = "none"
    FROZEN_BN = True
    PRE_NMS_LIMIT = 30


class SecondVersionConfig(ConventionsConfig):
    """The layers that only torchvision's second version has."""

    BACKBONE = "resnet50"
    RESNET_STYLE = "pytorch"
    HEAD_NORM = "convolutions"
    FROZEN_BN = False
    FPN_NORM = True
    RPN_CONVOLUTIONS = 2
    BOX_HEAD_CONVOLUTIONS = 2


class ResNetConfig(TinyConfig):
    BACKBONE = "resnet50"


class MobileNetConfig(TinyConfig):
    BACKBONE = "mobilenetv2"


CONFIGS = {"small": SmallConfig}
SLOW_CONFIGS = {
    "conventions": ConventionsConfig,
    "second-version": SecondVersionConfig,
    "trained-norm": TrainedNormConfig,
    "resnet50": ResNetConfig,
    "mobilenetv2": MobileNetConfig,
}
LEARNING_RATE = 0.01
RTOL = {"tensorflow": 1e-4, "torch": 1e-4, "jax": 1e-3}[BACKEND]


pytestmark = pytest.mark.usefixtures("eager_tensorflow")


@pytest.fixture(autouse=True)
def sparse_at_every_level(monkeypatch):
    """The levels here are smaller than those for which the sparse pass of the RPN is meant."""
    monkeypatch.setattr(sparse_rpn_gradient, "SMALLEST_ARITHMETIC", 0)


def build(config_class, fast, folder, start=None, mode="training"):
    config = config_class()
    config.FAST_PATHS = fast
    model = MaskRCNN(mode, config, folder)
    if start is not None:
        model.copy_weights(start)
    if mode == "training":
        for name in ("proposal_targets", "rpn_targets"):
            model.keras_model.get_layer(name).shuffle = False
        model.set_trainable(".*", verbose=0)
        model.compile(LEARNING_RATE, 0.9)
    return model


def randomize_norms(model):
    """Statistics and factors that are not those of a fresh network."""
    rng = np.random.default_rng(5)
    for variable in model.keras_model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.6, 1.4, variable.shape))
        if variable.name in ("beta", "moving_mean"):
            variable.assign(rng.normal(scale=0.1, size=variable.shape))


@pytest.fixture(
    scope="module",
    params=[*CONFIGS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_CONFIGS)],
)
def pair(request, tmp_path_factory):
    """A plain and a fast training model with the same weights, and a batch."""
    folder = tmp_path_factory.mktemp(request.param)
    keras.utils.set_random_seed(1)
    plain = build((CONFIGS | SLOW_CONFIGS)[request.param], False, folder)
    randomize_norms(plain)
    fast = build((CONFIGS | SLOW_CONFIGS)[request.param], True, folder, plain)
    batch = DataGenerator(toy_dataset(), plain.config, seed=0, workers=0)[0][0]
    return plain, fast, batch


def total_loss(model):
    network = model.keras_model

    def loss(inputs):
        outputs = network(inputs, training=True)
        return sum(network.weighted_losses(inputs, outputs).values())

    return loss


def losses_of(model, batch):
    network = model.keras_model
    outputs = network(batch, training=True)
    return {name: float(array(x)) for name, x in network.weighted_losses(batch, outputs).items()}


def compare_gradients(variables, expected, found, rounding=0.0, sensitivity=None):
    """Gradients agree to a share of the largest of their variable, and of all variables.

    A ReLU has two gradients at zero, so one input that is zero but for rounding changes all gradients before
    it. `sensitivity()` returns how much rounding alone changes those of the plain network; it is asked for
    only if there is a larger difference.
    """
    largest = max(np.abs(x).max() for x in expected if x is not None)
    touched, limits = set(), None
    for index, (variable, wanted, value) in enumerate(zip(variables, expected, found, strict=True)):
        assert (wanted is None) == (value is None), variable.path
        if wanted is None:
            continue
        scale = np.abs(wanted).max()
        if scale > 1e-5 * largest:
            touched.add(variable.path)
        atol = 20 * RTOL * scale + 1e-5 * largest + rounding
        if sensitivity is not None and np.abs(value - wanted).max() > atol:
            limits = limits or sensitivity()
            atol += 2 * limits[index]
        np.testing.assert_allclose(value, wanted, rtol=0, atol=atol, err_msg=variable.path)
    return touched


def change_by_rounding(model, make_loss, batch, draws=8):
    """Largest change of the gradients of a loss when all weights change by about their rounding."""
    rng = np.random.default_rng(0)
    compute = backend.loss_gradients(model.keras_model, make_loss(model))
    expected, variables = compute(batch), model.keras_model.trainable_variables
    originals = [array(variable) for variable in variables]
    largest = [0.0] * len(expected)
    for _ in range(draws):
        for variable, values in zip(variables, originals, strict=True):
            variable.assign(values * (1 + rng.uniform(-2e-7, 2e-7, values.shape)).astype("float32"))
        for index, (value, wanted) in enumerate(zip(compute(batch), expected, strict=True)):
            if wanted is not None:
                largest[index] = max(largest[index], np.abs(value - wanted).max())
    for variable, values in zip(variables, originals, strict=True):
        variable.assign(values)
    return largest


def compare_losses(plain, fast, batch, make_loss):
    """Compare the gradients of a loss in both networks; return the variables that it changes."""
    gradients = [backend.loss_gradients(m.keras_model, make_loss(m))(batch) for m in (plain, fast)]
    return compare_gradients(
        plain.keras_model.trainable_variables,
        *gradients,
        sensitivity=lambda: change_by_rounding(plain, make_loss, batch),
    )


def test_losses_and_gradients(pair):
    plain, fast, batch = pair
    expected, losses = losses_of(plain, batch), losses_of(fast, batch)
    assert all(value > 0 for value in expected.values())
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=RTOL, err_msg=name)
    touched = compare_losses(plain, fast, batch, total_loss)
    assert len(touched) > 0.8 * len(plain.keras_model.trainable_variables)


@pytest.mark.slow
def test_a_loss_on_all_anchors_has_the_gradients_of_the_plain_network(pair):
    """Far more anchors than a training step samples: logits, scores and deltas."""
    plain, fast, batch = pair

    def loss_of(model):
        def loss(inputs):
            outputs = model.keras_model(inputs, training=True)
            names = ("rpn_class_logits", "rpn_class", "rpn_bbox")
            return sum(ops.mean(ops.sin(3.0 * outputs[name])) for name in names)

        return loss

    touched = compare_losses(plain, fast, batch, loss_of)
    for name in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred", "fpn_p2", "conv1"):
        assert any(name in path.lower() for path in touched), name


@pytest.mark.slow
def test_one_optimizer_step(pair, tmp_path):
    plain, fast, batch = pair
    start = plain
    plain, fast = (build(type(m.config), m is fast, tmp_path, m) for m in (plain, fast))
    variables = plain.keras_model.trainable_variables
    before = [array(v) for v in variables]
    logs = [m.keras_model.train_on_batch(batch, return_dict=True) for m in (plain, fast)]
    for name, value in logs[0].items():
        np.testing.assert_allclose(float(logs[1][name]), float(value), rtol=RTOL, err_msg=name)
    steps = [
        [array(v) - start for v, start in zip(m.keras_model.trainable_variables, before, strict=True)]
        for m in (plain, fast)
    ]

    def sensitivity():
        return [LEARNING_RATE * change for change in change_by_rounding(start, total_loss, batch)]

    # A step is the difference of two weights near 1, so it is rounded to their precision.
    touched = compare_gradients(variables, *steps, rounding=2.5e-7, sensitivity=sensitivity)
    assert len(touched) > 0.8 * len(variables)


@pytest.mark.slow
def test_detections(pair, tmp_path):
    start, _, _ = pair
    images = [toy_dataset(3).load_image(index) for index in range(3)]
    plain, fast = (build(type(start.config), f, tmp_path, start, "inference") for f in (False, True))
    matched = total = 0
    for wanted, found in zip(plain.detect(images), fast.detect(images), strict=True):
        assert len(found["rois"]) == len(wanted["rois"]) > 0
        total += len(wanted["rois"])
        for index, roi in enumerate(wanted["rois"]):
            same = (np.abs(found["rois"] - roi).max(axis=1) <= 1) & (
                found["class_ids"] == wanted["class_ids"][index]
            )
            same &= np.abs(found["scores"] - wanted["scores"][index]) < 1e-4
            masks = found["masks"] != wanted["masks"][..., index, None]
            matched += bool((same & (masks.mean(axis=(0, 1)) < 1e-3)).any())
    # Random weights give many boxes of nearly equal scores, of which rounding may choose another one.
    assert matched >= 0.9 * total

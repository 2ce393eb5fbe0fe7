"""Optimizers that add the gradient of the L2 penalty: the steps of one that differentiates the penalty."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn.training import optimizers

pytestmark = pytest.mark.usefixtures("eager_tensorflow")

WEIGHT_DECAY = 3.0  # makes the penalty as large as the loss
KINDS = [(optimizers.SGDWithL2, keras.optimizers.SGD), (optimizers.AdamWithL2, keras.optimizers.Adam)]
RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(8, 4)).astype("float32") for _ in range(2))
START = [RNG.normal(size=shape).astype("float32") for shape in ((4, 5), (5,), (5,), (5,), (5, 4))]

SETTINGS = [
    {"global_clipnorm": 0.5},
    {"gradient_accumulation_steps": 2},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
]


class Network(keras.Model):
    """Two dense layers and a norm. The penalty is part of the loss, with or without a gradient."""

    def __init__(self, differentiated):
        super().__init__()
        self.first = layers.Dense(5)
        self.norm = layers.LayerNormalization()
        self.last = layers.Dense(4, use_bias=False)
        self.differentiated = differentiated

    def call(self, inputs):
        return self.last(self.norm(ops.sin(self.first(inputs))))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        penalty = optimizers.l2_penalty(self.trainable_variables, WEIGHT_DECAY)
        return ops.mean(ops.square(ops.subtract(y_pred, y))) + (
            penalty if self.differentiated else ops.stop_gradient(penalty)
        )


def trained(kind, settings, l2_factor=None, steps=4):
    """A network after some steps; without l2_factor the backend differentiates the penalty."""
    network = Network(differentiated=l2_factor is None)
    network(X)
    network.set_weights(START)
    if l2_factor is not None:
        settings = {**settings, "l2_factor": l2_factor}
    network.compile(kind(learning_rate=0.1, **settings))
    for _ in range(steps):
        network.train_on_batch(X, Y)
    return network


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("kind", "plain"), KINDS)
def test_the_steps_are_those_of_a_differentiated_penalty(kind, plain, settings):
    expected = trained(plain, settings).get_weights()
    found = trained(kind, settings, WEIGHT_DECAY).get_weights()
    without = trained(kind, settings, 0.0).get_weights()
    for start, wanted, weights in zip(START, expected, found, strict=True):
        assert np.abs(wanted - start).max() > 1e-2
        np.testing.assert_allclose(weights, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(without[0] - expected[0]).max() > 1e-2


@pytest.mark.parametrize(("kind", "plain"), KINDS)
def test_without_a_factor_it_is_the_optimizer_of_keras(kind, plain):
    network = trained(kind, {}, 0.0)
    expected = Network(differentiated=False)
    expected(X)
    expected.set_weights(START)
    expected.compile(plain(learning_rate=0.1))
    for _ in range(4):
        expected.train_on_batch(X, Y)
    for weights, wanted in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weights, wanted, rtol=1e-6, atol=1e-7)


def test_a_weight_without_gradient_is_decayed():
    network = trained(optimizers.SGDWithL2, {}, WEIGHT_DECAY, steps=0)
    variables = network.trainable_variables
    network.optimizer.build(variables)
    network.optimizer.apply([None] * 2 + [ops.zeros(v.shape) for v in variables[2:]], variables)
    for variable, start in zip(variables, START, strict=True):
        decay = 0.0 if variable.name in optimizers.NORM_WEIGHTS else 0.2 * WEIGHT_DECAY / start.size
        np.testing.assert_allclose(ops.convert_to_numpy(variable), start * (1 - decay), rtol=1e-5)


def test_decay_of_the_sum():
    """Half the sum of squares, whose gradient is the weight itself."""
    weights = [keras.Variable(np.array([3.0, -4.0], "float32"), name=name) for name in ("kernel", "gamma")]
    assert float(optimizers.l2_penalty(weights, 0.1, of_sum=True)) == pytest.approx(0.1 * 12.5)
    optimizer = optimizers.SGDWithL2(learning_rate=1.0, l2_factor=0.1, l2_of_sum=True)
    optimizer.apply([ops.zeros(2), ops.zeros(2)], weights)
    np.testing.assert_allclose(ops.convert_to_numpy(weights[0]), [2.7, -3.6], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(weights[1]), [3, -4])


def test_decay_of_norms():
    weights = [keras.Variable(np.array([3.0, -4.0], "float32"), name=name) for name in ("kernel", "gamma")]
    assert float(optimizers.l2_penalty(weights, 0.1, of_sum=True, of_norms=True)) == pytest.approx(2.5)
    optimizer = optimizers.SGDWithL2(learning_rate=1.0, l2_factor=0.1, l2_of_sum=True, l2_of_norms=True)
    optimizer.apply([ops.zeros(2), ops.zeros(2)], weights)
    for weight in weights:
        np.testing.assert_allclose(ops.convert_to_numpy(weight), [2.7, -3.6], rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch's variables hold gradients")
@pytest.mark.parametrize("l2_factor", [0.0, WEIGHT_DECAY])
def test_gradients_are_freed(l2_factor):
    network = trained(optimizers.SGDWithL2, {}, l2_factor)
    assert [variable.value.grad for variable in network.trainable_variables] == [None] * 5


def test_adds_l2_gradient():
    adding = optimizers.SGDWithL2(l2_factor=1.0)
    assert optimizers.adds_l2_gradient(adding)
    assert optimizers.adds_l2_gradient(keras.optimizers.LossScaleOptimizer(adding))
    assert not optimizers.adds_l2_gradient(optimizers.SGDWithL2())
    assert not optimizers.adds_l2_gradient(keras.optimizers.SGD())
    assert not optimizers.adds_l2_gradient(None)


@pytest.mark.parametrize(("kind", "plain"), KINDS)
def test_it_is_saved_with_its_settings(kind, plain):
    optimizer = kind(learning_rate=0.25, global_clipnorm=3.0, l2_factor=0.5, clips_after_sum=True)
    loaded = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(loaded) is kind
    assert isinstance(loaded, plain)
    assert loaded.get_config() == optimizer.get_config()
    assert (loaded.l2_factor, loaded.clips_after_sum) == (0.5, True)
    assert optimizers.adds_l2_gradient(loaded)


@pytest.mark.parametrize("options", [*SETTINGS, {"clipnorm": 0.05}, {"nesterov": True}], ids=str)
def test_momentum_and_clipping_are_those_of_keras(options):
    settings = {"momentum": 0.9, **options}
    expected = trained(keras.optimizers.SGD, settings).get_weights()
    found = trained(optimizers.SGDWithL2, settings, WEIGHT_DECAY).get_weights()
    for wanted, weights in zip(expected, found, strict=True):
        np.testing.assert_allclose(weights, wanted, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_reaches_all_weights():
    """Keras' clipping does so, too. Training then stops with an error."""
    optimizer = optimizers.SGDWithL2(learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
    variables = [keras.Variable(np.ones(3, "float32")) for _ in range(2)]
    optimizer.build(variables)
    optimizer.apply([ops.convert_to_tensor(np.array([1, np.inf, 1], "float32")), ops.ones(3)], variables)
    assert all(np.isnan(ops.convert_to_numpy(variable)).all() for variable in variables)

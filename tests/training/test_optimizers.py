"""The L2 penalty's gradient from the optimiser: the steps of one that differentiates the penalty."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn.training import optimizers

WEIGHT_DECAY = 3.0  # as strong as the loss
RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(8, 4)).astype("float32") for _ in range(2))
START = [RNG.normal(size=shape).astype("float32") for shape in ((4, 5), (5,), (5,), (5,), (5, 4))]

SETTINGS = [
    {"global_clipnorm": 0.5},
    {"gradient_accumulation_steps": 2},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
]


class Network(keras.Model):
    """Two dense layers and a norm; its loss has the penalty, with or without a gradient."""

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


def trained(kind, differentiated, settings, steps=4):
    """Weights after some steps."""
    network = Network(differentiated)
    network(X)
    network.set_weights(START)
    kind = kind if differentiated else optimizers.adding_penalty(kind, WEIGHT_DECAY)
    network.compile(kind(learning_rate=0.1, **settings))
    for _ in range(steps):
        network.train_on_batch(X, Y)
    return network


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_the_steps_are_those_of_a_differentiated_penalty(kind, settings):
    expected = trained(kind, True, settings).get_weights()
    found = trained(kind, False, settings).get_weights()
    for start, wanted, weights in zip(START, expected, found, strict=True):
        assert np.abs(wanted - start).max() > 1e-2
        np.testing.assert_allclose(weights, wanted, rtol=1e-4, atol=1e-5)


def test_a_weight_without_gradient_is_decayed():
    network = trained(keras.optimizers.SGD, False, {}, steps=0)
    variables = network.trainable_variables
    network.optimizer.build(variables)
    network.optimizer.apply([None] * 2 + [ops.zeros(v.shape) for v in variables[2:]], variables)
    for variable, start in zip(variables, START, strict=True):
        decay = 0.0 if variable.name in optimizers.NOT_DECAYED else 0.2 * WEIGHT_DECAY / start.size
        np.testing.assert_allclose(ops.convert_to_numpy(variable), start * (1 - decay), rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch's variables hold gradients")
def test_gradients_are_let_go():
    network = trained(keras.optimizers.SGD, False, {})
    assert [variable.value.grad for variable in network.trainable_variables] == [None] * 5


def test_who_adds_the_penalty():
    adding = optimizers.adding_penalty(keras.optimizers.SGD, 1.0)()
    assert optimizers.adds_penalty(adding)
    assert optimizers.adds_penalty(keras.optimizers.LossScaleOptimizer(adding))
    assert not optimizers.adds_penalty(keras.optimizers.SGD())
    assert not optimizers.adds_penalty(None)


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_what_is_saved_is_of_the_kind_itself(kind):
    adding = optimizers.adding_penalty(kind, 1.0)(learning_rate=0.25, global_clipnorm=3.0)
    loaded = keras.optimizers.deserialize(keras.optimizers.serialize(adding))
    assert type(loaded) is type(kind())
    assert loaded.get_config() == adding.get_config()

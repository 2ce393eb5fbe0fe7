"""Several trainings of one model: nothing compiles twice, and the results are those of fresh compilations."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn.model import MaskRCNN
from mrcnn.training import compiled_steps
from mrcnn.training.layer_groups import LAYER_GROUPS
from mrcnn.training.schedules import warm_up_and_decay


def build(folder, **settings):
    config = TinyConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    keras.utils.set_random_seed(1)  # of the weights and of the layers that draw
    return MaskRCNN("training", config, folder)


def step(model, rate=0.01, layers="heads"):
    """Select layers and compile, as `train` does."""
    model.set_trainable(LAYER_GROUPS[layers], verbose=0)
    model.compile(rate, 0.9)
    return model.keras_model.optimizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("logs"), LOSS_WEIGHTS=dict(TinyConfig.LOSS_WEIGHTS))


def state(optimizer):
    return [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]


ADAM = {"OPTIMIZER": "adam", "EMA_MOMENTUM": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, ADAM])
def test_the_second_training_is_that_of_a_fresh_compilation(tmp_path, settings):
    reused, fresh = (build(tmp_path / name, **settings) for name in ("reused", "fresh"))
    for model in (reused, fresh):
        model.train(toy_dataset(4), None, 0.01, 1, "heads")
    function, optimizer = reused.keras_model.train_function, reused.keras_model.optimizer
    fresh.keras_model.compiled_steps = None
    for model in (reused, fresh):
        model.train(toy_dataset(4), None, 0.02, 2, "heads")
    assert reused.keras_model.optimizer is optimizer and fresh.keras_model.optimizer is not optimizer
    assert reused.keras_model.train_function is function
    for ours, expected in zip(reused.keras_model.get_weights(), fresh.keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_reused_optimizer_starts_anew(tmp_path):
    model = build(tmp_path, PRECISION="float16", GRADIENT_ACCUMULATION_STEPS=2, EMA_MOMENTUM=0.9)
    optimizer = step(model, 0.5)
    before = state(optimizer)
    for variable in optimizer.variables:
        variable.assign(keras.ops.ones(variable.shape, variable.dtype))
    assert step(model, 0.25) is optimizer
    for ours, expected, variable in zip(state(optimizer), before, optimizer.variables, strict=True):
        if variable.name == "learning_rate" and "loss_scale" not in variable.path:
            expected = 0.25
        np.testing.assert_array_equal(ours, expected, err_msg=variable.path)
    assert float(optimizer.learning_rate) == 0.25
    assert any(value.ndim and value.size for value in before)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: step(model, layers="all"),
        lambda model: step(model, warm_up_and_decay(0.01, 10)),
        lambda model: setattr(model.config, "WEIGHT_DECAY", 0.5) or step(model),
        lambda model: model.config.LOSS_WEIGHTS.update(mrcnn_mask_loss=2.0) or step(model),
    ],
    ids=["layers", "schedule", "setting", "loss weight"],
)
def test_a_change_compiles_anew(model, change):
    optimizer = step(model)
    assert step(model) is optimizer
    changed = change(model)
    assert changed is not optimizer


@pytest.mark.parametrize(
    "leave",
    [
        lambda model: step(model, layers="all"),
        lambda model: setattr(model.config, "WEIGHT_DECAY", 0.25) or step(model),
        lambda model: model.keras_model.compile("sgd", run_eagerly=True),
    ],
    ids=["layers", "setting", "compiled by hand"],
)
def test_a_way_back_compiles_nothing(model, leave):
    model.config.WEIGHT_DECAY = 0.125
    optimizer = step(model)
    network = model.keras_model
    function, metrics = network.train_function, network.metrics
    leave(model)
    assert network.optimizer is not optimizer
    model.config.WEIGHT_DECAY = 0.125
    assert step(model) is optimizer
    assert network.train_function is function and not network.run_eagerly
    assert [id(metric) for metric in network.metrics] == [id(metric) for metric in metrics]
    assert network.weight_decay == 0.125


@pytest.mark.slow
def test_stages_in_turn_train_as_fresh_compilations_do(tmp_path):
    kept, fresh = (build(tmp_path / name) for name in ("kept", "fresh"))
    for epoch, layers in enumerate(["heads", "all", "heads"], 1):
        for model in (kept, fresh):
            model.train(toy_dataset(4), None, 0.01 * epoch, epoch, layers)
        fresh.keras_model.compiled_steps = None
    assert len(kept.keras_model.compiled_steps) == 2
    for ours, expected in zip(kept.keras_model.get_weights(), fresh.keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_few_steps_are_kept(model):
    for number in range(compiled_steps.LARGEST_COUNT + 2):
        model.config.WEIGHT_DECAY = 0.1 + number
        step(model)
    assert len(model.keras_model.compiled_steps) == compiled_steps.LARGEST_COUNT


def test_the_graph_does_not_grow(model):
    """Keras' layers hold every graph that they are part of."""
    layer = model.keras_model.get_layer("fpn_p2")

    def size():
        return len(layer._inbound_nodes), len(model.keras_model.metrics)

    step(model)
    before = size()
    for number in range(4):
        step(model, layers="all" if number % 2 else "heads")
    assert size() == before


def test_a_first_step_that_fails_leaves_the_weights(tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.train_function = self.fail

        def fail(self, *args):
            raise KeyboardInterrupt

    model = build(tmp_path)
    before = model.keras_model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        model.train(toy_dataset(4), None, 0.01, 1, "heads", custom_callbacks=[Fail()])
    for array, expected in zip(model.keras_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, expected)

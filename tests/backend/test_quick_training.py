"""The quick train function trains as Keras' own, and only changes what it should."""

import keras
import numpy as np
import pytest
from tensor_tools import BACKEND, array

from mrcnn import backend

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends keep Keras' function")


def images(count, side, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, side, side, 1)).astype("float32")
    return x, x.mean((1, 2))


def network(quick):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(2, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((None, None, 1)), *layers])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    if quick:
        model.train_function = backend.quick_train_function(model)
    return model


def trained(quick, batches, epochs=2):
    """The losses and weights after training on batches."""
    model = network(quick)
    history = model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"], [array(weight) for weight in model.weights]


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.mark.parametrize(
    "sizes",
    [[(2, 8)] * 3, [(2, 8), (3, 8), (2, 8)], [(2, 8), (2, 11), (1, 9)]],
    ids=["one", "counts", "sides"],
)
def test_it_trains_as_keras_does(sizes):
    batches = Batches([images(*size, seed) for seed, size in enumerate(sizes)])
    (losses, weights), (expected_losses, expected) = trained(True, batches), trained(False, batches)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-6)


def test_it_takes_single_batches_from_a_program():
    model, other = network(True), network(False)
    assert float(model.train_on_batch(*images(2, 8))) == pytest.approx(
        float(other.train_on_batch(*images(2, 8)))
    )


@on_tensorflow
def test_it_traces_the_step_once_for_images_of_all_sizes():
    model, traces = network(False), []
    step = model.train_step

    def train_step(data):
        traces.append(data[0].shape.as_list())
        return step(data)

    model.train_step = train_step
    model.train_function = backend.quick_train_function(model)
    model.fit(Batches([images(2, side) for side in (8, 9, 10, 11)]), epochs=2, verbose=0)
    assert traces == [[2, None, None, 1]]


@on_tensorflow
def test_a_strategy_of_the_program_gets_the_function_of_keras():
    import tensorflow

    with tensorflow.distribute.OneDeviceStrategy("/cpu:0").scope():
        losses, _ = trained(True, Batches([images(2, 8)]))
    assert losses == pytest.approx(trained(False, Batches([images(2, 8)]))[0], rel=1e-5)


@on_tensorflow
def test_the_options_of_the_program_for_graphs_stay():
    import tensorflow

    optimizer = tensorflow.config.optimizer
    before = optimizer.get_experimental_options()
    model, seen = network(False), []

    def fail(data):
        seen.append(optimizer.get_experimental_options())
        raise ValueError("broken")

    model.train_step = fail
    model.train_function = backend.quick_train_function(model)
    optimizer.set_experimental_options({"remapping": True})
    try:
        with pytest.raises(ValueError, match="broken"):
            model.fit(Batches([images(2, 8)]), verbose=0)
        assert seen[0]["remapping"] is True and seen[0]["constant_folding"] is False
        assert "arithmetic_optimization" not in seen[0]
        assert optimizer.get_experimental_options() == {**before, "remapping": True}
    finally:
        optimizer.set_experimental_options({"remapping": before.get("remapping")})

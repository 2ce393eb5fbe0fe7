"""The operations on whole models, on the running backend: calls, gradients, several parts."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array, tensor

from mrcnn import backend
from mrcnn.backend import plain
from mrcnn.backend.devices import Parts
from mrcnn.network.normalization import BatchNorm


def model():
    """Two named inputs and outputs, a norm that follows the phase, and dropout with its own generator."""
    image = keras.Input((None, None, 3), name="image")
    scale = keras.Input((), name="scale", dtype="int32")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.Dropout(0.5, seed=1)(BatchNorm(name="norm")(x))
    total = ops.sum(x, axis=(1, 2, 3)) * ops.cast(scale, "float32")
    return keras.Model({"image": image, "scale": scale}, {"map": x, "total": total})


@pytest.fixture
def inputs():
    image = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    return {"image": image, "scale": np.array([1, 3], "int32")}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(array(found[name]), array(expected[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("open_shapes", [False, True])
def test_compiled(open_shapes, inputs):
    """Equal to the model without training, with its present weights, for arrays of any size."""
    network = model()
    run = backend.compiled(network, open_shapes)
    assert_equal(run(inputs), network(inputs, training=False))
    weights = [2.0 * value for value in network.get_weights()]
    network.set_weights(weights)
    assert_equal(run(inputs), network(inputs, training=False))
    other = {"image": inputs["image"][:1, :4], "scale": inputs["scale"][:1]}
    assert_equal(run(other), network(other, training=False))
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("training", [False, True])
def test_low_memory_forward(training, inputs):
    """The generator of dropout moves on, so each network calls once."""
    networks = [model(), model()]
    networks[1].set_weights(networks[0].get_weights())
    tensors = {name: tensor(x) for name, x in inputs.items()}
    found = backend.low_memory_forward(networks[0])(tensors, training=training)
    assert_equal(found, networks[1](tensors, training=training))
    moved = array(networks[0].get_layer("norm").moving_mean).any()
    assert moved == training


def test_vjp():
    x, y, unused = (tensor(np.array(value, "float32")) for value in ([1, 2, 3], [4, 5, 6], [7]))
    upstream = tensor(np.array([1, 0, -2], "float32"))
    found = backend.vjp(lambda x, y, unused: x * x * y, [x, y, unused], upstream)
    expected = [[8, 0, -72], [1, 0, -18], [0]]
    assert isinstance(found, list)
    for gradient, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(array(gradient), values)


class TestGradients:
    @staticmethod
    def loss_of(network):
        def loss(inputs):
            return ops.mean(ops.square(network(inputs, training=True)["map"]))

        return loss

    def test_differentiate(self, inputs):
        """Against finite differences."""
        image = keras.Input((3,), name="image")
        network = keras.Model({"image": image}, layers.Dense(2, name="dense")(image))
        values = {"image": inputs["image"][0, 0]}

        def loss(tensors):
            return ops.sum(ops.sin(network(tensors)))

        tensors = {"image": tensor(values["image"])}
        found = [array(x) for x in backend.differentiate(network, loss)(tensors)]
        kernel, bias = network.get_weights()
        slopes = np.cos(values["image"] @ kernel + bias)
        np.testing.assert_allclose(found[0], values["image"].T @ slopes, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], slopes.sum(0), rtol=1e-4, atol=1e-5)

    def test_of_variables_that_the_loss_does_not_depend_on(self):
        image = keras.Input((3,), name="image")
        used, unused = layers.Dense(1, name="used")(image), layers.Dense(1, name="unused")(image)
        network = keras.Model({"image": image}, [used, unused])
        loss = backend.loss_gradients(network, lambda inputs: ops.sum(network(inputs)[0]))
        *of_used, kernel, bias = loss({"image": np.ones((2, 3), "float32")})
        assert all(gradient.any() for gradient in of_used)
        assert all(gradient is None or not gradient.any() for gradient in (kernel, bias))

    def test_loss_gradients_change_nothing(self, inputs):
        network = model()
        before = [array(variable).copy() for variable in network.variables]
        run = backend.loss_gradients(network, self.loss_of(network))
        first, second = run(inputs), run(inputs)
        for one, other in zip(first, second, strict=True):
            assert isinstance(one, np.ndarray)
            np.testing.assert_array_equal(one, other)  # the same dropout
        for variable, value in zip(network.variables, before, strict=True):
            np.testing.assert_array_equal(array(variable), value, err_msg=variable.path)

    def test_state_is_restored_after_an_error(self, inputs):
        network = model()
        mean = network.get_layer("norm").moving_mean
        before = array(mean).copy()

        def loss(tensors):
            network(tensors, training=True)
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            backend.loss_gradients(network, loss)(inputs)
        np.testing.assert_array_equal(array(mean), before)


def test_free_gradients(inputs):
    network = model()
    variables = network.trainable_variables
    if BACKEND == "torch":
        ops.sum(network(inputs)["map"]).backward()
        assert any(variable.value.grad is not None for variable in variables)
    backend.free_gradients(variables)
    assert all(getattr(variable.value, "grad", None) is None for variable in variables)


def test_to_numpy():
    x = np.arange(6, dtype="float32").reshape(3, 2)
    for found in (backend.to_numpy(tensor(x)), backend.to_numpy(Parts((tensor(x[:1]), tensor(x[1:]))))):
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, x)


def test_eager_backends():
    assert backend.RUNS_EAGERLY is (BACKEND == "torch")


def test_every_operation_has_a_test():
    """By its name, in one of the files of this folder."""
    here = Path(__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    assert [name for name in plain.__all__ if f"backend.{name}" not in text] == []


def test_eager_execution_is_needed():
    """Programs for TensorFlow 1 get one clear sentence, and others nothing."""
    assert backend.require_eager_execution() is None
    if BACKEND == "tensorflow":
        import tensorflow as tf

        message = r"Remove disable_v2_behavior\(\), disable_eager_execution\(\)"
        with tf.Graph().as_default(), pytest.raises(RuntimeError, match=message):
            backend.require_eager_execution()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a warning of TensorFlow")
def test_compiling_often_is_not_retracing():
    """A program that moves a threshold a few times compiles anew each time, on purpose."""
    import logging

    import tensorflow as tf

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    tf.get_logger().addHandler(handler)
    x = keras.Input((2,), name="x")
    model = keras.Model({"x": x}, {"y": layers.Dense(1)(x)})
    try:
        for _ in range(12):
            backend.compiled(model)({"x": np.ones((1, 2), "float32")})
    finally:
        tf.get_logger().removeHandler(handler)
    assert [record.getMessage() for record in records] == []

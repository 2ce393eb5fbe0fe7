"""A functional model as the calls of its layers: their order, replacing them, running them one by one."""

import contextlib
import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array, tensor

from mrcnn.backend import layer_graph
from mrcnn.network.normalization import BatchNorm

# Tensors of an eager call can be released.
eager = pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow holds tensors in caches of its own")


class Witness(layers.Layer):
    """Identity. Records which outputs of earlier witnesses are still alive when it is called."""

    def __init__(self, earlier, **kwargs):
        super().__init__(**kwargs)
        self.earlier = lambda: earlier  # Keras would copy a list

    def call(self, inputs):
        earlier = self.earlier()
        self.alive = [name for name, reference in earlier if reference() is not None]
        outputs = inputs + 0.0
        earlier.append((self.name, weakref.ref(outputs)))
        return outputs


def network(witnesses):
    """A chain whose second tensor is read again at the end, as in a feature pyramid."""
    image = keras.Input((4,), name="image")
    scale = keras.Input((), name="scale", dtype="int32")
    a = Witness(witnesses, name="a")(layers.Dense(4, name="one")(image))
    b = Witness(witnesses, name="b")(BatchNorm(name="norm")(a))
    c = Witness(witnesses, name="c")(layers.Dense(4, name="two")(b))
    d = Witness(witnesses, name="d")(layers.Add()([c, layers.Dropout(0.5, seed=1)(c)]))
    e = Witness(witnesses, name="e")(layers.Concatenate()([d, b]))
    return keras.Model(
        {"image": image, "scale": scale}, {"c": c, "out": e * ops.cast(scale, "float32")[:, None]}
    )


@pytest.fixture
def inputs():
    image = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return {"image": tensor(image), "scale": tensor(np.array([1, 2, 3], np.int32))}


def test_eager_run_equals_the_model(inputs):
    model = network([])
    found, expected = layer_graph.EagerRun(model)(inputs, training=False), model(inputs, training=False)
    assert set(found) == {"c", "out"}
    for name in expected:
        np.testing.assert_allclose(array(found[name]), array(expected[name]), rtol=1e-6)


def test_eager_run_passes_training_to_the_layers(inputs):
    run = layer_graph.EagerRun(network([]))
    inference = [array(run(inputs, training=False)["out"]) for _ in range(2)]
    np.testing.assert_array_equal(*inference)
    assert np.abs(array(run(inputs, training=True)["out"]) - inference[0]).max() > 1e-3


def without_gradients():
    """A context in which no tensor is held for a gradient."""
    if BACKEND != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


@eager
def test_eager_run_releases_each_tensor_after_its_last_use(inputs):
    witnesses = []
    model = network(witnesses)
    witnesses.clear()
    gc.collect()
    gc.disable()
    try:
        with without_gradients():
            layer_graph.EagerRun(model)(inputs, training=False)
    finally:
        gc.enable()
    alive = {name: model.get_layer(name).alive for name in "abcde"}
    # b is read again before e; c is an output
    assert alive == {"a": [], "b": [], "c": ["b"], "d": ["b", "c"], "e": ["c"]}


def test_calls_and_count_uses():
    model = network([])
    ordered = layer_graph.calls(model)
    computed = set()
    for call in ordered:
        assert {id(x) for x in call.input_tensors} <= computed
        computed |= {id(x) for x in call.outputs}
    assert len(ordered) == len({id(call) for call in ordered})
    uses = layer_graph.count_uses(model, ordered)
    b, c = (model.get_layer(name).output for name in "bc")
    assert uses[id(b)] == 2
    assert uses[id(c)] == 3  # as an output, too


class TestReplaceLayers:
    @pytest.fixture
    def model(self):
        image = keras.Input((4,), name="image")
        x = layers.Dense(4, name="one")(image)
        x = layers.ReLU(name="relu")(x)
        y = layers.Dense(4, name="two")(x)
        return keras.Model({"image": image}, {"x": x, "sum": layers.Add(name="sum")([x, y])})

    def test_replaced_and_shared_layers(self, model, inputs):
        replaced = layer_graph.replace_layers(model, {"two": layers.Lambda(lambda x: -x, name="minus")})
        one = model.get_layer("one")
        assert replaced.get_layer("one") is one
        assert "two" not in {layer.name for layer in replaced.layers}
        outputs = replaced({"image": inputs["image"]})
        expected = np.maximum(array(one(inputs["image"])), 0)
        assert set(outputs) == {"x", "sum"}
        np.testing.assert_allclose(array(outputs["x"]), expected, rtol=1e-6)
        np.testing.assert_allclose(array(outputs["sum"]), 0.0, atol=1e-6)

    def test_removed_layers(self, model, inputs):
        removed = layer_graph.replace_layers(model, {}, removed=[model.get_layer("relu")])
        outputs = array(removed({"image": inputs["image"]})["x"])
        np.testing.assert_allclose(outputs, array(model.get_layer("one")(inputs["image"])), rtol=1e-6)
        assert (outputs < 0).any()

    def test_the_model_itself_does_not_change(self, model, inputs):
        before = array(model({"image": inputs["image"]})["sum"])
        names = [layer.name for layer in model.layers]
        layer_graph.replace_layers(model, {"two": layers.Dense(4, name="other")}, [model.get_layer("relu")])
        assert [layer.name for layer in model.layers] == names
        np.testing.assert_array_equal(array(model({"image": inputs["image"]})["sum"]), before)

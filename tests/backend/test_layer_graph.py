"""Calling a functional model layer by layer: its numbers, and no tensor held after its last use."""

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

# Where layers run when they are called.
eager = pytest.mark.skipif(BACKEND == "tensorflow", reason="its tensors are held by its own caches")


class Witness(layers.Layer):
    """Hands on its input and looks which inputs of earlier witnesses are still there."""

    def __init__(self, seen, **kwargs):
        super().__init__(**kwargs)
        self.earlier = lambda: seen  # Keras would take a copy of a list

    def call(self, inputs):
        seen = self.earlier()
        self.alive = [name for name, reference in seen if reference() is not None]
        outputs = inputs + 0.0
        seen.append((self.name, weakref.ref(outputs)))
        return outputs


def network(seen):
    """A trunk whose second tensor is needed again at the end, as those of a feature pyramid are."""
    image = keras.Input((4,), name="image")
    scale = keras.Input((), name="scale", dtype="int32")
    a = Witness(seen, name="a")(layers.Dense(4, name="one")(image))
    b = Witness(seen, name="b")(BatchNorm(name="norm")(a))
    c = Witness(seen, name="c")(layers.Dense(4, name="two")(b))
    d = Witness(seen, name="d")(layers.Add()([c, layers.Dropout(0.5, seed=1)(c)]))
    e = Witness(seen, name="e")(layers.Concatenate()([d, b]))
    return keras.Model(
        {"image": image, "scale": scale}, {"c": c, "out": e * ops.cast(scale, "float32")[:, None]}
    )


@pytest.fixture
def inputs():
    image = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return {"image": tensor(image), "scale": tensor(np.array([1, 2, 3], np.int32))}


def test_equals_the_model(inputs):
    model = network([])
    found, expected = layer_graph.EagerRun(model)(inputs, training=False), model(inputs, training=False)
    assert set(found) == {"c", "out"}
    for name in expected:
        np.testing.assert_allclose(array(found[name]), array(expected[name]), rtol=1e-6)


def test_training_reaches_the_layers(inputs):
    run = layer_graph.EagerRun(network([]))
    still = [array(run(inputs, training=False)["out"]) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert np.abs(array(run(inputs, training=True)["out"]) - still[0]).max() > 1e-3


def without_gradients():
    """A context in which no tensor is kept for a gradient."""
    if BACKEND != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


@eager
def test_lets_go(inputs):
    seen = []
    model = network(seen)
    seen.clear()
    gc.collect()
    gc.disable()
    try:
        with without_gradients():
            layer_graph.EagerRun(model)(inputs, training=False)
    finally:
        gc.enable()
    alive = {name: model.get_layer(name).alive for name in "abcde"}
    # b is read once more before e, c is an output
    assert alive == {"a": [], "b": [], "c": ["b"], "d": ["b", "c"], "e": ["c"]}


def test_order_and_uses():
    model = network([])
    ordered = layer_graph.calls(model)
    made = set()
    for call in ordered:
        assert {id(x) for x in call.input_tensors} <= made
        made |= {id(x) for x in call.outputs}
    assert len(ordered) == len({id(call) for call in ordered})
    counted = layer_graph.uses(model, ordered)
    b, c = (model.get_layer(name).output for name in "bc")
    assert counted[id(b)] == 2
    assert counted[id(c)] == 3  # as an output besides

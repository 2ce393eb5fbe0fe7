"""ReLUs and sums that overwrite their input: which layers may, and that no result changes."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import BACKEND, array, tensor

from mrcnn import backend, fast
from mrcnn.fast import inplace_relu
from mrcnn.network.convolution import Conv2D

MAY_OVERWRITE = {"behind_conv", "behind_add", "into_the_second"}


@pytest.fixture(scope="module")
def model():
    """ReLUs and sums that may overwrite an input, and those that may not, by name."""
    image = keras.Input((6, 6, 3), name="image")
    x = Conv2D(4, 3, name="conv")(image)
    x = layers.ReLU(name="behind_conv")(x)
    y = Conv2D(4, 1, name="output")(x)
    z = layers.ReLU(name="input_is_an_output")(y)
    z = layers.ReLU(max_value=6.0, name="limited")(Conv2D(4, 1)(z))
    w = layers.ReLU(name="input_is_read_twice")(z)
    w = layers.Add()([z, w])
    w = layers.ReLU(name="behind_add")(w)
    fresh = Conv2D(4, 1)(w)
    u = layers.Add(name="into_the_second")([w, fresh])
    u = layers.Add(name="of_three")([u, Conv2D(4, 1)(u), Conv2D(4, 1)(u)])
    u = layers.Add(name="broadcast")([Conv2D(1, 1)(u), u])
    twice = Conv2D(4, 1)(u)
    u = layers.Add(name="of_itself")([twice, twice])
    v = layers.ReLU(name="behind_a_view")(layers.Reshape((-1,))(u))
    return keras.Model({"image": image}, {"y": y, "v": v})


def test_which_layers_overwrite_an_input(model, monkeypatch):
    monkeypatch.setattr(backend, "RUNS_EAGERLY", True)
    found = inplace_relu.replacements(model)
    assert set(found) == MAY_OVERWRITE
    assert found["into_the_second"].target == 1


def test_compiled_backends_need_none(model, monkeypatch):
    monkeypatch.setattr(backend, "RUNS_EAGERLY", False)
    assert inplace_relu.replacements(model) == {}


@pytest.mark.skipif(BACKEND != "torch", reason="other backends do not run layer by layer")
def test_results_and_inputs_do_not_change(model):
    import torch

    inputs = {"image": tensor(np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32))}
    before = array(inputs["image"]).copy()
    faster, refresh = fast.for_inference(model)
    kinds = {layer.name: type(layer) for layer in faster.layers}
    assert {kinds[name] for name in MAY_OVERWRITE} == {inplace_relu.InPlaceReLU, inplace_relu.InPlaceAdd}
    refresh()
    with torch.inference_mode():
        found, expected = (net(inputs, training=False) for net in (faster, model))
    for name in expected:
        np.testing.assert_array_equal(array(found[name]), array(expected[name]))
    np.testing.assert_array_equal(array(inputs["image"]), before)


@pytest.mark.skipif(BACKEND != "torch", reason="other backends do not run layer by layer")
def test_the_result_has_the_memory_of_the_input():
    x, y = (tensor(np.array([-1.0, 2.0], "float32")) for _ in range(2))
    memory = x.data_ptr()
    assert inplace_relu.InPlaceReLU()(x).data_ptr() == memory
    assert inplace_relu.InPlaceAdd(1)([y, x]).data_ptr() == memory
    np.testing.assert_array_equal(array(x), [-1, 4])

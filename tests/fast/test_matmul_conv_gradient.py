"""Convolutions with gradients as matrix products, in training: the gradients of Keras' convolutions."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import array, call, gradients, skipping_missing_gradients, tensor

from mrcnn import backend, fast
from mrcnn.backend import layer_graph
from mrcnn.fast import matmul_conv_gradient
from mrcnn.network import convolution
from mrcnn.network.normalization import BatchNorm
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D

MAPS = (2, 6, 9, 4)  # images, rows, columns, channels


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.fixture
def calls(monkeypatch):
    """Let the matrix products pay everywhere. Returns the kernel shapes of their calls."""
    shapes = []
    conv2d_matmul_grad = backend.conv2d_matmul_grad

    def counted(inputs, kernel, bias):
        shapes.append(tuple(kernel.shape))
        return conv2d_matmul_grad(inputs, kernel, bias)

    monkeypatch.setattr(backend, "conv2d_matmul_grad", counted)
    monkeypatch.setattr(backend, "matmul_gradient_pays", lambda inputs, kernel_size: True)
    return shapes


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def weight_gradients(model, network, inputs):
    """Gradients of a loss of `network` with respect to the weights of `model`."""

    def loss(values):
        return ops.mean(ops.sum(ops.sin(network(values["image"], training=True)), axis=(1, 2, 3)))

    return backend.loss_gradients(model, loss)({"image": inputs})


def with_stand_ins(model):
    return layer_graph.replace_layers(model, matmul_conv_gradient.training_stand_ins(model, {}))


def model_of(kind, options):
    """A convolution with these options and one behind it. Weights of equal shape are equal."""
    image = keras.Input(MAPS[1:], name="image")
    outputs = kind(2, 1, name="second")(kind(6, name="first", **options)(image))
    model = keras.Model(image, outputs)
    model.set_weights([random(4 + i, *weights.shape) for i, weights in enumerate(model.get_weights())])
    return model


@pytest.mark.parametrize(
    ("options", "by_matmul"),
    [
        ({"kernel_size": 3, "padding": "same", "activation": "relu"}, True),
        ({"kernel_size": (3, 5), "padding": "same", "use_bias": False}, True),
        ({"kernel_size": 1, "strides": 2}, True),
        ({"kernel_size": 1, "strides": 2, "padding": "same"}, True),
        ({"kernel_size": 3, "strides": 2, "padding": "same"}, False),
        ({"kernel_size": 3}, False),
        ({"kernel_size": 2, "padding": "same"}, False),
        ({"kernel_size": 3, "padding": "same", "dilation_rate": 2}, False),
        ({"kernel_size": 3, "padding": "same", "groups": 2}, False),
    ],
    ids=str,
)
def test_gradients_equal_those_of_keras(options, by_matmul, calls):
    inputs, ours, theirs = random(0, *MAPS), *(model_of(m.Conv2D, options) for m in (convolution, layers))
    with skipping_missing_gradients():
        found = weight_gradients(ours, with_stand_ins(ours), inputs)
    assert_close(found, weight_gradients(theirs, theirs, inputs))
    size = options["kernel_size"]
    kernel = (*(size if isinstance(size, tuple) else (size, size)), MAPS[-1], 6)
    assert set(calls) == {(1, 1, 6, 2)} | ({kernel} if by_matmul else set())


def test_pointwise_kernels_with_unequal_strides(calls):
    """Not against Keras' layer, whose gradient is wrong on PyTorch (see `mrcnn.backend.torch.conv2d`)."""
    inputs, kernel, bias = random(0, *MAPS), random(1, 1, 1, MAPS[-1], 6), random(2, 6)
    image = keras.Input(MAPS[1:], name="image")
    model = keras.Model(image, convolution.Conv2D(6, 1, strides=(2, 1), name="first")(image))
    model.set_weights([kernel, bias])
    network = with_stand_ins(model)
    outputs = inputs[:, ::2] @ kernel[0, 0] + bias
    np.testing.assert_allclose(array(network(tensor(inputs))), outputs, atol=1e-5)
    slopes = np.cos(outputs) / len(inputs)
    of_kernel = np.einsum("bhwc,bhwf->cf", inputs[:, ::2], slopes)
    assert_close(weight_gradients(model, network, inputs), [of_kernel[None, None], slopes.sum((0, 1, 2))])
    assert calls


@pytest.mark.parametrize("padding", ["same", "valid", ((1, 0), (0, 2))], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_equals_the_convolution_of_the_backend(size, padding, calls):
    inputs, kernel, bias = random(0, *MAPS), random(1, size, size, MAPS[-1], 5), random(2, 5)
    ours, theirs = (
        lambda *x, conv2d=conv2d: conv2d(*x, padding=padding)
        for conv2d in (matmul_conv_gradient.conv2d, backend.conv2d)
    )
    expected = call(theirs, inputs, kernel, bias)
    np.testing.assert_allclose(call(ours, inputs, kernel, bias), expected, rtol=1e-5, atol=1e-5)
    assert_close(
        *(gradients(lambda *x, f=f: ops.sum(ops.sin(f(*x))), inputs, kernel, bias) for f in (ours, theirs))
    )


def test_half_precision_uses_the_convolution_of_the_backend(calls):
    inputs, kernel = (ops.cast(tensor(x), "bfloat16") for x in (random(0, *MAPS), random(1, 3, 3, 4, 5)))
    outputs = matmul_conv_gradient.conv2d(inputs, kernel)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert not calls


def test_only_the_training_network_uses_them(calls):
    rois = keras.Input((3, 6, 6, 4), name="image")
    x = RoiConv2D(4, 3, name="conv")(rois)
    model = keras.Model(rois, BatchNorm(train_bn=False, name="norm")(x))
    inputs = tensor(random(0, 2, 3, 6, 6, 4))
    expected = array(model(inputs, training=False))
    inference, refresh = fast.for_inference(model)
    refresh()
    inference(inputs, training=False)
    model(inputs, training=True)
    assert not calls
    training = fast.for_training(model, sampled_locations=10)
    np.testing.assert_allclose(array(training(inputs, training=True)), expected, rtol=1e-5, atol=1e-5)
    assert set(calls) == {(3, 3, 4, 4)}

"""Convolutions for training: outputs and gradients of the backend's own convolution."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, call, gradients, run, tensor

from mrcnn.backend import cpu
from mrcnn.fast import fold_batch_norm, matmul_gradient
from mrcnn.network import convolution, heads
from mrcnn.network.normalization import BatchNorm

MAPS = (2, 6, 9, 4)  # images, rows, columns, channels


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.fixture
def every_size(monkeypatch):
    """Layers take these gradients on maps of any size and on any processor."""
    monkeypatch.setattr(matmul_gradient, "FEWEST_CELLS", 1)
    monkeypatch.setattr(cpu, "has_avx2_at_most", lambda: True)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (3, 1), (1, 5), (7, 3)], ids=str)
def test_equals_the_backends_convolution(window):
    inputs, kernel, bias = random(0, *MAPS), random(1, *window, MAPS[-1], 5), random(2, 5)
    pulled = tensor(random(3, *MAPS[:-1], 5))

    def expected(inputs, kernel, bias):
        return ops.add(ops.conv(inputs, kernel, padding="same", data_format="channels_last"), bias)

    ours = matmul_gradient.convolution
    assert_close([call(ours, inputs, kernel, bias)], [call(expected, inputs, kernel, bias)])
    assert_close(
        *(
            gradients(lambda *given, f=f: ops.sum(ops.sin(f(*given)) * pulled), inputs, kernel, bias)
            for f in (ours, expected)
        )
    )


def test_without_bias_and_for_the_kernel_alone():
    inputs, kernel = random(0, *MAPS), random(1, 3, 3, MAPS[-1], 5)

    def loss(function):
        return lambda kernel: ops.sum(ops.sin(function(tensor(inputs), kernel)))

    def plain(inputs, kernel):
        return ops.conv(inputs, kernel, padding="same", data_format="channels_last")

    ours = gradients(loss(lambda inputs, kernel: matmul_gradient.convolution(inputs, kernel, None)), kernel)
    assert_close(ours, gradients(loss(plain), kernel))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": "same", "activation": "relu"},
        {"kernel_size": 3, "padding": "same", "use_bias": False},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": 1, "strides": 2, "padding": "same"},
        {"kernel_size": 3, "strides": 2, "padding": "same"},
        {"kernel_size": 3},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
        {"kernel_size": 3, "padding": "same", "groups": 2},
    ],
    ids=str,
)
def test_layers_train_as_those_of_keras(options, every_size):
    inputs, steps = random(0, *MAPS), []
    for kind in (convolution.Conv2D, layers.Conv2D):
        model = keras.Sequential([keras.Input(MAPS[1:]), kind(6, name="first", **options), kind(2, 1)])
        model.set_weights([random(4 + i, *weights.shape) for i, weights in enumerate(model.get_weights())])
        steps.append(step_of(model, inputs))
    assert_close(*steps)


def test_one_cell_with_uneven_strides():
    """Not against Keras' layer: on PyTorch its gradient is wrong, see `torch_kernels.conv2d`."""
    inputs, layer = random(0, *MAPS), convolution.Conv2D(6, 1, strides=(2, 1), name="first")
    model = keras.Sequential([keras.Input(MAPS[1:]), layer])
    model.set_weights([random(1, 1, 1, MAPS[-1], 6), random(2, 6)])
    outputs = run(model, inputs)
    np.testing.assert_allclose(
        outputs, inputs[:, ::2] @ model.get_weights()[0][0, 0] + random(2, 6), atol=1e-5
    )
    of_kernel = -np.einsum("bhwc,bhwf->cf", inputs[:, ::2], np.cos(outputs)) / len(inputs)
    assert_close(
        step_of(model, inputs), [of_kernel[None, None], -np.cos(outputs).sum((0, 1, 2)) / len(inputs)]
    )


def step_of(model, inputs):
    """What one step of training adds to each weight."""
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, said: ops.sum(ops.sin(said), axis=(1, 2, 3)))
    model.train_on_batch(inputs, np.zeros((len(inputs), 1), "float32"))
    return [after - start for after, start in zip(model.get_weights(), before, strict=True)]


def test_only_training_takes_them(every_size, monkeypatch):
    taken = []
    ours = matmul_gradient.convolution
    monkeypatch.setattr(
        matmul_gradient, "convolution", lambda *given: taken.append(given[1].shape) or ours(*given)
    )
    rois = keras.Input((3, 6, 6, 4))
    x = heads.RoiConv2D(4, 3, name="conv")(rois)
    x = BatchNorm(train_bn=False)(x)
    model = keras.Model(rois, x)
    folded, inputs = fold_batch_norm.folded_at_each_call(model), tensor(random(0, 2, 3, 6, 6, 4))
    for network in (model, folded):
        network(inputs, training=False)
        network(inputs)
        assert not taken
    folded(inputs, training=True)
    assert [tuple(shape) for shape in taken] == [(3, 3, 4, 4)]


@pytest.mark.parametrize(
    ("why_not", "shape", "dtype", "window"),
    [
        ("the backends' own know bfloat16", (1, 64, 64, 4), "bfloat16", (3, 3)),
        ("no centre", (1, 64, 64, 4), "float32", (2, 3)),
    ],
)
def test_where_it_does_not_pay(why_not, shape, dtype, window):
    assert not matmul_gradient.pays(ops.zeros(shape, dtype), window), why_not


def test_where_it_pays(monkeypatch):
    large, small = ops.zeros((1, 64, 64, 4)), ops.zeros((1, 8, 8, 4))
    for slow in (True, False):
        monkeypatch.setattr(cpu, "has_avx2_at_most", lambda slow=slow: slow)
        expected = {"tensorflow": (slow, False, False), "torch": (slow, slow, False), "jax": (True,) * 3}
        found = [matmul_gradient.pays(*case) for case in ((large, (3, 3)), (small, (3, 3)), (large, (1, 1)))]
        assert tuple(found) == expected[BACKEND]
    sides_unknown = keras.KerasTensor((None, None, None, 4))
    monkeypatch.setattr(cpu, "is_on_cpu", lambda inputs: True)
    assert matmul_gradient.pays(sides_unknown, (3, 3)) == (BACKEND == "jax")


def test_on_this_machine():
    assert isinstance(cpu.has_avx2_at_most(), bool)
    assert cpu.is_on_cpu(ops.zeros(1)) in (True, False)
    assert run(convolution.Conv2D(2, 3, padding="same"), random(0, *MAPS), training=True).shape[-1] == 2

"""Convolutions and what PyTorch computes in its own way: the numbers of Keras' layers and of plain sums."""

import keras
import numpy as np
import pytest
from keras import layers
from tensor_tools import BACKEND, array, call, run, tensor

from mrcnn.backend import torch_ops
from mrcnn.fast import fold_batch_norm, inplace_relu
from mrcnn.network import convolution, heads, roi_align

on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own operators")

OPTIONS = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": (2, 3), "padding": "valid", "strides": (1, 2)},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
    {"kernel_size": 1, "strides": 2, "activation": "relu"},
    {"kernel_size": 3, "padding": "same", "use_bias": False, "activation": "sigmoid"},
]


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sides", [(8, 10), (7, 9)], ids=str)
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_equals_keras(kind, sides, options):
    size = {"filters": 6} if kind == "Conv2D" else {"depth_multiplier": 2}
    if kind == "DepthwiseConv2D" and options.get("strides", 1) == (1, 2):
        pytest.skip("Keras knows no such depthwise convolution")
    inputs = features(2, *sides, 4)
    ours, keras_ = getattr(convolution, kind)(**size, **options), getattr(layers, kind)(**size, **options)
    for layer in (ours, keras_):
        layer.build(inputs.shape)
    for mine, weight in zip(ours.weights, keras_.weights, strict=True):
        weight.assign(features(*weight.shape))
        mine.assign(weight.value)
    np.testing.assert_allclose(run(ours, inputs), run(keras_, inputs), rtol=1e-5, atol=1e-5)


def test_groups():
    inputs, layer = features(1, 5, 5, 4), convolution.Conv2D(6, 3, groups=2, padding="same")
    layer.build(inputs.shape)
    halves = [
        convolution.convolve(
            inputs[..., 2 * i : 2 * i + 2],
            layer.kernel[..., 3 * i : 3 * i + 3],
            layer.bias[3 * i : 3 * i + 3],
        )
        for i in range(2)
    ]
    expected = np.concatenate([array(x) for x in halves], axis=-1)
    np.testing.assert_allclose(run(layer, inputs), expected, rtol=1e-5, atol=1e-5)


def test_layout_changes_no_number():
    model = keras.Sequential([keras.Input((6, 6, 3)), convolution.Conv2D(4, 3), convolution.Conv2D(2, 3)])
    inputs = tensor(features(1, 6, 6, 3))
    before, weights = array(model(inputs)), model.get_weights()
    convolution.lay_out(model)
    np.testing.assert_array_equal(array(model(inputs)), before)
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    kernel = features(3, 3, 3, 4)
    model.layers[0].kernel.assign(kernel)
    np.testing.assert_array_equal(array(model.layers[0].kernel), kernel)


@on_torch
def test_layout_spares_copies():
    import torch

    layer = convolution.Conv2D(4, 3)
    layer.build((None, 6, 6, 3))
    convolution.lay_out(keras.Sequential([keras.Input((6, 6, 3)), layer]))
    assert layer.kernel.value.permute(3, 2, 0, 1).is_contiguous(memory_format=torch.channels_last)


@on_torch
def test_kernels_of_matrix_products_stay_as_they_are():
    rois = keras.Input((3, 7, 7, 4))
    x = heads.RoiConv2D(5, 7, padding="valid")(heads.RoiConv2D(4, 3)(rois))
    model = keras.Model(rois, heads.RoiConv2DTranspose(2)(heads.RoiConv2D(5, 1)(x)))
    convolution.lay_out(model)
    stayed = [layer.kernel.value.is_contiguous() for layer in model.layers[1:]]
    assert stayed == [False, True, True, True]  # of the 3x3 convolution, and of the products


@on_torch
def test_features_are_not_copied():
    import torch

    layer = convolution.Conv2D(4, 3, padding="same")
    outputs = layer(tensor(features(1, 8, 8, 3)))
    assert outputs.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)
    assert outputs.is_contiguous()


@on_torch
def test_weighted_rows():
    rng = np.random.default_rng(0)
    table, index = features(9, 5), rng.integers(0, 9, (2, 3, 4))
    weight = rng.uniform(size=index.shape).astype(np.float32)
    expected = (table[index] * weight[..., None]).sum(-2)
    np.testing.assert_allclose(call(torch_ops.weighted_rows, table, index, weight), expected, rtol=1e-5)


@on_torch
def test_gradient_of_roi_align():
    """PyTorch's sum of weighted rows has the gradient of the plain interpolation."""
    import torch

    maps = [tensor(features(2, side, side, 3)).requires_grad_() for side in (16, 8, 4, 2)]
    boxes = tensor(np.random.default_rng(1).uniform(0, 0.5, (2, 5, 4)).astype(np.float32))
    boxes = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:] + 0.05], dim=-1)
    pulled = tensor(features(2, 5, 3, 3, 3))
    area = torch.tensor(64.0 * 64)
    outputs = roi_align.pyramid_roi_align(boxes, area, maps, (3, 3))
    found = torch.autograd.grad((outputs * pulled).sum(), maps)
    with torch.no_grad():  # the result is linear in the maps: a step along the gradient says its length
        step = 1e-2
        moved = [x + step * slope for x, slope in zip(maps, found, strict=True)]
        change = ((roi_align.pyramid_roi_align(boxes, area, moved, (3, 3)) - outputs) * pulled).sum()
    squared = sum((slope**2).sum() for slope in found)
    assert float(squared) > 1
    np.testing.assert_allclose(float(change), step * float(squared), rtol=1e-4)


def eager_layers():
    """ReLUs and sums that may overwrite an input, and those that may not, by name."""
    image = keras.Input((6, 6, 3), name="image")
    x = convolution.Conv2D(4, 3, name="conv")(image)
    x = layers.ReLU(name="behind_conv")(x)
    y = convolution.Conv2D(4, 1, name="output")(x)
    z = layers.ReLU(name="input_is_an_output")(y)
    z = layers.ReLU(max_value=6.0, name="limited")(convolution.Conv2D(4, 1)(z))
    w = layers.ReLU(name="input_is_read_twice")(z)
    w = layers.Add()([z, w])
    w = layers.ReLU(name="behind_add")(w)
    fresh = convolution.Conv2D(4, 1)(w)
    u = layers.Add(name="into_the_second")([w, fresh])
    u = layers.Add(name="of_three")([u, convolution.Conv2D(4, 1)(u), convolution.Conv2D(4, 1)(u)])
    u = layers.Add(name="spread")([convolution.Conv2D(1, 1)(u), u])
    twice = convolution.Conv2D(4, 1)(u)
    u = layers.Add(name="of_itself")([twice, twice])
    v = layers.ReLU(name="behind_a_view")(layers.Reshape((-1,))(u))
    return keras.Model({"image": image}, {"y": y, "v": v})


def test_which_layers_overwrite_an_input():
    found = inplace_relu.replacements(eager_layers())
    assert set(found) == {"behind_conv", "behind_add", "into_the_second"}
    assert found["into_the_second"].into == 1


@on_torch
def test_overwriting_changes_no_result():
    import torch

    model = eager_layers()
    inputs = {"image": tensor(features(2, 6, 6, 3))}
    folded = fold_batch_norm.FoldedNetwork(model, inplace_relu.replacements(model))
    folded.refresh()
    with torch.inference_mode():
        before = array(inputs["image"])
        found, expected = (x(inputs, training=False) for x in (folded.model, model))
    for name in expected:
        np.testing.assert_array_equal(array(found[name]), array(expected[name]))
    np.testing.assert_array_equal(array(inputs["image"]), before)

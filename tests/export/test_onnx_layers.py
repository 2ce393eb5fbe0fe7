"""Each Keras layer as an ONNX operator gives the numbers of Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.backend import to_numpy
from mrcnn.export.onnx_graph import GraphBuilder
from mrcnn.export.onnx_layers import LayerWriter
from mrcnn.network.convolution import Conv2D, DepthwiseConv2D, MaxPooling2D
from mrcnn.network.normalization import BatchNorm, GroupNorm
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.network.roi_convolution import Conv2DTranspose as RoiConv2DTranspose

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape) * (-1.0 if "bias" in weight.path else 0.3))


def run_onnx(outputs, inputs, image, of_rois=False):
    """The values of symbolic tensors, computed by ONNX Runtime from `image` in the layout of the graph."""
    builder = GraphBuilder()
    names = LayerWriter(builder).write(outputs, {id(inputs): "x"}, of_rois)
    shapes = [f"axis_{number}" for number in range(image.ndim)]
    results = {f"y{i}": (name, "float32", [f"{i}_{j}" for j in range(6)]) for i, name in enumerate(names)}
    model = builder.model({"x": ("float32", shapes)}, results, {}, "test")
    for output in model.graph.output:  # ranks are left to the runtime
        output.type.tensor_type.ClearField("shape")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})


def check(function, shape, channels_last=True):
    """Compare a function of a feature map in Keras and in ONNX Runtime."""
    x = keras.Input(shape[1:])
    y = function(x)
    model = keras.Model(x, y)
    randomize(model)
    image = np.random.default_rng(1).normal(size=shape).astype("float32")
    expected = to_numpy(model(image, training=False))
    (found,) = run_onnx([y], x, image.transpose(0, 3, 1, 2))
    if channels_last and found.ndim == 4:
        found = found.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


LAYERS = {
    "convolution": lambda x: Conv2D(5, 3, padding="same", activation="relu")(x),
    "strides": lambda x: Conv2D(5, 3, strides=2, padding="same")(x),
    "odd strides": lambda x: layers.Conv2D(5, 5, strides=3, padding="same")(x),
    "strides beyond the kernel": lambda x: Conv2D(5, 2, strides=3, padding="same")(x),
    "pooling beyond the window": lambda x: layers.MaxPooling2D(2, strides=3, padding="same")(x - 9.0),
    "1x1 with a stride": lambda x: Conv2D(5, 1, strides=2, padding="same")(x),
    "symmetric": lambda x: Conv2D(5, 3, strides=2, padding="same", symmetric=True)(x),
    "dilation": lambda x: layers.Conv2D(5, 3, dilation_rate=2, padding="same", activation="silu")(x),
    "groups": lambda x: layers.Conv2D(6, 3, groups=2, use_bias=False)(x),
    "depthwise": lambda x: DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x),
    "folded": lambda x: BatchNorm()(Conv2D(5, 3, use_bias=False)(x)),
    "folded depthwise": lambda x: BatchNorm()(DepthwiseConv2D(3, depth_multiplier=2)(x)),
    "norm of an input": lambda x: layers.BatchNormalization(scale=False)(x),
    "norm after activation": lambda x: BatchNorm()(Conv2D(5, 1, activation="tanh")(x)),
    "group norm": lambda x: GroupNorm()(x),
    "max pooling": lambda x: MaxPooling2D(3, strides=2, padding="same")(x),
    "average pooling": lambda x: layers.AveragePooling2D(2)(x),
    "padding": lambda x: layers.ZeroPadding2D(((1, 2), (3, 0)))(x),
    "upsampling": lambda x: layers.UpSampling2D(2)(x),
    "relu6": lambda x: layers.ReLU(6.0)(x * 4.0),
    "sum": lambda x: layers.Add()([x, x, x]) - 1.0,
    "product": lambda x: layers.Multiply()([x, x / 3.0]),
    "concatenation": lambda x: layers.Concatenate()([x, layers.Activation("sigmoid")(x)]),
    "concatenated rows": lambda x: layers.Concatenate(axis=1)([x, x]),
    "reshape": lambda x: layers.Softmax()(layers.Reshape((-1, 2))(x)),
    "dropout": lambda x: layers.Dropout(0.5)(layers.Identity()(x)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    check(LAYERS[name], (2, 7, 10, 4))


def test_a_norm_that_others_read_around_is_not_folded():
    def function(x):
        y = Conv2D(4, 1)(x)
        return layers.Add()([BatchNorm()(y), y])

    check(function, (1, 4, 4, 4))


def test_one_model_called_twice_has_its_weights_once():
    inner_input = keras.Input((None, None, 4))
    inner = keras.Model(inner_input, Conv2D(4, 3, padding="same")(inner_input))
    check(lambda x: layers.Add()([inner(x), inner(inner(x))]), (1, 5, 5, 4))
    x = keras.Input((5, 5, 4))
    builder = GraphBuilder()
    LayerWriter(builder).write([inner(inner(x))], {id(x): "x"})
    model = builder.model({}, {}, {}, "test")
    assert len(model.graph.node) == 2
    assert len(model.graph.initializer) == 2


def test_layers_of_rois():
    x = keras.Input((3, 4, 4, 6))
    y = RoiConv2D(8, 3)(x)
    y = layers.ReLU()(BatchNorm()(y))
    masks = RoiConv2DTranspose(5, activation="relu")(y)
    y = BatchNorm()(RoiConv2D(7, 4, padding="valid")(y))
    y = layers.Reshape((-1, 7))(RoiConv2D(7, 1)(y))
    boxes = layers.Reshape((-1, 2, 4))(layers.Dense(8)(y))
    model = keras.Model(x, [masks, boxes])
    randomize(model)
    features = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 6)).astype("float32")
    expected = [to_numpy(value) for value in model(features)]
    flat = features.reshape(6, 4, 4, 6).transpose(0, 3, 1, 2)
    found = run_onnx([masks, boxes], x, flat, of_rois=True)
    np.testing.assert_allclose(
        found[0].transpose(0, 2, 3, 1).reshape(expected[0].shape), expected[0], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found[1].reshape(expected[1].shape), expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function, message",
    [
        (
            lambda x: layers.Conv2DTranspose(3, 2, name="up")(x),
            "'up' .Conv2DTranspose. cannot be written",
        ),
        (
            lambda x: layers.Conv2D(3, 2, activation="softplus", name="c")(x),
            "activation 'softplus' of",
        ),
        (lambda x: BatchNorm(train_bn=True, name="bn")(x), "'bn' uses the statistics of the batch"),
        (
            lambda x: layers.UpSampling2D(2, interpolation="bilinear", name="u")(x),
            "'u' must use interpolation",
        ),
        (lambda x: layers.ReLU(negative_slope=0.1, name="leaky")(x), "'leaky' is a ReLU with a slope"),
    ],
)
def test_layers_that_cannot_be_written_are_named(function, message):
    x = keras.Input((4, 4, 4))
    with pytest.raises(ValueError, match=message):
        LayerWriter(GraphBuilder()).write([function(x)], {id(x): "x"})

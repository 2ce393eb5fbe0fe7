"""A network with the layer names of the Keras 2 library and few weights, for tests of weight files."""

import functools

import h5py
import keras
import numpy as np
from keras import layers

from mrcnn.checkpoints import weights

BLOCKS = ("a", "b")  # of stage 4; the real ones go to f (ResNet-50) or w (ResNet-101)


class Sampler(layers.Layer):
    """A layer that owns a random generator, as the target layer of training does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        return inputs[0] + 0.0 * keras.random.uniform((1,), seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def conv(x, name, filters, size=1):
    return layers.Conv2D(filters, size, padding="same", name=name)(x)


def norm(x, name):
    return layers.BatchNormalization(name=name)(x)


def backbone(image, blocks):
    x = norm(conv(image, "conv1", 4, 3), "bn_conv1")
    for block in blocks:
        shortcut = x
        y = norm(conv(x, f"res4{block}_branch2a", 3), f"bn4{block}_branch2a")
        y = norm(conv(y, f"res4{block}_branch2b", 3, 3), f"bn4{block}_branch2b")
        y = norm(conv(y, f"res4{block}_branch2c", 4), f"bn4{block}_branch2c")
        if block == "a":
            shortcut = norm(conv(x, "res4a_branch1", 4), "bn4a_branch1")
        x = layers.Add()([y, shortcut])
    return x


def rpn_model(channels, ratios):
    features = keras.Input((None, None, channels), name="input_rpn_feature_map")
    shared = conv(features, "rpn_conv_shared", 5, 3)
    boxes = conv(shared, "rpn_bbox_pred", 4 * ratios)
    scores = layers.Softmax()(conv(shared, "rpn_class_raw", 2 * ratios))
    return keras.Model(features, [boxes, scores], name="rpn_model")


def build(classes=4, channels=3, pyramid=6, ratios=3, blocks=BLOCKS, training=False, cls=keras.Model):
    """A network with the layer names of the Keras 2 library and few weights."""
    image = keras.Input((8, 8, channels), name="input_image")
    inputs = [image]
    x = backbone(image, blocks)
    x = conv(conv(x, "fpn_c5p5", pyramid), "fpn_p5", pyramid, 3)
    boxes, scores = rpn_model(pyramid, ratios)(x)
    if training:
        inputs.append(keras.Input((None, 4), name="input_gt_boxes"))
        x = Sampler(name="proposal_targets")([x, inputs[1]])
    mask = norm(conv(x, "mrcnn_mask_conv1", 5, 3), "mrcnn_mask_bn1")
    y = norm(conv(x, "mrcnn_class_conv1", 7), "mrcnn_class_bn1")
    y = layers.GlobalAveragePooling2D()(y)
    logits = layers.Dense(classes, name="mrcnn_class_logits")(y)
    deltas = layers.Dense(4 * classes, name="mrcnn_bbox_fc")(y)
    deltas = layers.Reshape((classes, 4), name="mrcnn_bbox")(deltas)
    mask = layers.Conv2DTranspose(5, 2, strides=2, name="mrcnn_mask_deconv")(mask)
    mask = conv(mask, "mrcnn_mask", classes)
    return cls(inputs, [logits, deltas, mask, boxes, scores], name="mask_rcnn")


@functools.cache
def kept(**options):
    """The network of these options that files are made of; never the one they are loaded into."""
    return build(**options)


@functools.cache
def _target():
    return build()


def target():
    """The network to load files into, with the same weights at the start of each test."""
    return randomize(_target(), seed=2)


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for named in weights.model_weights(model).values():
        for variable in named.values():
            variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return model


def values_of(model):
    return {
        name: keras.ops.convert_to_numpy(variable)
        for named in weights.model_weights(model).values()
        for name, variable in named.items()
    }


def assert_equal(model, other, but=()):
    got, want = values_of(model), values_of(other)
    for name, value in got.items():
        same = value.shape == want[name].shape and np.array_equal(value, want[name])
        assert same == (name.split("/")[0] not in but), name


def saved(path, **options):
    model = randomize(kept(**options), seed=1)
    weights.save_weights(model, path)
    return model


def remove(path, layer):
    """Take a layer out of a file."""
    with h5py.File(path, "r+") as file:
        names = [name for name in file.attrs["layer_names"] if name != layer.encode()]
        file.attrs["layer_names"] = np.array(names)
        del file[layer]

import keras
import numpy as np
from keras import layers
from tiny_model import TinyConfig

import mrcnn
from mrcnn.network.layer_names import number_layers


def unnamed_backbone(image, stage5=True, train_bn=None):
    """Layers without names, one of them a model of two layers."""
    x = layers.Conv2D(8, 3, 4, padding="same")(image)
    first = layers.ReLU()(layers.BatchNormalization()(x))
    second = keras.Sequential([layers.Conv2D(8, 3, padding="same"), layers.ReLU()])(first)
    stages = [first, second]
    for _ in range(3):
        stages.append(layers.Conv2D(8, 3, 2, padding="same", activation="relu")(stages[-1]))
    return stages


class UnnamedConfig(TinyConfig):
    BACKBONE = staticmethod(unnamed_backbone)


def names_of_new_layers(make):
    image = keras.Input((64, 64, 3))
    outputs = make(image)
    number_layers(image, outputs)
    return [layer.name for layer in keras.Model(image, outputs).layers[1:]]


def chain(image):
    x = layers.Conv2D(2, 1, name="stem_7")(image)
    later = layers.Conv2D(2, 1)
    x = layers.Conv2D(2, 1)(x)
    return [later(layers.LayerNormalization(center=False, scale=False)(layers.LayerNormalization()(x)))]


def test_the_names_are_those_of_a_new_process():
    layers.Conv2D(2, 1)  # moves Keras' numbers on
    expected = ["stem_7", "conv2d_1", "layer_normalization_1", "layer_normalization", "conv2d"]
    assert names_of_new_layers(chain) == names_of_new_layers(chain) == expected


def test_kinds_without_weights_keep_their_names():
    def make(image):
        return [layers.ReLU(name="first")(layers.Rescaling(2.0, name="re_scaling")(image))]

    assert names_of_new_layers(make) == ["re_scaling", "first"]


def test_weights_of_layers_without_names_survive_their_file(tmp_path):
    trained = mrcnn.MaskRCNN("training", UnnamedConfig(), tmp_path)
    path = tmp_path / "weights.h5"
    trained.save(path)
    loaded = mrcnn.MaskRCNN("inference", UnnamedConfig(), tmp_path)
    loaded.load_weights(path)
    copied = trained.inference_model()
    for name in ("conv2d", "conv2d_1", "conv2d_3", "batch_normalization", "sequential"):
        weights = trained.keras_model.get_layer(name).get_weights()
        assert len(weights) > 1
        for other in (loaded, copied):
            for value, same in zip(weights, other.keras_model.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(value, same)

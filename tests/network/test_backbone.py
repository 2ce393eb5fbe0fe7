"""Backbones: shapes, layer names, and which layers have a stride."""

import keras
import numpy as np
import pytest
from tensor_tools import run
from tiny_model import TinyConfig

from mrcnn.model import MaskRCNN
from mrcnn.network.backbone import backbone_stages, conv_block, identity_block, mobilenet_v2, resnet_graph


def shapes(tensors):
    return [tuple(x.shape[1:]) for x in tensors]


def convolutions(model):
    return {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


@pytest.fixture(scope="module")
def resnet50():
    image = keras.Input((64, 128, 3))
    return keras.Model(image, resnet_graph(image, "resnet50", stage5=True, train_bn=False))


@pytest.fixture(scope="module")
def mobilenet():
    image = keras.Input((64, 128, 3))
    return keras.Model(image, mobilenet_v2(image))


class TestResNet:
    def test_shapes(self, resnet50):
        expected = [(16, 32, 64), (16, 32, 256), (8, 16, 512), (4, 8, 1024), (2, 4, 2048)]
        assert shapes(resnet50.outputs) == expected

    def test_number_of_weights(self, resnet50):
        """The number of weights that ResNet-50 without its classifier has in every library."""
        assert resnet50.count_params() == 23_587_712
        assert sum(int(np.prod(w.shape)) for w in resnet50.trainable_weights) == 23_534_592

    def test_names(self, resnet50):
        blocks = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}
        names = {"conv1"}
        for stage, letters in blocks.items():
            for letter in letters:
                names |= {f"res{stage}{letter}_branch2{part}" for part in "abc"}
            names.add(f"res{stage}a_branch1")
        assert convolutions(resnet50).keys() == names
        norms = {
            layer.name for layer in resnet50.layers if isinstance(layer, keras.layers.BatchNormalization)
        }
        assert norms == {name.replace("res", "bn") for name in names - {"conv1"}} | {"bn_conv1"}

    def test_strides_are_in_the_first_1x1_and_the_shortcut(self, resnet50):
        strided = {name for name, layer in convolutions(resnet50).items() if layer.strides == (2, 2)}
        expected = {f"res{stage}a_branch{part}" for stage in (3, 4, 5) for part in ("1", "2a")}
        assert strided == expected | {"conv1"}

    def test_every_convolution_has_a_bias(self, resnet50):
        assert all(layer.use_bias for layer in convolutions(resnet50).values())

    def test_without_stage_5(self):
        stages = resnet_graph(keras.Input((64, 64, 3)), "resnet50", stage5=False)
        assert stages[4] is None
        assert stages[3].shape[1:] == (4, 4, 1024)

    def test_unknown_architecture(self):
        with pytest.raises(ValueError, match=r"resnet101.*resnet50.*architecture='resnet18'"):
            resnet_graph(keras.Input((64, 64, 3)), "resnet18")


class TestBlocks:
    image = np.random.default_rng(1).normal(size=(1, 8, 6, 4)).astype("float32")

    def model(self, block, **options):
        x = keras.Input((8, 6, 4))
        return keras.Model(x, block(x, 3, (2, 2, 4), 9, "z", train_bn=False, **options))

    def test_identity_block_adds_its_input(self):
        model = self.model(identity_block)
        model.get_layer("bn9z_branch2c").set_weights([np.zeros(4), np.zeros(4), np.zeros(4), np.ones(4)])
        np.testing.assert_array_equal(run(model, self.image), np.maximum(self.image, 0))

    def test_conv_block_adds_its_projection(self):
        model = self.model(conv_block)
        model.get_layer("bn9z_branch2c").set_weights([np.zeros(4), np.zeros(4), np.zeros(4), np.ones(4)])
        shortcut = keras.Model(model.input, model.get_layer("bn9z_branch1").output)
        expected = run(shortcut, self.image)
        assert expected.shape == (1, 4, 3, 4)
        np.testing.assert_allclose(run(model, self.image), np.maximum(expected, 0), atol=1e-6)

    def test_strides_and_bias_can_be_chosen(self):
        model = self.model(conv_block, strides=(1, 1), use_bias=False)
        assert model.output_shape == (None, 8, 6, 4)
        assert not any(layer.use_bias for layer in convolutions(model).values())


class TestMobileNetV2:
    def test_shapes(self, mobilenet):
        expected = [(32, 64, 16), (16, 32, 24), (8, 16, 32), (4, 8, 96), (2, 4, 320)]
        assert shapes(mobilenet.outputs) == expected

    def test_weights_fit_those_of_keras_by_name(self, mobilenet):
        published = keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None)
        theirs = {layer.name: [w.shape for w in layer.weights] for layer in published.layers if layer.weights}
        ours = {layer.name: [w.shape for w in layer.weights] for layer in mobilenet.layers if layer.weights}
        assert theirs.keys() - ours.keys() == {"Conv_1", "Conv_1_bn"}  # the classifier's last convolution
        assert ours == {name: theirs[name] for name in ours}
        order = [name for name in theirs if name in ours]
        assert list(ours) == order

    def test_equals_keras_with_the_same_weights(self):
        """Keras' network takes pixels that are already scaled to -1..1."""
        side = 64
        image = keras.Input((side, side, 3))
        ours = keras.Model(image, mobilenet_v2(image)[-1])
        theirs = keras.applications.MobileNetV2((side, side, 3), include_top=False, weights=None)
        rng = np.random.default_rng(2)
        for layer in ours.layers:
            if layer.weights:
                values = [
                    rng.uniform(0.5, 1.0, w.shape) * (1 if w.ndim == 1 else 0.2) for w in layer.get_weights()
                ]
                values = [v if v.ndim == 1 else v - v.mean() for v in values]
                layer.set_weights(values)
                theirs.get_layer(layer.name).set_weights(values)
        theirs = keras.Model(theirs.input, theirs.get_layer("block_16_project_BN").output)
        pixels = rng.uniform(-120, 120, (1, side, side, 3)).astype("float32")
        expected = run(theirs, pixels / np.float32(127.5))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(run(ours, pixels) / scale, expected / scale, atol=2e-3)

    def test_without_stage_5(self):
        assert mobilenet_v2(keras.Input((64, 64, 3)), stage5=False)[4] is None


def unnamed_backbone(image, stage5=True, train_bn=None):
    """Layers without names, one of them a model, and one layer with a name like those of Keras."""
    layers = keras.layers
    x = layers.Conv2D(8, 3, 4, padding="same")(image)
    first = layers.ReLU()(layers.BatchNormalization()(x))
    second = keras.Sequential([layers.Conv2D(8, 3, padding="same"), layers.ReLU()])(first)
    third = layers.Conv2D(8, 3, 2, padding="same", name="conv2d_9")(second)
    fourth = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(third)
    return [first, second, third, fourth, layers.AveragePooling2D(2)(fourth)]


UNNAMED = ("conv2d", "conv2d_9", "conv2d_2", "batch_normalization", "sequential")


class UnnamedConfig(TinyConfig):
    BACKBONE = staticmethod(unnamed_backbone)


def test_layers_without_names_get_the_same_names_in_each_network(tmp_path):
    trained = MaskRCNN("training", UnnamedConfig(), tmp_path)
    trained.save(tmp_path / "weights.h5")
    loaded = MaskRCNN("inference", UnnamedConfig(), tmp_path)
    loaded.load_weights(tmp_path / "weights.h5")
    copied = trained.inference_model()
    for name in UNNAMED:
        weights = trained.keras_model.get_layer(name).get_weights()
        assert len(weights) > 1
        for other in (loaded, copied):
            for value, same in zip(weights, other.keras_model.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(value, same)


class TestChoice:
    def small(self, input_image, stage5, train_bn):
        self.called_with = (stage5, train_bn)
        pooled = [keras.layers.AveragePooling2D(2**level)(input_image) for level in range(1, 6)]
        return pooled if self.maps == 5 else pooled[: self.maps]

    def test_a_function_returns_the_maps(self):
        self.maps = 5
        stages = backbone_stages(keras.Input((64, 64, 3)), self.small, train_bn=None)
        assert self.called_with == (True, None)
        assert shapes(stages) == [(side, side, 3) for side in (16, 8, 4, 2)]

    def test_a_function_must_return_five_maps(self):
        self.maps = 4
        with pytest.raises(ValueError, match=r"five feature maps.*Received: 4 maps"):
            backbone_stages(keras.Input((64, 64, 3)), self.small, train_bn=False)

    def test_by_name(self):
        stages = backbone_stages(keras.Input((64, 64, 3)), "mobilenetv2", train_bn=False)
        assert shapes(stages) == [(16, 16, 24), (8, 8, 32), (4, 4, 96), (2, 2, 320)]
        with pytest.raises(ValueError, match="vgg16"):
            backbone_stages(keras.Input((64, 64, 3)), "vgg16", train_bn=False)

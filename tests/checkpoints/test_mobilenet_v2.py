"""ImageNet weights of MobileNetV2: a file like that of Keras Applications, with random weights."""

import keras
import numpy as np
import pytest

import mrcnn
from mrcnn.checkpoints import downloads, keras_applications, weight_files
from mrcnn.errors import InvalidDataError
from mrcnn.model import MaskRCNN

SIDE = 64


class SmallConfig(mrcnn.LightConfig):
    NAME = "small"
    NUM_CLASSES = 2
    MEAN_PIXEL = (127.5, 127.5, 127.5)
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = SIDE


@pytest.fixture(scope="module")
def published():
    """Keras' network, random, with statistics of batch norm as after training."""
    network = keras.applications.MobileNetV2((SIDE, SIDE, 3), include_top=False, weights=None)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1, weight.shape) for weight in layer.weights])
    return network


def cached_file(published, folder):
    """The file of Keras Applications in the cache, whose layers have other names than in Keras."""
    layers = {
        f"layer_{index}": {f"layer_{index}/{weight.name}:0": np.array(weight) for weight in layer.weights}
        for index, layer in enumerate(layer for layer in published.layers if layer.weights)
    }
    path = folder / "models" / downloads.IMAGENET_MOBILENET_V2_URL.rpartition("/")[2]
    weight_files.write_weight_file(path, layers)
    return path


def test_features_are_those_of_keras(published, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached_file(published, tmp_path)
    model = MaskRCNN("inference", SmallConfig(), tmp_path / "logs")
    report = model.load_weights("imagenet")
    theirs = {layer.name for layer in published.layers if layer.weights}
    assert set(report.loaded) == theirs - set(keras_applications.CLASSIFIER_LAYERS)

    pixels = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3)).astype("float32")
    name = "block_16_project_BN"
    features = keras.Model(published.input, published.get_layer(name).output)
    expected = features(keras.applications.mobilenet_v2.preprocess_input(pixels.copy()), training=False)
    own = keras.Model(model.keras_model.inputs[0], model.keras_model.get_layer(name).output)
    found = own(pixels - np.float32(127.5), training=False)
    expected, found = (keras.ops.convert_to_numpy(values) for values in (expected, found))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_converted_file_is_kept(published, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = cached_file(published, tmp_path)
    path = downloads.get_imagenet_weights(backbone="mobilenetv2")
    source.unlink()
    assert (
        downloads.get_imagenet_weights(backbone="mobilenetv2")
        == path
        == str(tmp_path / "models" / downloads.MOBILENET_V2_NAME)
    )


def test_a_file_of_another_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = tmp_path / "models" / downloads.IMAGENET_MOBILENET_V2_URL.rpartition("/")[2]
    weight_files.write_weight_file(source, {"conv": {"conv/kernel:0": np.zeros((3, 3, 3, 8))}})
    with pytest.raises(
        InvalidDataError, match=r"does not contain MobileNetV2 weights .* Delete the file"
    ) as caught:
        downloads.get_imagenet_weights(backbone="mobilenetv2")
    assert caught.value.file == str(source)
    assert not (tmp_path / "models" / downloads.MOBILENET_V2_NAME).exists()

"""Keras' own ways to store and copy a model: each gives the same outputs, or says what to use."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import rectangles

from mrcnn.model import MaskRCNN

BACKEND = keras.backend.backend()

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    keras.utils.set_random_seed(0)
    return MaskRCNN("inference", TinyConfig(), tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def inputs(detector):
    molded, metas, _ = detector.mold_inputs([rectangles(0)[0]])
    anchors = detector.get_anchors(molded[0].shape)[None]
    return [array.astype(np.float32) for array in (molded, metas, anchors)]


@pytest.fixture(scope="module")
def expected(detector, inputs):
    outputs = detector.keras_model.predict(inputs, verbose=0)
    assert len(outputs) == 7 and outputs[1].std() > 0 and outputs[4].any()
    return outputs


def assert_same(outputs, expected):
    for found, output in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found, output, rtol=2e-5, atol=1e-5)


def test_save_and_load_model(detector, inputs, expected, tmp_path):
    path = tmp_path / "model.keras"
    detector.keras_model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is type(detector.keras_model)
    assert_same(loaded.predict(inputs, verbose=0), expected)


def test_weights_of_a_whole_h5_file(detector, inputs, expected, tmp_path):
    """Keras cannot open it again, and says so when it is written."""
    with pytest.warns(UserWarning, match=r"load_model cannot open .*model\.h5.*Save it as \.keras"):
        detector.keras_model.save(tmp_path / "model.h5")
    other = MaskRCNN("inference", TinyConfig(), tmp_path)
    other.load_weights(tmp_path / "model.h5")
    assert_same(other.keras_model.predict(inputs, verbose=0), expected)


def test_clone_model(detector, inputs, expected):
    clone = keras.models.clone_model(detector.keras_model)
    clone.set_weights(detector.keras_model.get_weights())
    assert_same(clone.predict(inputs, verbose=0), expected)


def test_to_json_and_back(detector, inputs, expected):
    copy = keras.models.model_from_json(detector.keras_model.to_json())
    copy.set_weights(detector.keras_model.get_weights())
    assert_same(copy.predict(inputs, verbose=0), expected)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="writes a SavedModel of TensorFlow")
def test_export(detector, inputs, expected, tmp_path):
    import tensorflow as tf

    detector.keras_model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_same([output.numpy() for output in loaded.serve(inputs)], expected)


def test_a_training_network(tmp_path):
    """Its weights and its graph come back; the optimizer starts anew with `MaskRCNN.train`."""
    network = MaskRCNN("training", TinyConfig(), tmp_path).keras_model
    network.save(tmp_path / "training.keras")
    loaded = keras.models.load_model(tmp_path / "training.keras")
    assert type(loaded) is type(network)
    for found, weight in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, weight)
    clone = keras.models.clone_model(network)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in network.layers]

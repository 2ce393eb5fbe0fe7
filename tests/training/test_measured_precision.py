"""BFLOAT16_IS_SAFE belongs to the weights for which it was measured, and ends with them."""

import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

import mrcnn
from mrcnn.checkpoints.model_info import model_info
from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


def load(path, *arguments, **settings):
    """Load a model whose file does not store its functions."""
    names = ("BACKBONE", "COMPUTE_BACKBONE_SHAPE")
    return mrcnn.load(path, *arguments, **{name: getattr(TinyConfig, name) for name in names}, **settings)


def is_safe(path):
    return model_info(path).settings["BFLOAT16_IS_SAFE"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights that were measured, and others."""
    folder = tmp_path_factory.mktemp("files")
    model = MaskRCNN("inference", TinyConfig(), folder)
    model.save(folder / "other.h5")
    model.config.BFLOAT16_IS_SAFE = True
    model.save(folder / "safe.h5")
    assert is_safe(folder / "safe.h5") is True
    return folder


def test_training_resets_it(files, tmp_path):
    """Also for the detectors that are made of the model, in a callback or later."""
    model = load(files / "safe.h5", "training", model_dir=tmp_path)
    model.train(toy_dataset(2), None, 0.01, epochs=1, layers="heads")
    assert model.config.BFLOAT16_IS_SAFE is False
    assert is_safe(model.find_last()) is False
    model.inference_model().save(tmp_path / "detector.h5")
    assert is_safe(tmp_path / "detector.h5") is False
    config = TinyConfig()
    config.BFLOAT16_IS_SAFE = True
    model.inference_model(config).save(tmp_path / "detector.h5")
    assert is_safe(tmp_path / "detector.h5") is False


def test_a_training_of_the_program_itself_resets_it(files, tmp_path):
    """With `keras_model.fit`, of which the model knows nothing."""
    load(files / "safe.h5", "training").inference_model().save(tmp_path / "detector.h5")
    assert is_safe(tmp_path / "detector.h5") is False


def test_other_weights_reset_it(files, tmp_path):
    model = load(files / "safe.h5")
    model.load_weights(files / "safe.h5")
    assert model.config.BFLOAT16_IS_SAFE is True
    model.inference_model().save(tmp_path / "copy.h5")
    assert is_safe(tmp_path / "copy.h5") is True
    model.load_weights(files / "other.h5")
    assert model.config.BFLOAT16_IS_SAFE is False
    heads = load(files / "safe.h5", exclude=["mrcnn_class_logits"])
    assert heads.config.BFLOAT16_IS_SAFE is False
    model.load_weights(files / "safe.h5")  # the settings of a model are its own
    assert model.config.BFLOAT16_IS_SAFE is False

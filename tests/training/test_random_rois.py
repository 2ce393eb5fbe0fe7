"""USE_RPN_ROIS = False: `train` says what to do, and that trains the heads with random RoIs."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn.model import MaskRCNN, data_generator

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


@pytest.fixture
def model(tmp_path):
    config = TinyConfig()
    config.USE_RPN_ROIS = False
    return MaskRCNN("training", config, tmp_path)


def test_train_says_how_to_train_without_proposals(model, tmp_path):
    with pytest.raises(ValueError, match=r"^USE_RPN_ROIS must be True for train\(\)") as error:
        model.train(toy_dataset(2), None, 0.01, epochs=1, layers="heads")
    for step in ("compile()", "keras_model.fit", "data_generator(", "random_rois=config.POST_NMS_ROIS_"):
        assert step in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_random_rois_train_the_heads(model):
    config = model.config
    model.set_trainable("mrcnn_.*", verbose=0)
    model.compile(0.01, config.LEARNING_MOMENTUM)
    layer = model.keras_model.get_layer("mrcnn_class_logits")
    before = keras.ops.convert_to_numpy(layer.weights[0])
    batches = data_generator(
        toy_dataset(4), config, batch_size=config.BATCH_SIZE, random_rois=config.POST_NMS_ROIS_TRAINING
    )
    losses = model.keras_model.fit(batches, steps_per_epoch=3, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert not np.array_equal(keras.ops.convert_to_numpy(layer.weights[0]), before)

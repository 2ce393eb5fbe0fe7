"""The variant of detection that the experiments on learning measure."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig

import mrcnn
from benchmarks import detection_variants

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

pytestmark = [
    pytest.mark.usefixtures("eager_tensorflow"),
    pytest.mark.filterwarnings("ignore::mrcnn.errors.CappedWarning"),
]


@pytest.fixture
def model(tmp_path):
    keras.utils.set_random_seed(2)
    return mrcnn.MaskRCNN("inference", TinyConfig(), tmp_path)


def test_the_second_pass_sees_moved_boxes(model):
    twice = detection_variants.VARIANTS["second pass"]("inference", model.config, model.model_dir)
    twice.copy_weights(model)
    assert not np.array_equal(twice.detect(IMAGE)[0]["scores"], model.detect(IMAGE)[0]["scores"])
    layer = model.keras_model.get_layer("mrcnn_bbox_fc")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    twice.copy_weights(model)  # now no box moves, and both passes are the same
    found, expected = twice.detect(IMAGE)[0], model.detect(IMAGE)[0]
    for key in ("rois", "class_ids", "scores"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-6)

"""The variants of detection that the experiments on learning measure."""

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


def variant(name, model):
    other = detection_variants.VARIANTS[name]("inference", model.config, model.model_dir)
    other.copy_weights(model)
    return other


def test_scores_of_soft_nms():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]])
    scores = detection_variants.soft_scores(boxes, np.array([0.8, 0.9, 0.7, 0.1]))
    same, third = np.exp(-1 / 0.5), np.exp(-((1 / 3) ** 2) / 0.5)
    # The third box is the second to be taken: the first one's score is lower by then.
    np.testing.assert_allclose(scores, [0.8 * same * third, 0.9, 0.7 * third, 0.1], rtol=1e-6)


def test_soft_nms_keeps_boxes_that_nms_drops(model):
    plain, soft = model.detect(IMAGE)[0], variant("soft-NMS", model).detect(IMAGE)[0]
    assert len(plain["scores"]) and soft["scores"][0] == pytest.approx(plain["scores"][0])
    assert (np.diff(soft["scores"]) <= 0).all() and len(soft["scores"]) <= TinyConfig.DETECTION_MAX_INSTANCES
    assert (model.config.DETECTION_NMS_THRESHOLD, model.config.DETECTION_MAX_INSTANCES) == (0.3, 10)


def test_the_second_pass_sees_moved_boxes(model):
    twice = variant("second pass", model)
    assert not np.array_equal(twice.detect(IMAGE)[0]["scores"], model.detect(IMAGE)[0]["scores"])
    layer = model.keras_model.get_layer("mrcnn_bbox_fc")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    twice.copy_weights(model)  # now no box moves, and both passes are the same
    found, expected = twice.detect(IMAGE)[0], model.detect(IMAGE)[0]
    for key in ("rois", "class_ids", "scores"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-6)

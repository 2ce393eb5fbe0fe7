"""The value range of a dataset of floats goes with the model and its weights."""

import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import ArrayDataset, rectangles

from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


@pytest.mark.parametrize("white", [1, pytest.param(255, marks=pytest.mark.slow)])
def test_training_on_floats_stores_their_range(white, tmp_path):
    frames = [
        (image * (white / 255), masks, class_ids) for image, masks, class_ids in map(rectangles, range(3))
    ]
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    model.train(ArrayDataset(frames), None, 1e-3, epochs=1, layers="heads")
    assert tuple(model.config.IMAGE_VALUE_RANGE) == (0, white)

    detector = model.inference_model(TinyConfig())
    assert tuple(detector.config.IMAGE_VALUE_RANGE) == (0, white)
    fresh = MaskRCNN("inference", TinyConfig(), tmp_path)
    fresh.load_weights(model.find_last())
    assert tuple(fresh.config.IMAGE_VALUE_RANGE) == (0, white)

    # A dark frame, which alone would count as 0..1, is on the same scale as the bright ones.
    dark = np.full((64, 64, 3), 0.004 * white)
    for one in (detector, fresh):
        molded, _, _ = one.mold_inputs([dark])
        np.testing.assert_allclose(molded[0] + one.config.MEAN_PIXEL, 1.02, rtol=1e-4)


def test_each_file_brings_its_own_range(tmp_path):
    names = {"unit": (0, 1), "camera": (0, 4095), "unknown": None}
    for name, values in names.items():
        config = TinyConfig()
        config.IMAGE_VALUE_RANGE = values
        MaskRCNN("training", config, tmp_path).save(tmp_path / f"{name}.h5")
    detector = MaskRCNN("inference", TinyConfig(), tmp_path)
    for name, values in names.items():
        detector.load_weights(tmp_path / f"{name}.h5")
        found = detector.config.IMAGE_VALUE_RANGE
        assert found == values if values is None else tuple(found) == values
    detector.config.IMAGE_VALUE_RANGE = (0, 255)  # one's own stays
    detector.load_weights(tmp_path / "camera.h5")
    assert detector.config.IMAGE_VALUE_RANGE == (0, 255)

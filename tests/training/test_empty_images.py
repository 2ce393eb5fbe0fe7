"""Images without objects train the network as background: finite losses, on any backend."""

import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import ArrayDataset, rectangles

from mrcnn.config import LOSS_NAMES
from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


def dataset_with_background(*, objects, background):
    """Images with three objects each, then images that are listed as empty."""
    dataset = ArrayDataset(map(rectangles, range(objects + background)))
    for image_id in range(objects, objects + background):
        image, masks, class_ids = dataset.items[image_id]
        dataset.items[image_id] = (image, masks[:, :, :0], class_ids[:0])
        dataset.image_info[image_id]["is_empty"] = True
    return dataset


def train(folder, dataset, epochs, **changes):
    config = TinyConfig()
    for name, value in {"STEPS_PER_EPOCH": None, **changes}.items():
        setattr(config, name, value)
    model = MaskRCNN("training", config, folder)
    history = model.train(dataset, None, 0.05, epochs=epochs, layers="all").history
    assert all(np.isfinite(np.array(weight)).all() for weight in model.keras_model.weights)
    return history


def test_a_batch_of_background_has_losses_of_class_alone(tmp_path):
    dataset = dataset_with_background(objects=0, background=2)
    history = train(tmp_path, dataset, epochs=3, IMAGES_PER_GPU=1, TRAIN_ON_EMPTY_IMAGES=True)
    for name in ("rpn_class_loss", "mrcnn_class_loss"):
        assert history[name][-1] < history[name][0]
    for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"):
        assert history[name] == [0.0] * 3


@pytest.mark.slow
def test_the_plain_network_trains_on_objects_and_background(tmp_path):
    plain = {"FAST_PATHS": False, "RPN_TARGETS_IN_GRAPH": False, "USE_MINI_MASK": False}
    dataset = dataset_with_background(objects=1, background=1)
    history = train(tmp_path, dataset, epochs=1, IMAGES_PER_GPU=1, ROI_INCLUDE_GT=False, **plain)
    assert np.isfinite([history[name] for name in ("loss", *LOSS_NAMES)]).all()
    assert history["rpn_bbox_loss"][0] > 0

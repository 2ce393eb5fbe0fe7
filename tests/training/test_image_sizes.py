"""Images of different sizes: each mode that keeps their shape trains and validates on them."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import ArrayDataset, rectangles

from mrcnn import backend
from mrcnn.data.generator import DataGenerator
from mrcnn.model import MaskRCNN

# The inputs whose sizes TensorFlow has to know before the first batch, in the order of the axes.
IMAGE, MASKS, MATCH = "input_image", "input_gt_masks", "input_rpn_match"


class OneImageConfig(TinyConfig):
    IMAGES_PER_GPU = STEPS_PER_EPOCH = 1
    IMAGE_MAX_DIM = 128


def configured(**settings):
    config = OneImageConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def images(mode, wide):
    """Wide images, and a tall one, which comes last in an order that is not random."""
    shapes = ((64, 128), (128, 64)) if mode == "none" else ((60, 80), (80, 60))
    return ArrayDataset(
        rectangles(seed, shape=shape) for seed, shape in enumerate([shapes[0]] * wide + [shapes[1]])
    )


def assert_trains(folder, config):
    """Two images train, each in an epoch of its own. The last of three to validate on has another size."""
    mode = config.IMAGE_RESIZE_MODE
    model = MaskRCNN("training", config, folder)
    history = model.train(images(mode, 1), images(mode, 2), 1e-4, epochs=2, layers="all").history
    assert len(history["loss"]) == len(history["val_loss"]) == 2
    assert np.isfinite([history["loss"], history["val_loss"]]).all()


@pytest.mark.usefixtures("eager_test")
@pytest.mark.parametrize("has_mini_masks", [True, False])
@pytest.mark.parametrize("mode", ["pad64", "none"])
def test_images_of_different_sizes_train(mode, has_mini_masks, tmp_path):
    config = configured(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=None, USE_MINI_MASK=has_mini_masks)
    assert_trains(tmp_path, config)


@pytest.mark.usefixtures("eager_test")
def test_targets_that_the_batches_contain_train(tmp_path):
    """They have a row for each anchor, whose number depends on the size."""
    config = configured(IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=None, RPN_TARGETS_IN_GRAPH=False)
    assert_trains(tmp_path, config)


@pytest.mark.parametrize("has_mini_masks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_sizes_of_torchvision_train(has_mini_masks, tmp_path):
    """The step is compiled, on TensorFlow for all sizes at once."""
    config = configured(IMAGE_RESIZE_MODE="shortest", CONVENTIONS="torchvision", USE_MINI_MASK=has_mini_masks)
    assert_trains(tmp_path, config)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others take any batch")
@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"IMAGE_RESIZE_MODE": "square"}, {IMAGE: (128, 128), MASKS: (56, 56)}),
        ({"IMAGE_RESIZE_MODE": "square", "USE_MINI_MASK": False}, {IMAGE: (128, 128), MASKS: (128, 128)}),
        (
            {"IMAGE_RESIZE_MODE": "square", "RPN_TARGETS_IN_GRAPH": False},
            {IMAGE: (128, 128), MASKS: (56, 56), MATCH: (4092,)},
        ),
        ({"IMAGE_RESIZE_MODE": "crop"}, {IMAGE: (64, 64), MASKS: (56, 56)}),
        ({"IMAGE_RESIZE_MODE": "pad64"}, {IMAGE: (None, None), MASKS: (56, 56)}),
        ({"IMAGE_RESIZE_MODE": "shortest"}, {IMAGE: (None, None), MASKS: (56, 56)}),
        ({"IMAGE_RESIZE_MODE": "none"}, {IMAGE: (None, None), MASKS: (56, 56)}),
        ({"IMAGE_RESIZE_MODE": "none", "USE_MINI_MASK": False}, {IMAGE: (None, None), MASKS: (None, None)}),
        (
            {"IMAGE_RESIZE_MODE": "none", "RPN_TARGETS_IN_GRAPH": False},
            {IMAGE: (None, None), MASKS: (56, 56), MATCH: (None,)},
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if "IMAGE_RESIZE_MODE" in value else "",
)
def test_tensorflow_leaves_open_what_differs_and_nothing_else(settings, sizes, tmp_path):
    """A graph of fixed sizes is smaller. The channels and the slots for masks never differ."""
    config = configured(**settings)
    network = MaskRCNN("training", config, tmp_path).keras_model
    dataset = images(config.IMAGE_RESIZE_MODE, 2)
    batches = DataGenerator(dataset, config, shuffle=False, steps=3, workers=0)
    data = backend.get_devices(1).batches(batches, network.inputs)
    found = {name: tuple(spec.shape[1:]) for name, spec in data.element_spec.items()}
    expected = {
        "input_image_meta": (12 + 4,),
        "input_gt_class_ids": (None,),
        "input_gt_boxes": (None, 4),
        IMAGE: (*sizes[IMAGE], 3),
        MASKS: (*sizes[MASKS], 10),
    }
    if MATCH in sizes:
        expected |= {MATCH: (*sizes[MATCH], 1), "input_rpn_bbox": (256, 4)}
    assert found == expected
    assert {spec.shape[0] for spec in data.element_spec.values()} == {None}
    for index, batch in enumerate(data.as_numpy_iterator()):
        for name, array in batches[index][0].items():
            np.testing.assert_array_equal(batch[name], array, err_msg=name)

"""The value range of a dataset, and what training makes of it."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.dataset_range import settle_value_range
from mrcnn.data.generator import DataGenerator
from mrcnn.dataset import Dataset


class RangeConfig(Config):
    NAME = "range"
    NUM_CLASSES = 2
    IMAGES_PER_GPU = 1
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
    SEED = 1
    LOADER_WORKERS = 0


class Frames(Dataset):
    def __init__(self, *frames):
        super().__init__()
        self.frames = frames
        self.add_class("x", 1, "object")
        for image_id in range(len(frames)):
            self.add_image("x", image_id, None)
        self.prepare()

    def load_image(self, image_id):
        if self.frames[image_id] is None:
            raise OSError("broken")
        return self.frames[image_id]

    def load_mask(self, image_id):
        masks = np.zeros((*self.frames[image_id].shape[:2], 2), bool)
        masks[:, :40, 0] = masks[:, -40:, 1] = True
        return masks, np.array([1, 1], np.int32)


def spoiled(frame, value=np.nan):
    """The frame with one pixel that is not finite."""
    frame = frame.copy()
    frame[1, 1] = value
    return frame


def fed(frame, config=None, index=0, **options):
    """What the network gets: the molded image plus the mean."""
    config = config or RangeConfig()
    batch = DataGenerator(Frames(frame), config, steps=8, **options)[index][0]
    return batch["input_image"][0] + config.MEAN_PIXEL


def noise(high, shape=(128, 128, 1)):
    return np.random.default_rng(0).integers(20, high, shape).repeat(3, 2)


@pytest.mark.filterwarnings("ignore:A uint16 image has no value above 255")
def test_one_hot_pixel_leaves_the_others_in_training():
    frame = noise(250).astype(np.uint16)
    hot = frame.copy()
    hot[5, 5] = 300
    cold, warm = fed(frame), fed(hot)
    warm[5, 5] = cold[5, 5]
    np.testing.assert_allclose(warm, cold, atol=1e-4)


def test_augmentation_that_brightens_floats_keeps_the_scale():
    frame = (noise(255) / 255).astype(np.float32)
    brighter = fed(frame, augmentation=lambda image, masks: (image * 1.1, masks))
    np.testing.assert_allclose(brighter, fed(frame) * 1.1, rtol=1e-3, atol=1e-2)


def test_all_crops_of_an_image_have_one_scale():
    config = RangeConfig()
    config.IMAGE_RESIZE_MODE = "crop"
    frame = noise(200, (256, 512, 1)).astype(np.uint16)
    frame[:, 300:] *= 200
    seen = {round(value * 257) for index in range(8) for value in np.unique(fed(frame, config, index))}
    assert seen <= set(np.unique(frame).tolist())


def test_an_augmentation_must_keep_the_scale():
    def to_unit(image, masks):
        return image / 255, masks

    with pytest.raises(AugmentationError, match=r"keep the scale.*uint8 values up to 2\d\d.*float64"):
        fed(noise(250).astype(np.uint8), augmentation=to_unit)


@pytest.mark.parametrize(
    "frames, expected",
    [
        ([np.full((4, 4, 3), 0.5), np.full((4, 4, 3), 1.2)], (0, 1)),
        # The first is almost black: alone it would count as 0..1.
        ([np.full((4, 4, 3), 0.5), None, np.full((4, 4, 3), 200.0)], (0, 255)),
        ([np.full((4, 4, 3), 200, np.uint16)], None),
        ([np.full((4, 4, 3), 200, np.uint8), np.full((4, 4, 3), 0.5)], None),
        ([None], None),
        # Images that are not finite say nothing about the others.
        ([np.full((4, 4, 3), 0.5), spoiled(np.full((4, 4, 3), 0.5))], (0, 1)),
        ([spoiled(np.full((4, 4, 3), 0.5), np.inf), np.full((4, 4, 3), 0.5)], (0, 1)),
        ([spoiled(np.full((4, 4, 3), 0.5)), np.full((4, 4, 3), 200.0)], (0, 255)),
        ([spoiled(np.full((4, 4, 3), 0.5))], None),
    ],
)
def test_floats_are_decided_for_the_whole_dataset(frames, expected):
    config = RangeConfig()
    settle_value_range(Frames(*frames), config)
    found = config.IMAGE_VALUE_RANGE
    assert found == expected
    assert config.to_dict()["IMAGE_VALUE_RANGE"] == (expected and list(expected))
    config.IMAGE_VALUE_RANGE = (0, 7)
    settle_value_range(Frames(*frames), config)
    assert tuple(config.IMAGE_VALUE_RANGE) == (0, 7)


@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (300.0, 300.0, 300.0)])
def test_images_with_a_scale_of_their_own_are_not_scaled(mean):
    """The rule of detection holds in training, too: MEAN_PIXEL is not on a scale of 0 to 255."""
    config = RangeConfig()
    config.MEAN_PIXEL = np.array(mean)
    frame = np.random.default_rng(0).uniform(-1.7, 1.7, (128, 128, 3)).astype(np.float32)
    settle_value_range(Frames(frame), config)
    assert config.IMAGE_VALUE_RANGE is None
    np.testing.assert_allclose(fed(frame, config), frame, atol=1e-4)

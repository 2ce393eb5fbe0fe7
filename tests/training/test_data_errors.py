"""An error of the data ends a training as what it is, not as a report of the backend that reads batches."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import ArrayDataset, rectangles, toy_dataset

from mrcnn import backend
from mrcnn.data.augmentation import AugmentationError
from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.usefixtures("eager_tensorflow")

GOOD = 6  # uses of an image before the first error, so that it comes after the second batch


class BreaksLater(ArrayDataset):
    """Images that can be read a few times, and then raise errors."""

    def __init__(self, error):
        super().__init__(map(rectangles, range(4)))
        self.error, self.uses = error, itertools.count(1)

    def load_image(self, image_id):
        if next(self.uses) > GOOD:
            raise self.error
        return super().load_image(image_id)


def train(folder, *datasets, **options):
    config = TinyConfig()
    config.MAX_IMAGE_ERRORS = 1
    model = MaskRCNN("training", config, folder)
    model.train(*datasets, 0.01, epochs=9, layers="heads", **options)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_too_many_unreadable_images(part, tmp_path):
    datasets = [toy_dataset(), toy_dataset()]
    broken = datasets[part == "validation"] = BreaksLater(OSError("the disk is gone"))
    with pytest.raises(RuntimeError, match=r"^2 images could not be loaded") as error:
        train(tmp_path, *datasets)
    assert type(error.value) is RuntimeError and "Traceback" not in str(error.value)
    assert next(broken.uses) > GOOD + 2


def test_memory_that_runs_out(tmp_path):
    """Not the fault of an image, so it is not counted."""
    with pytest.raises(MemoryError) as error:
        train(tmp_path, BreaksLater(MemoryError()), None)
    assert type(error.value) is MemoryError and error.value.args == ()


def test_an_augmentation_that_changes_the_size(tmp_path):
    uses = itertools.count(1)

    def augmentation(image, masks):
        return (image if next(uses) <= GOOD else image[1:]), masks

    with pytest.raises(AugmentationError, match=r"must not change the shape of the image") as error:
        train(tmp_path, toy_dataset(), None, augmentation=augmentation)
    assert "Traceback" not in str(error.value)


class Batches(keras.utils.PyDataset):
    """Two batches, of which the second cannot be built."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("the second batch is broken")
        return ({"input_image": np.zeros((1, 8, 8, 3), np.float32)},)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only tf.data reports errors as its own")
def test_other_errors_stay():
    import tensorflow

    devices = backend.get_devices(1)
    with pytest.raises(ValueError, match=r"^the second batch is broken$"), devices.data_errors():
        list(devices.batches(Batches()))
    with pytest.raises(tensorflow.errors.ResourceExhaustedError, match="no memory"), devices.data_errors():
        raise tensorflow.errors.ResourceExhaustedError(None, None, "no memory on the device")
    with pytest.raises(ZeroDivisionError, match="of a callback"), devices.data_errors():
        with contextlib.suppress(tensorflow.errors.OpError):
            list(devices.batches(Batches()))  # read ahead
        raise ZeroDivisionError("of a callback")

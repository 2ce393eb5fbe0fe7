"""Fixed shifts of pictures, by hand, and the table of an evaluation under them."""

import numpy as np
import pytest
from skimage import data

from mrcnn.dataset import Dataset
from mrcnn.evaluation import robustness
from mrcnn.geometry import masks as geometry


def test_light_by_hand():
    picture = np.array([[[0, 64, 255]]], np.uint8)
    assert robustness.gamma(picture, 0.5).tolist() == [[[0, 128, 255]]]  # 255 * sqrt(64 / 255) = 127.7
    assert robustness.gamma(picture, 2.0).tolist() == [[[0, 16, 255]]]  # 64 ** 2 / 255 = 16.06
    assert robustness.gain(picture, 1.5).tolist() == [[[0, 96, 255]]]
    assert robustness.gain(picture, (1, 0.5, 0.5)).tolist() == [[[0, 32, 128]]]


def test_half_resolution_by_hand():
    """Pairs of columns 0, 100 and 200, 200 become 50 and 200, then a slope between them."""
    row = np.repeat(np.array([0, 100, 200, 200], np.uint8)[None, :, None], 3, axis=2)
    smaller = robustness.resolution(np.repeat(row, 2, axis=0), 0.5)
    assert smaller[0, :, 0].tolist() == [50, 88, 163, 200]


@pytest.mark.parametrize("name", robustness.SHIFTS)
def test_each_shift_keeps_size_and_type_and_changes_something(name):
    picture = data.immunohistochemistry()[:95, :120]
    before = picture.copy()
    shifted = robustness.SHIFTS[name](picture)
    assert shifted.shape == picture.shape and shifted.dtype == np.uint8
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(shifted, robustness.SHIFTS[name](picture))
    difference = np.abs(shifted.astype(int) - picture).mean()
    assert difference == 0 if name == "none" else 1 < difference < 100
    # objects stay in place: the best fit of the shifted picture is where it was
    grey, moved = (p.mean(axis=2) - p.mean() for p in (picture, shifted))
    fits = [(grey * np.roll(moved, step, 1)).sum() for step in (-2, -1, 0, 1, 2)]
    assert np.argmax(fits) == 2


class Bright(Dataset):
    """A dark and a bright square; a detector with a fixed threshold finds what is above it."""

    def __init__(self):
        super().__init__()
        self.add_class("test", 1, "square")
        self.add_image("test", 1, None)
        self.prepare()
        self.masks = np.zeros((40, 40, 2), bool)
        self.masks[4:16, 4:16, 0] = self.masks[22:36, 22:36, 1] = True

    def load_image(self, image_id):
        values = 100 * self.masks[..., 0] + 220 * self.masks[..., 1]
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)

    def load_mask(self, image_id):
        return self.masks, np.array([1, 1])


def test_table_of_a_detector_that_needs_light(capsys):
    dataset = Bright()

    def detect(images):
        (image,) = images
        seen = [image[mask].mean() > 80 for mask in dataset.masks.transpose(2, 0, 1)]
        masks = dataset.masks[..., seen]
        count = masks.shape[-1]
        rois = geometry.extract_bboxes(masks)
        return [{"rois": rois, "class_ids": np.ones(count), "scores": np.ones(count), "masks": masks}]

    some = {name: robustness.SHIFTS[name] for name in ("none", "gamma 2", "brightness x 0.5")}
    table = robustness.evaluate_under_shifts(detect, dataset, some, measures=("tau_AP50", "recall50"))
    assert table["shift"] == list(some)
    assert table["tau_AP50"] == table["recall50"] == [1.0, 0.5, 0.5]
    assert capsys.readouterr().out.splitlines()[-3:][0].split() == ["none", "1.000", "1.000"]
    one = {"none": robustness.SHIFTS["none"]}
    boxes = robustness.evaluate_under_shifts(detect, dataset, one, iou_types=("box",), verbose=0)
    assert boxes["box_AP"] == pytest.approx([1.0])
    for options, message in (
        ({"measures": ["AP"]}, r"`measures` must be some of .*Received: \['AP'\]"),
        ({"results_path": "found.json"}, "`results_path` must be None.*'found.json'"),
    ):
        with pytest.raises(ValueError, match=message):
            robustness.evaluate_under_shifts(detect, dataset, one, verbose=0, **options)


def test_other_dtypes_are_refused():
    class Deep(Bright):
        def load_image(self, image_id):
            return 256 * super().load_image(image_id).astype(np.uint16)

    with pytest.raises(ValueError, match=r"must be uint8.*Received: image\.dtype=uint16\. Convert"):
        robustness.evaluate_under_shifts(lambda images: [], Deep(), verbose=0)

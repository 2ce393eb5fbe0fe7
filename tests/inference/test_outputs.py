"""Detections mapped back to the original image, and the forms of their masks."""

import warnings

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mrcnn.geometry import masks
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference import outputs


def test_many_masks_on_a_large_image():
    """A thousand masks on 4,000 x 4,000 pixels, 16 GB as whole masks, in each form."""
    rng = np.random.default_rng(3)
    corner, side = rng.uniform(0, 0.9, (1000, 2)), rng.uniform(0.005, 0.03, (1000, 2))
    detections = np.concatenate([corner, corner + side, np.ones((1000, 2))], axis=1)
    class_masks = rng.random((1000, 28, 28)).astype(np.float32)
    shape = (4000, 4000, 3)
    rois, _, _, crops = outputs.place_in_image(
        detections,
        class_masks,
        original_shape=shape,
        image_shape=(1024, 1024, 3),
        window=(0, 0, 1024, 1024),
    )
    whole, encoded = (outputs.masks_in_form(crops, form) for form in ("full", "rle"))
    assert whole.shape == (4000, 4000, 1000)
    for index in range(0, 1000, 200):
        expected = masks.unmold_mask(class_masks[index], rois[index], shape)
        np.testing.assert_array_equal(whole[:, :, index], expected)
        assert run_lengths.encode(np.asfortranarray(expected))["counts"].decode() == encoded[index]["counts"]


def test_boxes_and_slots_by_hand():
    """The window is the lower half; the second box has no height, the third slot is unused."""
    detections = np.zeros((4, 6), np.float32)
    window = (8, 0, 16, 16)
    detections[0] = [8 / 15, 0, 1, 1, 2, 0.9]  # the whole window
    detections[1] = [0, 0, 0, 1, 1, 0.8]  # above the window, and flat
    detections[3] = [8 / 15, 0, 1, 1, 1, 0.7]  # behind an unused slot
    rois, class_ids, scores, crops = outputs.place_in_image(
        detections,
        np.ones((2, 4, 4), np.float32),
        original_shape=(80, 160, 3),
        image_shape=(16, 16, 3),
        window=window,
    )
    assert outputs.count_detections(detections) == 2
    assert rois[0].tolist() == [0, 0, 80, 160]
    assert (class_ids[0], scores[0]) == (2, np.float32(0.9))
    assert rois.dtype == class_ids.dtype == np.int32
    assert crops.whole()[..., 0].all()


@pytest.mark.parametrize("original_shape", [(1, 32), (3, 3000)])
def test_a_window_of_one_row_has_no_closed_boxes(original_shape):
    """Such an image is resized to one row."""
    detections = np.array([[8 / 15, 0, 8 / 15, 1, 1, 0.9]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rois, class_ids, scores, crops = outputs.place_in_image(
            detections,
            np.ones((1, 4, 4), np.float32),
            original_shape=original_shape,
            image_shape=(16, 16),
            window=(8, 0, 9, 16),
        )
    assert len(rois) == len(class_ids) == len(scores) == len(crops.crops) == 0


@pytest.mark.parametrize("mask_pasting", ["box", "expanded_box", "grid"])
def test_a_box_that_reaches_into_the_padding_is_cut(mask_pasting):
    """The window is the lower half. Half of the first box is above it, and all of the second."""
    detections = np.array([[4, 0, 12, 16, 16, 14.4], [0, 0, 8, 16, 16, 12.8]], np.float32) / 16
    class_masks = np.zeros((2, 4, 4), np.float32)
    class_masks[:, 2:] = 1  # the lower half of each box
    rois, _, scores, crops = outputs.place_in_image(
        detections,
        class_masks,
        original_shape=(80, 160, 3),
        image_shape=(16, 16, 3),
        window=(8, 0, 16, 16),
        half_open=True,
        mask_pasting=mask_pasting,
    )
    assert rois.tolist() == [[0, 0, 40, 160]] and scores.tolist() == [np.float32(0.9)]
    assert crops.boxes.min() >= 0 and (crops.boxes[:, 2:] <= (80, 160)).all()
    whole = crops.whole()[..., 0]
    assert whole[2:30, 20:140].all() and not whole[42:].any()


def test_no_masks_in_each_form():
    none = MaskCrops((9, 7), np.zeros((0, 4), np.int32), ())
    assert outputs.masks_in_form(none, "full").shape == (9, 7, 0)
    assert outputs.masks_in_form(none, "cropped") is none
    assert outputs.masks_in_form(none, "rle") == []


def test_an_unknown_form():
    with pytest.raises(ValueError, match="'boxes'"):
        outputs.check_mask_form("boxes")

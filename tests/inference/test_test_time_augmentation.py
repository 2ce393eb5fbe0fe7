"""Flipped copies and suppression by masks, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.geometry import masks as geometry
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference.test_time_augmentation import detect_with_options
from mrcnn.results.detections import Detections

SHAPE = (20, 30)


def config(flips="none", mask_nms=None, most=10, sigma=None):
    return SimpleNamespace(
        TEST_TIME_FLIPS=flips,
        MASK_NMS_THRESHOLD=mask_nms,
        SOFT_NMS_SIGMA=sigma,
        DETECTION_MIN_CONFIDENCE=0.05,
        DETECTION_NMS_THRESHOLD=0.3,
        DETECTION_MAX_INSTANCES=most,
    )


def left_half(pictures):
    """A detector that sees the left half alone: each bright value there is an instance, scored by itself."""
    results = []
    for picture in pictures:
        values = [value for value in np.unique(picture[:, :15]) if value]
        masks = np.zeros((*picture.shape[:2], len(values)), bool)
        for index, value in enumerate(values):
            masks[:, :15, index] = picture[:, :15] == value
        scores = np.array(values, np.float32) / 100
        rois = geometry.extract_bboxes(masks)
        results.append(
            {
                "rois": rois,
                "class_ids": np.ones(len(values), int),
                "scores": scores,
                "masks": MaskCrops.cut(masks),
            }
        )
    return results


def picture(*boxes):
    """Values 10, 20, ... in boxes (y1, x1, y2, x2)."""
    image = np.zeros(SHAPE, np.uint8)
    for number, (y1, x1, y2, x2) in enumerate(boxes, start=1):
        image[y1:y2, x1:x2] = 10 * number
    return image


def test_nothing_is_done_by_default():
    calls = []
    found = detect_with_options(lambda images: calls.append(images) or ["found"], ["image"], config())
    assert found == ["found"] and calls == [["image"]]


@pytest.mark.parametrize("flips", ["horizontal", "all"])
def test_flips_find_what_one_view_misses(flips):
    """One on the left, one on the right: boxes and masks come back in place, scores fall, none is double."""
    image = picture((2, 3, 8, 9), (10, 22, 15, 28))
    (found,) = detect_with_options(left_half, [image], config(flips))
    assert found["rois"].tolist() == [[10, 22, 15, 28], [2, 3, 8, 9]]
    np.testing.assert_allclose(found["scores"], [0.2, 0.1])
    for index, value in enumerate((20, 10)):
        np.testing.assert_array_equal(found["masks"].whole()[..., index], image == value)
    (one,) = detect_with_options(left_half, [image], config(flips, most=1))
    assert one["scores"].tolist() == found["scores"][:1].tolist() and one["masks"].whole().shape == (
        *SHAPE,
        1,
    )
    (none,) = detect_with_options(left_half, [picture()], config(flips))
    assert none["masks"].whole().shape == (*SHAPE, 0)


def two_boxes(first, second):
    """A detector that finds the same two boxes (x1, x2) in each view, with the scores 0.9 and 0.6."""
    masks = np.zeros((*SHAPE, 2), bool)
    for index, (x1, x2) in enumerate((first, second)):
        masks[:, x1:x2, index] = True
    rois, crops = geometry.extract_bboxes(masks), MaskCrops.cut(masks)
    found = {"rois": rois, "class_ids": np.ones(2, int), "scores": np.array([0.9, 0.6]), "masks": crops}
    return lambda pictures: [found for _ in pictures]


def test_soft_nms_of_objects_that_only_one_view_finds():
    """The network has lowered the scores within a view, so they stay."""
    detect = two_boxes((0, 10), (5, 15))
    (found,) = detect_with_options(detect, [np.zeros(SHAPE)], config("horizontal", sigma=0.5))
    assert found["rois"][:, 1].tolist() == [0, 20, 5, 15]
    np.testing.assert_allclose(found["scores"], [0.9, 0.9, 0.6, 0.6], rtol=1e-6)


def test_soft_nms_of_objects_that_both_views_find():
    detect = two_boxes((5, 25), (10, 20))  # their own mirror images, of IoU 1/2
    (found,) = detect_with_options(detect, [np.zeros(SHAPE)], config("horizontal", sigma=0.5))
    # Both boxes of the first view lower those of the second. The smaller one falls below the limit of 0.05.
    lowered = np.exp(-(1 + 0.5**2) / 0.5)
    np.testing.assert_allclose(found["scores"], [0.9, 0.6, 0.9 * lowered], rtol=1e-5)
    assert found["rois"][:, 1].tolist() == [5, 10, 5]
    assert found["masks"].whole().shape == (*SHAPE, 3)
    (one,) = detect_with_options(detect, [np.zeros(SHAPE)], config("horizontal", sigma=0.5, most=1))
    assert one["scores"].tolist() == found["scores"][:1].tolist()
    (strict,) = detect_with_options(detect, [np.zeros(SHAPE)], config("horizontal", sigma=0.5, mask_nms=0.3))
    assert strict["scores"].tolist() == [0.9]  # a threshold of masks still drops


@pytest.mark.parametrize("options", [{"mask_nms": 1.0}, {"flips": "all"}])
def test_masks_keep_the_pixels_outside_of_their_rois(options):
    """Some conventions paste masks into a region that is larger than the RoI."""
    regions, inwards = np.array([[2, 3, 9, 12], [10, 4, 19, 26]]), np.array([1, 1, -1, -1])
    masks = np.zeros((*SHAPE, 2), bool)
    for index, (y1, x1, y2, x2) in enumerate(regions):
        masks[y1:y2, x1:x2, index] = True

    def detect(pictures):
        results = []
        for image in pictures:  # found by its flip: the corner value tells it
            corner = int(np.argmax([image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]]))
            axes = ((), (1,), (0,), (0, 1))[corner]
            crops = MaskCrops.cut(np.flip(masks, axes))
            rois = crops.boxes + inwards
            results.append(Detections(rois, np.ones(2, int), np.array([0.9, 0.6], np.float32), crops))
        return results

    image = np.zeros(SHAPE)
    image[0, 0] = 1
    (found,) = detect_with_options(detect, [image], config(**options))
    np.testing.assert_array_equal(found["rois"], regions + inwards)
    np.testing.assert_array_equal(found["masks"].whole(), masks)


def test_suppression_by_masks_by_hand():
    """Two triangles share a box and no pixel; a third mask covers half of the first."""
    masks = np.zeros((10, 10, 3), bool)
    masks[..., 0] = np.tri(10, dtype=bool)
    masks[..., 1] = ~masks[..., 0]
    masks[5:, :, 2] = masks[5:, :, 0]  # 40 of its 55 pixels: IoU 40 / 55 = 0.73
    boxes = geometry.extract_bboxes(masks)
    scores, class_ids = np.array([0.5, 0.9, 0.7]), np.array([1, 1, 1])

    def kept(threshold, class_ids=class_ids):
        return geometry.non_max_suppression_masks(masks, boxes, scores, class_ids, threshold).tolist()

    assert kept(0.72) == [1, 2]
    assert kept(0.73) == [1, 2, 0]
    assert kept(0.0, np.array([1, 2, 3])) == [1, 2, 0]
    found = {"rois": boxes, "class_ids": class_ids, "scores": scores, "masks": MaskCrops.cut(masks)}
    (result,) = detect_with_options(lambda pictures: [found], [np.zeros((10, 10, 3))], config(mask_nms=0.5))
    assert result["scores"].tolist() == [0.9, 0.7]
    np.testing.assert_array_equal(result["masks"].whole(), masks[..., [1, 2]])

"""Second-stage targets in NumPy: choice of ROIs, class-specific deltas and masks; random ROIs."""

import numpy as np
import pytest
from toy_data import ToyConfig

from mrcnn.data.roi_targets import build_detection_targets, generate_random_rois
from mrcnn.geometry import masks as mask_geometry

BOXES = np.array([[10, 20, 50, 80], [60, 60, 100, 120], [0, 0, 128, 128]], dtype=np.int32)
CLASS_IDS = np.array([2, 3, -1], dtype=np.int32)


def config(rois=8, ratio=0.5, mini=False):
    values = ToyConfig()
    values.TRAIN_ROIS_PER_IMAGE = rois
    values.ROI_POSITIVE_RATIO = ratio
    values.USE_MINI_MASK = mini
    return values


def full_masks():
    masks = np.zeros((128, 128, 3), dtype=bool)
    for index, (y1, x1, y2, x2) in enumerate(BOXES):
        masks[y1:y2, x1 : (x1 + x2) // 2, index] = True  # the left half
    return masks


def test_values_worked_by_hand():
    rois = np.array([[10, 20, 50, 80], [64, 60, 104, 120], [0, 90, 20, 120]], dtype=np.int32)
    chosen, ids, bboxes, masks = build_detection_targets(rois, CLASS_IDS, BOXES, full_masks(), config(rois=4))
    assert chosen.tolist() == [*rois.tolist(), rois[2].tolist()]
    assert ids.tolist() == [2, 3, 0, 0]
    assert (ids.dtype, bboxes.dtype, masks.dtype) == (np.int32, np.float32, np.float32)
    wanted = np.zeros((4, 4, 4))
    wanted[1, 3] = [-4 / 40 / 0.1, 0, 0, 0]  # 4 of 40 pixels up, in standard deviations
    np.testing.assert_allclose(bboxes, wanted, atol=1e-5)
    assert masks.shape == (4, 28, 28, 4)
    assert masks[0, 5, 5, 2] == 1
    assert masks[0, 5, 20, 2] == 0
    assert not masks[0][..., [0, 1, 3]].any()
    assert masks[1, 5, 5, 3] == 1
    assert not masks[1, 27, :, 3].any()  # below the object
    assert not masks[2:].any()


def test_masks_are_resized_and_not_thresholded():
    rois = np.array([[10, 20, 50, 75]])  # the object's edge falls inside a cell
    masks = build_detection_targets(rois, CLASS_IDS, BOXES, full_masks(), config(rois=1, ratio=1))[3]
    edge = masks[0, 10, :, 2]
    assert ((edge > 0) & (edge < 1)).sum() == 1
    assert edge[:15].min() == 1
    assert edge[16:].max() == 0


def test_mini_masks_give_nearly_the_same():
    rois = np.array([[12, 18, 49, 83], [0, 90, 20, 120]], dtype=np.float64)
    full = build_detection_targets(rois, CLASS_IDS, BOXES, full_masks(), config())
    mini_masks = mask_geometry.minimize_mask(BOXES, full_masks(), (56, 56))
    mini = build_detection_targets(rois, CLASS_IDS, BOXES, mini_masks, config(mini=True))
    for first, second in zip(full[:3], mini[:3], strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.abs(full[3] - mini[3]).mean() < 0.01


def test_a_mini_mask_beyond_the_nominal_size():
    values = config(rois=1, ratio=1, mini=True)
    boxes = np.array([[100, 100, 160, 200]], dtype=np.int32)  # an image larger than 128 x 128
    mini = np.ones((56, 56, 1), dtype=bool)
    masks = build_detection_targets(boxes, np.array([1]), boxes, mini, values)[3]
    assert masks[0, :, :, 1].min() > 0.9


def test_the_choice_keeps_to_the_shares():
    rng = np.random.default_rng(0)
    positives = BOXES[0] + rng.integers(-2, 3, (20, 4))
    negatives = np.array([[100, 0, 120, 20]]) + rng.integers(0, 5, (20, 4)) * [1, 1, 1, 1]
    rois = np.concatenate([positives, negatives])
    for generator in (np.random.default_rng(0), np.random.RandomState(0), None):
        chosen, ids, _, _ = build_detection_targets(
            rois, CLASS_IDS, BOXES, full_masks(), config(rois=9, ratio=0.4), generator
        )
        assert (ids > 0).tolist() == [True] * 3 + [False] * 6
        assert len({tuple(roi) for roi in chosen[:3].tolist()} & set(map(tuple, positives.tolist())))


def test_positives_are_repeated_where_there_is_no_negative():
    chosen, ids, _, _ = build_detection_targets(BOXES[:1], CLASS_IDS, BOXES, full_masks(), config(rois=5))
    assert ids.tolist() == [2] * 5
    assert chosen.tolist() == BOXES[:1].tolist() * 5


@pytest.mark.parametrize(
    ("rois", "class_ids", "masks", "message"),
    [
        (np.zeros((0, 4)), CLASS_IDS, full_masks(), r"`rpn_rois` must hold at least one RoI.*shape=\(0, 4\)"),
        (BOXES, CLASS_IDS, full_masks()[..., :2], r"one mask per class id.*\(128, 128, 2\) and 3 class ids"),
        (
            np.array([[10, 20, 50, 50]]),
            CLASS_IDS,
            full_masks(),
            r"must hold a negative RoI.*IoUs from 0\.500 to 0\.500",
        ),
    ],
)
def test_bad_input_is_named(rois, class_ids, masks, message):
    with pytest.raises(ValueError, match=message):
        build_detection_targets(rois, class_ids, BOXES, masks, config())


@pytest.mark.parametrize("class_ids", [[], [-1, 0, -2]])
@pytest.mark.parametrize("mini", [True, False])
def test_without_objects_all_rois_are_negative(class_ids, mini):
    side, count = 56 if mini else 128, len(class_ids)
    rois = np.array([[0, 0, 9, 9], [20, 20, 60, 60]])
    chosen, ids, bboxes, masks = build_detection_targets(
        rois, np.array(class_ids, int), BOXES[:count], np.ones((side, side, count), bool), config(mini=mini)
    )
    assert {tuple(roi) for roi in chosen.tolist()} == {tuple(roi) for roi in rois.tolist()}
    assert (len(chosen), ids.tolist()) == (8, [0] * 8)
    assert not bboxes.any() and not masks.any()


@pytest.mark.parametrize("count", [1, 7, 200])
def test_random_rois_lie_inside_and_mostly_around_objects(count):
    boxes = np.array([[10, 20, 30, 50], [100, 100, 128, 128]])
    for rng in (np.random.default_rng(0), None):
        rois = generate_random_rois((128, 150, 3), count, None, boxes, rng)
        assert (rois.shape, rois.dtype) == ((count, 4), np.int32)
        assert (rois[:, :2] >= 0).all()
        assert (rois[:, 2:] <= [128, 150]).all()
        assert (rois[:, 2:] > rois[:, :2]).all()
        each = int(0.9 * count / 2)
        assert (rois[:each] >= [0, 0, 0, 0]).all()
        assert (rois[:each] <= [50, 80, 50, 80]).all()
        assert (rois[each : 2 * each] >= [72, 72, 72, 72]).all()


def test_random_rois_of_the_smallest_objects_and_of_none():
    pixel = np.array([[5, 5, 6, 6]])
    rois = generate_random_rois((8, 8), 50, None, pixel, np.random.default_rng(0))
    assert (rois[:45] >= 4).all()
    assert (rois[:45] <= 7).all()
    anywhere = generate_random_rois((8, 8), 50, None, np.zeros((0, 4)), np.random.default_rng(0))
    assert anywhere.shape == (50, 4)
    assert np.ptp(anywhere) == 8


def test_random_rois_follow_the_global_seed():
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(generate_random_rois((64, 64), 10, None, BOXES[:1] // 2))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])

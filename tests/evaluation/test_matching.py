import re
import warnings

import numpy as np
import pytest
from golden_files import golden_params, load

from mrcnn.evaluation import matching
from mrcnn.geometry import masks


def rectangles(bboxes, shape=(20, 30)):
    """One full mask per box."""
    mask = np.zeros((*shape, len(bboxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(bboxes):
        mask[y1:y2, x1:x2, i] = True
    return mask


def instances(bboxes, class_ids):
    bboxes = np.array(bboxes, np.int32).reshape(-1, 4)
    return bboxes, np.array(class_ids, np.int32), rectangles(bboxes)


def scene(gt, pred, scores):
    """The seven arrays that matching takes, from (boxes, class ids) twice and scores."""
    gt_boxes, gt_class_ids, gt_masks = instances(*gt)
    pred_boxes, pred_class_ids, pred_masks = instances(*pred)
    pred_scores = np.array(scores, np.float32)
    return gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks


def random_scene(rng, gt_count=6, pred_count=10):
    def some(count):
        corners = rng.integers(0, 10, (count, 2))
        sides = rng.integers(3, 10, (count, 2))
        return np.concatenate([corners, corners + sides], axis=1), rng.integers(1, 3, count)

    return scene(some(gt_count), some(pred_count), rng.permutation(pred_count) / pred_count)


def match_by_loops(arguments, iou_threshold, score_threshold):
    """The walk over sorted candidates, step by step, for scenes without padding."""
    _, gt_class_ids, gt_masks, _, pred_class_ids, pred_scores, pred_masks = arguments
    order = sorted(range(len(pred_scores)), key=lambda i: -pred_scores[i])
    gt_match, pred_match = [-1] * len(gt_class_ids), [-1] * len(order)
    for rank, pred in enumerate(order):
        ious = []
        for gt in range(len(gt_class_ids)):
            a, b = pred_masks[..., pred], gt_masks[..., gt]
            ious.append(np.float32((a & b).sum() / (a | b).sum()))
        for gt in sorted(range(len(ious)), key=lambda j: (ious[j], j), reverse=True):
            if ious[gt] < score_threshold:
                break
            if gt_match[gt] > -1:
                continue
            if ious[gt] < iou_threshold:
                break
            if gt_class_ids[gt] == pred_class_ids[pred]:
                gt_match[gt], pred_match[rank] = rank, gt
                break
    return gt_match, pred_match


GT = ([[0, 0, 10, 10], [0, 12, 10, 22]], [1, 2])


def test_worked_by_hand():
    pred = ([[0, 12, 10, 22], [0, 0, 10, 8], [0, 0, 10, 10]], [2, 1, 1])
    gt_match, pred_match, overlaps = matching.compute_matches(*scene(GT, pred, [0.5, 0.7, 0.6]))
    # in order of score: the 10 x 8 one takes the first, the exact one comes too late
    np.testing.assert_array_equal(gt_match, [0, 2])
    np.testing.assert_array_equal(pred_match, [0, -1, 1])
    np.testing.assert_allclose(overlaps, [[0.8, 0], [1, 0], [0, 1]], rtol=1e-6)
    assert gt_match.dtype == pred_match.dtype == np.float64


def test_class_must_agree():
    pred = ([[0, 0, 10, 10], [0, 12, 10, 22]], [2, 1])
    gt_match, pred_match, _ = matching.compute_matches(*scene(GT, pred, [0.9, 0.8]))
    np.testing.assert_array_equal(gt_match, [-1, -1])
    np.testing.assert_array_equal(pred_match, [-1, -1])


def test_other_class_gives_way_to_the_next_best():
    gt = ([[0, 0, 10, 10], [0, 0, 10, 9]], [2, 1])
    pred = ([[0, 0, 10, 10]], [1])
    gt_match, pred_match, _ = matching.compute_matches(*scene(gt, pred, [0.9]))
    np.testing.assert_array_equal(gt_match, [-1, 0])
    np.testing.assert_array_equal(pred_match, [1])


@pytest.mark.parametrize("name", ["iou_threshold", "score_threshold"])
def test_both_thresholds_are_compared_with_the_overlap(name):
    arguments = scene(GT, ([[0, 0, 10, 8]], [1]), [0.1])
    assert matching.compute_matches(*arguments, **{name: 0.79})[1] == 0
    assert matching.compute_matches(*arguments, **{name: 0.81})[1] == -1


@pytest.mark.parametrize("iou_threshold", [0.0, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
def test_equals_the_walk_over_candidates(iou_threshold, score_threshold):
    rng = np.random.default_rng(1)
    matched = 0
    for _ in range(20):
        arguments = random_scene(rng)
        gt_match, pred_match, _ = matching.compute_matches(
            *arguments, iou_threshold=iou_threshold, score_threshold=score_threshold
        )
        expected = match_by_loops(arguments, iou_threshold, score_threshold)
        np.testing.assert_array_equal(gt_match, expected[0])
        np.testing.assert_array_equal(pred_match, expected[1])
        matched += (gt_match > -1).sum()
    assert matched > 0


def test_matches_are_one_to_one():
    rng = np.random.default_rng(2)
    for _ in range(20):
        gt_match, pred_match, overlaps = matching.compute_matches(*random_scene(rng, 8, 12), 0.3)
        for pred, gt in enumerate(pred_match.astype(int)):
            if gt > -1:
                assert gt_match[gt] == pred
                assert overlaps[pred, gt] >= np.float32(0.3)
        assert (gt_match > -1).sum() == (pred_match > -1).sum()


def test_padding_is_dropped():
    arguments = random_scene(np.random.default_rng(3))
    padded = tuple(
        np.pad(a, [(0, 0), (0, 0), (0, 3)] if a.ndim == 3 else [(0, 3)] + [(0, 0)] * (a.ndim - 1))
        for a in arguments
    )
    for found, expected in zip(
        matching.compute_matches(*padded), matching.compute_matches(*arguments), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_equal_scores_take_the_later_prediction_first():
    pred = ([[0, 0, 10, 10], [0, 0, 10, 9]], [1, 1])
    _, pred_match, overlaps = matching.compute_matches(*scene(GT, pred, [0.5, 0.5]))
    np.testing.assert_allclose(overlaps[:, 0], [0.9, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(pred_match, [0, -1])


def test_nothing():
    nothing = ([], [])
    gt_match, pred_match, overlaps = matching.compute_matches(*scene(GT, nothing, []))
    np.testing.assert_array_equal(gt_match, [-1, -1])
    assert (pred_match.shape, overlaps.shape) == ((0,), (0, 2))
    gt_match, pred_match, overlaps = matching.compute_matches(*scene(nothing, GT, [0.5, 0.6]))
    np.testing.assert_array_equal(pred_match, [-1, -1])
    assert (gt_match.shape, overlaps.shape) == ((0,), (2, 0))


def test_two_empty_masks_do_not_match():
    bboxes, class_ids, mask = instances(*GT)
    empty = np.zeros_like(mask)
    scores = np.array([0.9, 0.8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gt_match, _, overlaps = matching.compute_matches(
            bboxes, class_ids, empty, bboxes, class_ids, scores, empty
        )
    assert np.isnan(overlaps).all()
    np.testing.assert_array_equal(gt_match, [-1, -1])


def test_masks_of_other_images_are_an_error():
    gt_boxes, gt_class_ids, _, *pred = scene(GT, GT, [0.9, 0.8])
    other = rectangles(gt_boxes, shape=(30, 20))
    with pytest.raises(ValueError, match="same height and width"):
        matching.compute_matches(gt_boxes, gt_class_ids, other, *pred)


@pytest.mark.parametrize("place", range(7))
def test_missing_entries_are_an_error(place):
    arguments = list(scene(GT, GT, [0.9, 0.8]))
    if place in (0, 3):  # one box more than everything else
        arguments[place] = np.concatenate([arguments[place], [[1, 1, 2, 2]]])
    else:
        arguments[place] = arguments[place][..., :1]
    what = "ground truth" if place < 3 else "predictions"
    with pytest.raises(ValueError, match=what):
        matching.compute_matches(*arguments)


@pytest.mark.parametrize("path", golden_params("utils_ap*.npz"))
class TestGolden:
    def test_matches(self, path, golden_scene):
        recording = load(path)
        keys = [re.fullmatch(r"((s\d+)_(iou|st)(\d+))_gt_match", key) for key in recording]
        keys = [key.groups() for key in keys if key]
        assert keys
        for name, number, kind, percent in keys:
            threshold = {"iou": "iou_threshold", "st": "score_threshold"}[kind]
            gt_match, pred_match, overlaps = matching.compute_matches(
                *golden_scene(recording, number), **{threshold: int(percent) / 100}
            )
            np.testing.assert_array_equal(gt_match, recording[f"{name}_gt_match"], name)
            np.testing.assert_array_equal(pred_match, recording[f"{name}_pred_match"], name)
            if f"{name}_overlaps" in recording:
                expected = recording[f"{name}_overlaps"]
                assert overlaps.dtype == expected.dtype
                np.testing.assert_allclose(overlaps, expected, rtol=1e-6, err_msg=name)

    def test_padded(self, path, golden_scene):
        recording = load(path)
        arguments = golden_scene(recording, "s0")
        gt, pred = arguments[:3], arguments[3:]
        # the note: scene 0, ground truth padded to 10 rows, predictions to 20, with zeros
        arguments = (*(pad_instances(a, 10) for a in gt), *(pad_instances(a, 20) for a in pred))
        gt_match, pred_match, overlaps = matching.compute_matches(*arguments)
        np.testing.assert_array_equal(gt_match, recording["padded_gt_match"])
        np.testing.assert_array_equal(pred_match, recording["padded_pred_match"])
        np.testing.assert_allclose(overlaps, recording["padded_overlaps"], rtol=1e-6)


def pad_instances(array, rows):
    axis = 2 if array.ndim == 3 else 0
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, rows - array.shape[axis])
    return np.pad(array, widths)


def test_ranked_overlaps_sorts_predictions():
    arguments = random_scene(np.random.default_rng(4))
    _, gt_class_ids, gt_masks, _, pred_class_ids, pred_scores, pred_masks = arguments
    order = np.argsort(-pred_scores)
    found = matching.ranked_overlaps(*arguments)
    np.testing.assert_array_equal(found[0], gt_class_ids)
    np.testing.assert_array_equal(found[1], pred_class_ids[order])
    expected = masks.compute_overlaps_masks(pred_masks[..., order], gt_masks)
    np.testing.assert_array_equal(found[2], expected)

import re
import warnings

import numpy as np
import pytest
from golden_files import golden_params, load

from mrcnn.evaluation import average_precision


def squares(places, class_ids):
    """Masks of 10 x 10 pixels at columns 20 * place of one image; their boxes and class ids."""
    mask = np.zeros((10, 200, len(places)), bool)
    bboxes = np.zeros((len(places), 4), np.int32)
    for i, place in enumerate(places):
        bboxes[i] = 0, 20 * place, 10, 20 * place + 10
        mask[:, 20 * place : 20 * place + 10, i] = True
    return bboxes, np.array(class_ids, np.int32), mask


def scene(gt_places, pred_places, scores=None):
    gt = squares(gt_places, np.ones(len(gt_places)))
    bboxes, class_ids, mask = squares(pred_places, np.ones(len(pred_places)))
    scores = np.linspace(1, 0.1, len(pred_places)) if scores is None else np.array(scores)
    return (*gt, bboxes, class_ids, scores, mask)


def ap_by_loops(hits, gt_count):
    """Area under the interpolated curve: for each new hit, the best precision from there on."""
    precisions = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    return sum(max(precisions[k:]) / gt_count for k in range(len(hits)) if hits[k])


class TestAveragePrecision:
    def test_worked_by_hand(self):
        # found, missed, found of three: precision 1, 1/2, 2/3
        ap, precisions, recalls, overlaps = average_precision.compute_ap(*scene([0, 1, 2], [0, 7, 2]))
        assert ap == pytest.approx(1 / 3 + 2 / 9, rel=1e-6)
        np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 2 / 3, 0])
        np.testing.assert_allclose(recalls, [0, 1 / 3, 1 / 3, 2 / 3, 1], rtol=1e-6)
        np.testing.assert_array_equal(overlaps, [[1, 0, 0], [0, 0, 0], [0, 0, 1]])

    def test_all_found_is_one(self):
        assert average_precision.compute_ap(*scene([0, 1, 2], [2, 0, 1]))[0] == pytest.approx(1)

    def test_false_positives_with_low_scores_cost_nothing(self):
        assert average_precision.compute_ap(*scene([0, 1], [0, 1, 5, 6]))[0] == pytest.approx(1)

    def test_a_second_find_is_a_false_positive(self):
        assert average_precision.compute_ap(*scene([0, 1], [0, 0, 1]))[0] == pytest.approx(1 / 2 + 1 / 3)

    def test_order_of_predictions_does_not_matter(self):
        arguments = scene([0, 1, 2, 3], [9, 1, 8, 3, 0], [0.9, 0.5, 0.7, 0.6, 0.1])
        order = np.array([3, 1, 4, 0, 2])
        shuffled = [*arguments[:3], *(a[..., order] for a in arguments[4:])]
        shuffled.insert(3, arguments[3][order])
        assert average_precision.compute_ap(*arguments)[0] == (average_precision.compute_ap(*shuffled)[0])

    def test_equals_plain_loops(self):
        rng = np.random.default_rng(1)
        for _ in range(50):
            gt_count = rng.integers(1, 6)
            pred_places = rng.permutation(10)[: rng.integers(1, 10)]
            ap = average_precision.compute_ap(*scene(range(gt_count), pred_places))[0]
            hits = [int(place < gt_count) for place in pred_places]
            assert ap == pytest.approx(ap_by_loops(hits, gt_count), rel=1e-6)
            assert 0 <= ap <= 1 + 1e-6

    def test_no_predictions(self):
        ap, precisions, recalls, overlaps = average_precision.compute_ap(*scene([0, 1], []))
        assert ap == 0.0
        np.testing.assert_array_equal(precisions, [0, 0])
        np.testing.assert_array_equal(recalls, [0, 1])
        assert overlaps.shape == (0, 2)

    def test_no_ground_truth_is_nan_quietly(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(average_precision.compute_ap(*scene([], [0, 1]))[0])
            assert np.isnan(average_precision.compute_ap_range(*scene([], [0]), verbose=0))


class TestRange:
    # half of the first object is predicted: IoU 0.5; the second exactly
    GT = squares([0, 1], [1, 1])

    @pytest.fixture
    def arguments(self):
        bboxes, class_ids, mask = squares([1, 0], [1, 1])
        mask[:, 5:10, 1] = False
        return (*self.GT, bboxes, class_ids, np.array([0.9, 0.8]), mask)

    def test_default_is_ten_thresholds(self, arguments, capsys):
        mean = average_precision.compute_ap_range(*arguments)
        assert isinstance(mean, float)
        assert mean == pytest.approx((1 + 9 * 0.5) / 10)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 11
        assert lines[0].split() == ["AP", "@0.50:", "1.000"]
        assert lines[9].split() == ["AP", "@0.95:", "0.500"]
        assert lines[10].split() == ["AP", "@0.50-0.95:", "0.550"]

    @pytest.mark.parametrize("container", [list, tuple, np.array])
    def test_thresholds_may_be_any_sequence(self, arguments, container, capsys):
        thresholds = container([0.4, 0.5, 0.6, 0.7])
        mean = average_precision.compute_ap_range(*arguments, thresholds, verbose=0)
        assert mean == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
        assert capsys.readouterr().out == ""

    def test_no_thresholds_are_the_default(self, arguments):
        mean = average_precision.compute_ap_range(*arguments, [], verbose=0)
        assert mean == pytest.approx(0.55)

    def test_is_the_mean_of_compute_ap(self, arguments):
        thresholds = [0.3, 0.5, 0.8]
        each = [average_precision.compute_ap(*arguments, iou_threshold=t)[0] for t in thresholds]
        assert average_precision.compute_ap_range(*arguments, thresholds, 0) == np.mean(each)

    def test_no_predictions(self):
        assert average_precision.compute_ap_range(*scene([0, 1], []), verbose=0) == 0.0


class TestRecall:
    GT = np.array([[0, 0, 10, 10], [0, 20, 10, 30], [0, 40, 10, 50]])

    def test_worked_by_hand(self):
        pred = np.array([[0, 0, 10, 10], [0, 1, 10, 10], [0, 28, 10, 38], [0, 40, 10, 45]])
        recall, positive_ids = average_precision.compute_recall(pred, self.GT, 0.5)
        assert recall == pytest.approx(2 / 3)  # the first twice, the third at exactly 0.5
        np.testing.assert_array_equal(positive_ids, [0, 1, 3])

    def test_nothing_found(self):
        recall, positive_ids = average_precision.compute_recall(self.GT + 100, self.GT, 0.5)
        assert (recall, len(positive_ids)) == (0.0, 0)

    def test_no_predictions(self):
        recall, positive_ids = average_precision.compute_recall(np.zeros((0, 4)), self.GT, 0.5)
        assert (recall, len(positive_ids)) == (0.0, 0)

    def test_no_ground_truth_is_nan(self):
        recall, positive_ids = average_precision.compute_recall(self.GT, np.zeros((0, 4)), 0.5)
        assert np.isnan(recall)
        assert len(positive_ids) == 0


@pytest.mark.parametrize("path", golden_params("utils_ap*.npz"))
class TestGolden:
    def test_average_precision(self, path, golden_scene):
        recording = load(path)
        keys = [re.fullmatch(r"((s\d+)_iou(\d+))_ap", key) for key in recording]
        keys = [key.groups() for key in keys if key]
        assert keys
        for name, number, percent in keys:
            ap, precisions, recalls, overlaps = average_precision.compute_ap(
                *golden_scene(recording, number), iou_threshold=int(percent) / 100
            )
            assert_same(ap, recording[f"{name}_ap"], name)
            assert_same(precisions, recording[f"{name}_precisions"], name)
            assert_same(recalls, recording[f"{name}_recalls"], name)
            np.testing.assert_allclose(overlaps, recording[f"{name}_overlaps"], rtol=1e-6)

    def test_range(self, path, golden_scene):
        recording = load(path)
        keys = [re.fullmatch(r"(s\d+)_ap_range(?:_(\d+))?", key) for key in recording]
        keys = [key.groups() for key in keys if key]
        assert keys
        for number, digits in keys:
            thresholds = [int(digit) / 10 for digit in digits] if digits else None
            mean = average_precision.compute_ap_range(*golden_scene(recording, number), thresholds, verbose=0)
            name = f"{number}_ap_range" + (f"_{digits}" if digits else "")
            assert_same(mean, recording[name], name)

    def test_recall(self, path):
        recording = load(path)
        for key in recording:
            if match := re.fullmatch(r"(s\d+)_recall", key):
                gt_boxes, pred_boxes = (recording[f"{match[1]}_{kind}_boxes"] for kind in ("gt", "pred"))
                recall, positive_ids = average_precision.compute_recall(pred_boxes, gt_boxes, 0.5)
                assert_same(recall, recording[key], key)
                np.testing.assert_array_equal(positive_ids, recording[f"{key}_ids"])


def assert_same(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=1e-9, equal_nan=True, err_msg=name)

import re
import warnings

import numpy as np
import pytest
from golden_files import golden_params, load

from mrcnn.geometry import boxes


def random_boxes(rng, count, side=100, dtype=np.int32):
    corners = np.sort(rng.integers(0, side, (count, 2, 2)), axis=1)
    corners[:, 1] += 1  # at least one pixel
    return corners.reshape(count, 4).astype(dtype)


def iou_of_two(a, b):
    """Plain arithmetic on two boxes, in Python's own numbers."""
    a, b = [float(v) for v in a], [float(v) for v in b]
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union


def suppress_by_loops(all_boxes, scores, threshold):
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i), reverse=True)
    kept = []
    for i in order:
        if all(iou_of_two(all_boxes[i], all_boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


class TestOverlaps:
    def test_worked_by_hand(self):
        one = np.array([[0, 0, 10, 10]])
        many = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [10, 10, 20, 20], [2, 2, 4, 4]])
        expected = [[1.0, 50 / 150, 0.0, 4 / 100]]
        np.testing.assert_allclose(boxes.compute_overlaps(one, many), expected, rtol=1e-15)

    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
    def test_equals_plain_loops(self, dtype):
        rng = np.random.default_rng(1)
        first, second = random_boxes(rng, 30, dtype=dtype), random_boxes(rng, 7, dtype=dtype)
        expected = [[iou_of_two(a, b) for b in second] for a in first]
        overlaps = boxes.compute_overlaps(first, second)
        assert overlaps.dtype == np.float64
        np.testing.assert_allclose(overlaps, expected, rtol=1e-6 if dtype == np.float32 else 1e-12)

    def test_long_sets_are_computed_in_parts(self, monkeypatch):
        rng = np.random.default_rng(2)
        first, second = random_boxes(rng, 101), random_boxes(rng, 9)
        at_once = boxes.compute_overlaps(first, second)
        monkeypatch.setattr(boxes, "PAIRS_AT_A_TIME", 50)
        np.testing.assert_array_equal(boxes.compute_overlaps(first, second), at_once)
        monkeypatch.setattr(boxes, "PAIRS_AT_A_TIME", 1)
        np.testing.assert_array_equal(boxes.compute_overlaps(first, second), at_once)

    def test_properties(self):
        rng = np.random.default_rng(3)
        some = random_boxes(rng, 50)
        overlaps = boxes.compute_overlaps(some, some)
        assert overlaps.min() >= 0
        assert overlaps.max() <= 1
        np.testing.assert_array_equal(np.diag(overlaps), 1)
        np.testing.assert_array_equal(overlaps, overlaps.T)

    @pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0), (0, 0)])
    def test_empty_sets(self, first, second):
        overlaps = boxes.compute_overlaps(np.zeros((first, 4)), np.zeros((second, 4)))
        assert overlaps.shape == (first, second)
        assert overlaps.dtype == np.float64

    def test_two_boxes_without_area_give_nan_quietly(self):
        point = np.zeros((1, 4), dtype=np.int32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(boxes.compute_overlaps(point, point)).all()
            assert boxes.compute_overlaps(point, np.array([[0, 0, 5, 5]])) == 0

    def test_areas_of_integer_boxes_do_not_overflow(self):
        large = np.array([[0, 0, 60_000, 60_000]], dtype=np.int32)
        half = np.array([[0, 0, 60_000, 30_000]], dtype=np.int32)
        assert boxes.compute_overlaps(large, half) == 0.5

    def test_iou_of_one_box_is_a_row_of_the_overlaps(self):
        rng = np.random.default_rng(4)
        some = random_boxes(rng, 20)
        areas = (some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1])
        row = boxes.compute_iou(some[3], some, areas[3], areas)
        np.testing.assert_array_equal(row, boxes.compute_overlaps(some, some)[3])


class TestNonMaxSuppression:
    def test_worked_by_hand(self):
        some = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5]])
        scores = np.array([0.5, 0.9, 0.1, 0.7])
        kept = boxes.non_max_suppression(some, scores, 0.6)
        assert kept.dtype == np.int32
        np.testing.assert_array_equal(kept, [1, 3, 2])  # 9/10 goes; 5/9 = 0.56 stays

    def test_overlap_equal_to_the_threshold_stays(self):
        some = np.array([[0, 0, 10, 10], [0, 0, 10, 5]])
        np.testing.assert_array_equal(boxes.non_max_suppression(some, [0.9, 0.8], 0.5), [0, 1])
        np.testing.assert_array_equal(boxes.non_max_suppression(some, [0.9, 0.8], 0.499), [0])

    def test_equal_scores_take_the_higher_index_first(self):
        apart = np.arange(40)[:, None] * 100 + np.array([0, 0, 10, 10])
        kept = boxes.non_max_suppression(apart, np.full(40, 0.5), 0.5)
        np.testing.assert_array_equal(kept, np.arange(40)[::-1])

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
    @pytest.mark.parametrize("dtype", [np.int32, np.float64])
    def test_equals_plain_loops(self, threshold, dtype):
        rng = np.random.default_rng(5)
        for _ in range(5):
            some = random_boxes(rng, 60, side=40, dtype=dtype)
            scores = rng.integers(0, 20, 60) / 20
            np.testing.assert_array_equal(
                boxes.non_max_suppression(some, scores, threshold),
                suppress_by_loops(some, scores, threshold),
            )

    def test_boxes_without_area_do_not_suppress(self):
        kept = boxes.non_max_suppression(np.zeros((3, 4)), np.array([0.1, 0.2, 0.3]), 0.5)
        np.testing.assert_array_equal(kept, [2, 1, 0])

    def test_no_box_is_an_error(self):
        with pytest.raises(ValueError, match="at least one row"):
            boxes.non_max_suppression(np.zeros((0, 4)), np.zeros(0), 0.5)


class TestSoftNonMaxSuppression:
    BOXES = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]])
    SCORES = np.array([0.8, 0.9, 0.7, 0.1])
    ONE_CLASS = np.ones(4, int)

    def test_worked_by_hand(self):
        kept, lowered = boxes.soft_non_max_suppression(self.BOXES, self.SCORES, self.ONE_CLASS, 0.5)
        same, third = np.exp(-1 / 0.5), np.exp(-((1 / 3) ** 2) / 0.5)
        # The third box is the second to be taken: the first one's score is lower by then.
        np.testing.assert_allclose(lowered, [0.8 * same * third, 0.9, 0.7 * third, 0.1], rtol=1e-6)
        assert lowered.dtype == np.float32 and kept.tolist() == [1, 2, 3, 0]

    def test_only_boxes_of_a_class_lower_each_other(self):
        kept, lowered = boxes.soft_non_max_suppression(self.BOXES, self.SCORES, np.array([1, 2, 3, 3]), 0.5)
        np.testing.assert_allclose(lowered, self.SCORES, rtol=1e-6)
        assert kept.tolist() == [1, 0, 2, 3]

    def test_boxes_of_a_view_do_not_lower_each_other(self):
        views = np.array([0, 0, 1, 1])
        _, lowered = boxes.soft_non_max_suppression(self.BOXES, self.SCORES, self.ONE_CLASS, 0.5, views=views)
        third = np.exp(-((1 / 3) ** 2) / 0.5)
        np.testing.assert_allclose(lowered, [0.8, 0.9, 0.7 * third**2, 0.1], rtol=1e-6)

    def test_lowest_scores(self):
        far = np.arange(4)[:, None] * 20 + np.array([0, 0, 10, 10])
        scores = np.array([0.5, 0.0011, 0.0009, 0.4999])

        def kept(min_score):
            return boxes.soft_non_max_suppression(far, scores, self.ONE_CLASS, 0.5, min_score)[0].tolist()

        assert kept(0.5) == [0]
        assert kept(0.0) == [0, 3, 1]

    def test_equal_scores_take_the_first_box_first(self):
        kept, lowered = boxes.soft_non_max_suppression(
            self.BOXES[[0, 1, 1]], np.full(3, 0.8), self.ONE_CLASS[:3], 0.5
        )
        assert kept.tolist() == [0, 1, 2]
        np.testing.assert_allclose(lowered, 0.8 * np.exp([0, -2, -4]), rtol=1e-6)

    def test_boxes_without_area_do_not_lower_scores(self):
        kept, lowered = boxes.soft_non_max_suppression(
            np.zeros((3, 4)), np.array([0.3, 0.2, 0.1]), self.ONE_CLASS[:3], 0.5
        )
        assert kept.tolist() == [0, 1, 2]
        np.testing.assert_allclose(lowered, [0.3, 0.2, 0.1], rtol=1e-6)

    def test_no_boxes(self):
        kept, lowered = boxes.soft_non_max_suppression(
            np.zeros((0, 4), int), np.zeros(0), np.zeros(0, int), 0.5
        )
        assert kept.shape == lowered.shape == (0,)


class TestDeltas:
    def test_worked_by_hand(self):
        box = np.array([[10, 20, 30, 60]])  # centre (20, 40), 20 x 40
        delta = np.array([[0.5, -0.25, np.log(2), 0.0]])
        moved = boxes.apply_box_deltas(box, delta)  # centre (30, 30), 40 x 40
        assert moved.dtype == np.float32
        np.testing.assert_allclose(moved, [[10, 10, 50, 50]], rtol=1e-6)
        np.testing.assert_allclose(boxes.box_refinement(box, moved), delta, rtol=1e-6, atol=1e-7)

    def test_zero_deltas_change_nothing(self):
        some = random_boxes(np.random.default_rng(6), 20)
        np.testing.assert_array_equal(boxes.apply_box_deltas(some, np.zeros((20, 4))), some)
        np.testing.assert_array_equal(boxes.box_refinement(some, some), 0)

    def test_round_trip(self):
        rng = np.random.default_rng(7)
        some, others = random_boxes(rng, 200), random_boxes(rng, 200)
        deltas = boxes.box_refinement(some, others)
        assert deltas.dtype == np.float32
        np.testing.assert_allclose(boxes.apply_box_deltas(some, deltas), others, atol=1e-3)

    def test_input_is_not_changed(self):
        some = random_boxes(np.random.default_rng(8), 5, dtype=np.float32)
        before = some.copy()
        boxes.apply_box_deltas(some, np.ones((5, 4), np.float32))
        np.testing.assert_array_equal(some, before)

    def test_no_boxes(self):
        nothing = np.zeros((0, 4))
        assert boxes.apply_box_deltas(nothing, nothing).shape == (0, 4)
        assert boxes.box_refinement(nothing, nothing).shape == (0, 4)

    def test_box_without_area_is_quiet(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            deltas = boxes.box_refinement(np.zeros((1, 4)), np.array([[0, 0, 1, 1]]))
        assert not np.isfinite(deltas).any()


class TestCoordinates:
    def test_whole_image_is_the_unit_square(self):
        whole = np.array([0, 0, 480, 640])
        normalized = boxes.norm_boxes(whole, (480, 640))
        assert normalized.dtype == np.float32
        np.testing.assert_array_equal(normalized, [0, 0, 1, 1])
        np.testing.assert_array_equal(boxes.denorm_boxes(normalized, (480, 640)), whole)

    def test_padding_is_not_zero_afterwards(self):
        padding = boxes.norm_boxes(np.zeros((1, 4)), (101, 51))
        np.testing.assert_allclose(padding, [[0, 0, -0.01, -0.02]], rtol=1e-6)

    def test_a_side_of_one_pixel(self):
        """Closed boxes have no extent there."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            normalized = boxes.norm_boxes(np.array([[0, 0, 1, 5]]), (1, 11))
        np.testing.assert_allclose(normalized, [[np.nan, 0, np.nan, 0.4]], rtol=1e-6)
        np.testing.assert_array_equal(boxes.norm_boxes(np.array([0, 0, 1, 11]), (1, 11), True), [0, 0, 1, 1])

    def test_box_without_area_becomes_one_pixel(self):
        pixels = boxes.denorm_boxes(np.array([0.5, 0.5, 0.5, 0.5]), (11, 11))
        np.testing.assert_array_equal(pixels, [5, 5, 6, 6])

    def test_halves_are_rounded_to_even(self):
        normalized = np.array([[0.05, 0.15, 0.25, 0.35]])
        pixels = boxes.denorm_boxes(normalized, (11, 11))
        assert pixels.dtype == np.int32
        np.testing.assert_array_equal(pixels, [[0, 2, 4, 4]])  # 0.5, 1.5, 3.5, 4.5

    @pytest.mark.parametrize("shape", [(2, 2), (100, 37), (1024, 1024), (3000, 4000)])
    def test_round_trip(self, shape):
        rng = np.random.default_rng(9)
        some = random_boxes(rng, 100, side=min(shape))
        back = boxes.denorm_boxes(boxes.norm_boxes(some, shape), shape)
        np.testing.assert_array_equal(back, some)

    @pytest.mark.parametrize("function", [boxes.norm_boxes, boxes.denorm_boxes])
    def test_shape_with_channels_is_an_error(self, function):
        with pytest.raises(ValueError, match=r"Received: shape=\(10, 10, 3\)"):
            function(np.zeros((1, 4)), (10, 10, 3))


class TestClipAndTrim:
    def test_clip_worked_by_hand(self):
        some = np.array([[-5, -5, 5, 5], [2, 2, 20, 30], [50, 50, 60, 60], [3, 4, 5, 6]])
        clipped = boxes.clip_boxes(some, (1, 0, 10, 12))
        assert clipped.dtype == some.dtype
        expected = [[1, 0, 5, 5], [2, 2, 10, 12], [10, 12, 10, 12], [3, 4, 5, 6]]
        np.testing.assert_array_equal(clipped, expected)

    def test_clip_keeps_the_type_and_the_leading_axes(self):
        some = np.full((2, 3, 4), 7.5, np.float32)
        clipped = boxes.clip_boxes(some, (0, 0, 1, 1))
        assert clipped.dtype == np.float32
        np.testing.assert_array_equal(clipped, np.ones((2, 3, 4)))

    def test_trim_drops_only_rows_that_are_entirely_zero(self):
        rows = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 0, 0]])
        np.testing.assert_array_equal(boxes.trim_zeros(rows), rows[[0, 2]])
        assert boxes.trim_zeros(np.zeros((0, 4))).shape == (0, 4)

    def test_trim_wants_a_matrix(self):
        with pytest.raises(ValueError, match=r"shape \(rows, columns\)"):
            boxes.trim_zeros(np.zeros(4))


@pytest.mark.parametrize("path", golden_params("utils_basic*.npz"))
class TestGolden:
    def test_overlaps(self, path):
        recording = load(path)
        b1, b2 = recording["ov_b1"], recording["ov_b2"]
        np.testing.assert_allclose(
            boxes.compute_overlaps(b1, b2), recording["ov_out"], rtol=1e-9, equal_nan=True
        )
        np.testing.assert_allclose(
            boxes.compute_overlaps(recording["ov_f1"], recording["ov_f2"]),
            recording["ov_fout"],
            rtol=1e-9,
        )
        empty = boxes.compute_overlaps(b1, np.zeros((0, 4), np.int32))
        assert empty.shape == recording["ov_empty_out"].shape

        def area(some):
            return (some[..., 2] - some[..., 0]) * (some[..., 3] - some[..., 1])

        box = recording["iou_box"]
        iou = boxes.compute_iou(box, b2, area(box), area(b2))
        np.testing.assert_allclose(iou, recording["iou_out"], rtol=1e-9)

    def test_non_max_suppression(self, path):
        recording = load(path)
        names = [m[1] for m in (re.fullmatch(r"(nms\d+)_boxes", key) for key in recording) if m]
        assert names
        for name in names:
            kept = boxes.non_max_suppression(
                recording[f"{name}_boxes"], recording[f"{name}_scores"], recording[f"{name}_th"]
            )
            np.testing.assert_array_equal(kept, recording[f"{name}_out"], err_msg=name)

    def test_deltas(self, path):
        recording = load(path)
        moved = boxes.apply_box_deltas(recording["delta_boxes"], recording["delta_d"])
        np.testing.assert_allclose(moved, recording["delta_out"], rtol=1e-6, atol=1e-5)
        deltas = boxes.box_refinement(recording["ref_box"], recording["ref_gt"])
        np.testing.assert_allclose(deltas, recording["ref_out"], rtol=1e-6, atol=1e-7)

    def test_coordinates(self, path):
        recording = load(path)
        shape = recording["norm_shape"]
        normalized = boxes.norm_boxes(recording["norm_in"], shape)
        assert normalized.dtype == recording["norm_out"].dtype
        np.testing.assert_allclose(normalized, recording["norm_out"], rtol=1e-6)
        np.testing.assert_array_equal(
            boxes.denorm_boxes(recording["norm_out"], shape), recording["denorm_out"]
        )
        for key in recording:
            if match := re.fullmatch(r"(denorm\d+)_in", key):
                name = match[1]
                pixels = boxes.denorm_boxes(recording[key], recording[f"{name}_shape"])
                np.testing.assert_array_equal(pixels, recording[f"{name}_out"], err_msg=name)

    def test_trim_zeros(self, path):
        recording = load(path)
        np.testing.assert_array_equal(boxes.trim_zeros(recording["trim_in"]), recording["trim_out"])

"""Boxes as tensors against `geometry.boxes`, and non-maximum suppression against the greedy rule."""

import numpy as np
import pytest
from keras import ops
from tensor_tools import call, gradients

from mrcnn.geometry import boxes as geometry
from mrcnn.network import box_ops

COUNT = 5000


def random_boxes(seed, count=COUNT, largest=0.3):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.1, 0.9, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0.001, largest, (count, 2))], 1).astype("float32")


@pytest.fixture(scope="module")
def pair():
    return random_boxes(1), random_boxes(2)


class TestAgainstGeometry:
    def test_apply_box_deltas(self, pair):
        deltas = np.random.default_rng(3).normal(0, 1, (COUNT, 4)).astype("float32")
        found = call(box_ops.apply_box_deltas, pair[0], deltas)
        np.testing.assert_allclose(found, geometry.apply_box_deltas(pair[0], deltas), rtol=1e-5, atol=1e-6)

    def test_apply_box_deltas_of_a_batch(self, pair):
        deltas = np.zeros((2, 3, 4), "float32")
        deltas[1] = (0.5, -0.5, np.log(2), 0)
        boxes = np.broadcast_to(np.array([1, 2, 3, 6], "float32"), (2, 3, 4))
        found = call(box_ops.apply_box_deltas, boxes, deltas)
        np.testing.assert_allclose(found[0], boxes[0])
        np.testing.assert_allclose(found[1], [[1, 0, 5, 4]] * 3, rtol=1e-6)

    def test_box_refinement(self, pair):
        found = call(box_ops.box_refinement, *pair)
        np.testing.assert_allclose(found, geometry.box_refinement(*pair), rtol=1e-4, atol=1e-5)

    def test_refinement_is_undone_by_applying_it(self, pair):
        found = call(lambda a, b: box_ops.apply_box_deltas(a, box_ops.box_refinement(a, b)), *pair)
        np.testing.assert_allclose(found, pair[1], atol=1e-5)

    def test_refinement_of_whole_pixels(self):
        found = call(box_ops.box_refinement, np.array([[0, 0, 4, 4]]), np.array([[0, 2, 8, 4]]))
        np.testing.assert_allclose(found, [[0.5, 0.25, np.log(2), -np.log(2)]], rtol=1e-6)

    def test_clip_boxes(self, pair):
        window = np.array([0.1, 0.2, 0.6, 0.7], "float32")
        found = call(box_ops.clip_boxes, pair[0], window)
        np.testing.assert_array_equal(found, geometry.clip_boxes(pair[0], window))

    def test_clip_each_image_to_its_own_window(self, pair):
        boxes = np.stack([pair[0], pair[0]])
        windows = np.array([[[0.1, 0.2, 0.6, 0.7]], [[0, 0, 1, 1]]], "float32")
        found = call(box_ops.clip_boxes, boxes, windows)
        for image in range(2):
            expected = geometry.clip_boxes(boxes[image], windows[image, 0])
            np.testing.assert_array_equal(found[image], expected)

    def test_compute_overlaps(self, pair):
        found = call(box_ops.compute_overlaps, pair[0][:700], pair[1][:60])
        expected = geometry.compute_overlaps(pair[0][:700], pair[1][:60])
        assert (expected > 0.5).any() and (expected == 0).any()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_overlaps_of_a_batch_and_of_empty_boxes(self):
        boxes = np.stack([random_boxes(4, 5), np.zeros((5, 4), "float32")])
        found = call(box_ops.compute_overlaps, boxes, boxes[:, :2])
        np.testing.assert_allclose(found[0, [0, 1], [0, 1]], 1)
        assert np.isnan(found[1]).all()

    @pytest.mark.parametrize("shape", [(1024, 1024), (111, 77), (2, 3)])
    def test_norm_and_denorm_boxes(self, shape):
        pixels = np.random.default_rng(5).integers(-20, 1200, (COUNT, 4)).astype("int32")
        normalized = call(lambda x: box_ops.norm_boxes(x, shape), pixels)
        np.testing.assert_allclose(normalized, geometry.norm_boxes(pixels, shape), rtol=1e-6)
        back = call(lambda x: box_ops.denorm_boxes(x, shape), normalized)
        assert back.dtype == np.int32
        np.testing.assert_array_equal(back, pixels)

    def test_the_whole_image_is_the_unit_square(self):
        boxes = np.array([[0, 0, 300, 400], [0, 0, 0, 0]], "int32")
        found = call(lambda x: box_ops.norm_boxes(x, (300, 400)), boxes)
        np.testing.assert_allclose(found, [[0, 0, 1, 1], [0, 0, -1 / 299, -1 / 399]], rtol=1e-6)

    def test_log2(self):
        found = call(box_ops.log2, np.array([0.25, 1, 8, 1000], "float32"))
        np.testing.assert_allclose(found, np.log2([0.25, 1, 8, 1000]), rtol=1e-6, atol=1e-7)


class TestGathering:
    def test_trim_zeros(self):
        x = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, -1, 1]], "float32")
        rows, kept = box_ops.trim_zeros(ops.convert_to_tensor(x))
        np.testing.assert_array_equal(ops.convert_to_numpy(rows), geometry.trim_zeros(x))
        np.testing.assert_array_equal(ops.convert_to_numpy(kept), [False, True, False, True])

    def test_batch_pack(self):
        x = np.arange(12, dtype="float32").reshape(2, 3, 2)
        packed = box_ops.batch_pack(ops.convert_to_tensor(x), ops.convert_to_tensor([1, 2]), 2)
        np.testing.assert_array_equal(ops.convert_to_numpy(packed), [x[0, 0], x[1, 0], x[1, 1]])

    @pytest.mark.parametrize("shape", [(2, 5), (2, 5, 4), (2, 5, 2, 3)])
    def test_gather(self, shape):
        x = np.random.default_rng(7).normal(size=shape).astype("float32")
        index = np.array([[4, 0, 0], [1, 2, 3]], "int32")
        found = call(box_ops.gather, x, index)
        np.testing.assert_array_equal(found, np.stack([x[0][index[0]], x[1][index[1]]]))

    def test_select_class(self):
        x = np.random.default_rng(8).normal(size=(2, 3, 5, 4)).astype("float32")
        ids = np.array([[0, 4, 2], [1, 1, 3]], "int32")
        expected = [[x[b, n, ids[b, n]] for n in range(3)] for b in range(2)]
        np.testing.assert_array_equal(call(box_ops.select_class, x, ids), expected)


def greedy(boxes, valid, groups, max_output, threshold):
    """Rows that the NumPy suppression keeps, group by group, then the first `max_output` of all groups."""
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    ordered = np.concatenate([low, high], axis=1)
    kept = []
    for group in np.unique(groups[valid]):
        rows = np.flatnonzero(valid & (groups == group))
        scores = -rows.astype(float)  # distinct and already sorted
        kept += [rows[i] for i in geometry.non_max_suppression(ordered[rows], scores, threshold)]
    return sorted(kept)[:max_output]


def suppress(boxes, valid, groups, max_output, threshold, tile):
    def function(b, v, g):
        return box_ops.non_max_suppression(b, v, max_output, threshold, groups=g, tile=tile)

    index, filled = call(function, boxes, valid, groups)
    assert index.shape == filled.shape == (len(boxes), max_output)
    assert (index[~filled] == 0).all()
    counts = filled.sum(axis=1)
    np.testing.assert_array_equal(filled, np.arange(max_output) < counts[:, None])
    return [list(row[:count]) for row, count in zip(index, counts, strict=True)]


def crowded(seed, images, count):
    """Boxes in clusters, some empty, some with swapped corners; a sixth does not take part."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 1, (images, 60, 4))
    boxes = centers[np.arange(images)[:, None], rng.integers(0, 60, (images, count))]
    boxes = boxes + rng.normal(0, 0.03, boxes.shape)
    boxes[:, ::17, 2:] = boxes[:, ::17, :2]
    valid = rng.uniform(size=(images, count)) > 1 / 6
    groups = rng.integers(0, 5, (images, count))
    return boxes.astype("float32"), valid, groups.astype("int32")


class TestNonMaxSuppression:
    @pytest.mark.parametrize("tile", [37, 256, 4096])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_equals_the_greedy_rule(self, tile, grouped):
        boxes, valid, groups = crowded(10, images=3, count=2100)
        groups = groups if grouped else np.zeros_like(groups)
        found = suppress(boxes, valid, groups, 700, 0.4, tile)
        for image in range(3):
            expected = greedy(boxes[image], valid[image], groups[image], 700, 0.4)
            assert found[image] == expected, f"image {image}"
            assert len(expected) > 50

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
    def test_thresholds(self, threshold):
        boxes, valid, groups = crowded(11, images=1, count=300)
        found = suppress(boxes, valid, groups, 300, threshold, 64)
        assert found[0] == greedy(boxes[0], valid[0], groups[0], 300, threshold)

    def test_images_are_independent(self):
        boxes, valid, groups = crowded(12, images=3, count=200)
        valid[1] = False
        together = suppress(boxes, valid, groups, 40, 0.5, 64)
        assert together[1] == []
        for image in (0, 2):
            part = slice(image, image + 1)
            assert suppress(boxes[part], valid[part], groups[part], 40, 0.5, 64) == [together[image]]

    def test_stops_at_max_output(self):
        """No box overlaps another: the first ones are kept, whatever the size of the tiles."""
        corner = np.arange(100, dtype="float32")[:, None].repeat(2, 1)
        boxes = np.concatenate([corner, corner + 0.5], axis=1)[None]
        everything = np.ones((1, 100), bool)
        groups = np.zeros((1, 100), "int32")
        for count in (1, 7, 16, 100):
            assert suppress(boxes, everything, groups, count, 0.5, 8) == [list(range(count))]

    def test_a_suppressed_box_suppresses_nothing(self):
        """Each box overlaps the one before by a third, so every second one is kept."""
        left = np.arange(9, dtype="float32")
        boxes = np.stack([np.zeros(9), left, np.ones(9), left + 2], axis=1).astype("float32")[None]
        arguments = (np.ones((1, 9), bool), np.zeros((1, 9), "int32"), 9, 0.3)
        for tile in (2, 3, 9):
            assert suppress(boxes, *arguments, tile) == [[0, 2, 4, 6, 8]]

    def test_the_threshold_itself_does_not_suppress(self):
        boxes = np.array([[[0, 0, 2, 2], [0, 1, 2, 2]]], "float32")  # IoU 1/2
        valid, groups = np.ones((1, 2), bool), np.zeros((1, 2), "int32")
        assert suppress(boxes, valid, groups, 2, 0.5, 2) == [[0, 1]]
        assert suppress(boxes, valid, groups, 2, 0.499, 2) == [[0]]

    def test_equal_empty_boxes_are_all_kept(self):
        boxes = np.full((1, 4, 4), 0.5, "float32")
        found = suppress(boxes, np.ones((1, 4), bool), np.zeros((1, 4), "int32"), 4, 0.5, 2)
        assert found == [[0, 1, 2, 3]]

    def test_groups_may_be_left_out(self):
        boxes, valid, groups = crowded(13, images=2, count=100)
        found = call(lambda b, v: box_ops.non_max_suppression(b, v, 30, 0.5), boxes, valid)
        expected = call(
            lambda b, v, g: box_ops.non_max_suppression(b, v, 30, 0.5, groups=g),
            boxes,
            valid,
            np.zeros_like(groups),
        )
        np.testing.assert_array_equal(found[0], expected[0])

    def test_no_gradient(self):
        boxes, valid, _ = crowded(14, images=1, count=50)

        def total(b):
            index, _ = box_ops.non_max_suppression(b, ops.convert_to_tensor(valid), 20, 0.5)
            return ops.sum(box_ops.gather(b, index)[..., 0])

        found = gradients(total, boxes)[0]
        index = suppress(boxes, valid, np.zeros((1, 50), "int32"), 20, 0.5, 50)[0]
        expected = np.zeros_like(boxes)
        np.add.at(expected, (0, index + [0] * (20 - len(index)), 0), 1)
        np.testing.assert_allclose(found, expected)

"""Boxes as tensors against `geometry.boxes`."""

import numpy as np
import pytest
from tensor_tools import call

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

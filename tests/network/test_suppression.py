"""Non-maximum suppression with fixed shapes against the greedy rule."""

import numpy as np
import pytest
from keras import ops
from tensor_tools import call, gradients

from mrcnn.geometry import boxes as geometry
from mrcnn.network import box_ops, suppression


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
        return suppression.non_max_suppression(b, v, max_output, threshold, groups=g, tile=tile)

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
        found = call(lambda b, v: suppression.non_max_suppression(b, v, 30, 0.5), boxes, valid)
        expected = call(
            lambda b, v, g: suppression.non_max_suppression(b, v, 30, 0.5, groups=g),
            boxes,
            valid,
            np.zeros_like(groups),
        )
        np.testing.assert_array_equal(found[0], expected[0])

    def test_no_gradient(self):
        boxes, valid, _ = crowded(14, images=1, count=50)

        def total(b):
            index, _ = suppression.non_max_suppression(b, ops.convert_to_tensor(valid), 20, 0.5)
            return ops.sum(box_ops.gather(b, index)[..., 0])

        found = gradients(total, boxes)[0]
        index = suppress(boxes, valid, np.zeros((1, 50), "int32"), 20, 0.5, 50)[0]
        expected = np.zeros_like(boxes)
        np.add.at(expected, (0, index + [0] * (20 - len(index)), 0), 1)
        np.testing.assert_allclose(found, expected)

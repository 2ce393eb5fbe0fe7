"""ROIAlign against a plain loop over RoIs, bins and channels."""

import math

import numpy as np
import pytest
from keras import ops
from tensor_tools import call, check_layer, gradients, run

from mrcnn.network import roi_align
from mrcnn.network.roi_align import PyramidROIAlign, roi_levels

SIDES = ((16, 24), (8, 12), (4, 6), (2, 3))  # rows and columns of P2 to P5
IMAGE = (1024, 1536)


def feature_maps(seed, images=2, channels=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *side, channels)).astype("float32") for side in SIDES]


def metas(images=2, shape=IMAGE):
    meta = np.zeros((images, 14), "float32")
    meta[:, 4:7] = (*shape, 3)
    return meta


def boxes_of_all_sizes(seed, images=2, count=20):
    """Boxes for every level; some reach outside the image, some are empty, one is inverted."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.2, 0.8, (images, count, 2))
    side = np.exp(rng.uniform(np.log(0.02), np.log(0.9), (images, count, 2)))
    boxes = np.concatenate([corner, corner + side], axis=2).astype("float32")
    boxes[:, -3:-1] = 0
    boxes[:, -1] = (0.7, 0.1, 0.2, 0.8)
    return boxes


def level_of(box, image_area):
    area = (box[2] - box[0]) * (box[3] - box[1])
    if area <= 0:
        return 2
    return min(5, max(2, 4 + round(math.log2(math.sqrt(area) / (224 / math.sqrt(image_area))))))


def read(level_map, y, x):
    """Bilinear interpolation at one point, zero outside."""
    rows, columns = level_map.shape[:2]
    if not (0 <= y <= rows - 1 and 0 <= x <= columns - 1):
        return np.zeros(level_map.shape[2])
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = level_map[top, left] * (1 - x + left) + level_map[top, right] * (x - left)
    lower = level_map[bottom, left] * (1 - x + left) + level_map[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def position(low, high, extent, index, count):
    if count == 1:
        return (low + high) / 2 * (extent - 1)
    return (low + (high - low) * index / (count - 1)) * (extent - 1)


def by_loop(boxes, image_area, maps, pool):
    out = np.zeros((*boxes.shape[:2], *pool, maps[0].shape[-1]))
    for b, n, i, j in np.ndindex(out.shape[:4]):
        y1, x1, y2, x2 = boxes[b, n].astype(float)
        level_map = maps[level_of(boxes[b, n], image_area) - 2][b]
        y = position(y1, y2, level_map.shape[0], i, pool[0])
        x = position(x1, x2, level_map.shape[1], j, pool[1])
        out[b, n, i, j] = read(level_map, y, x)
    return out


@pytest.mark.parametrize("pool", [(7, 7), (2, 3), (1, 4), (1, 1)])
def test_equals_the_loop(pool):
    boxes, maps = boxes_of_all_sizes(1), feature_maps(2)
    area = IMAGE[0] * IMAGE[1]
    assert {level_of(box, area) for box in boxes.reshape(-1, 4)} == {2, 3, 4, 5}
    found = check_layer(PyramidROIAlign(pool), [boxes, metas(), *maps])
    np.testing.assert_allclose(found, by_loop(boxes, area, maps, pool), atol=2e-5)


def test_whole_image_reads_every_cell():
    maps = feature_maps(3, images=1)
    boxes = np.array([[[0, 0, 1, 1]]], "float32")
    for shape, level_map in (((64, 64), maps[0]), ((2048, 2048), maps[3])):
        pool = level_map.shape[1:3]
        found = check_layer(PyramidROIAlign(pool), [boxes, metas(1, shape), *maps])
        np.testing.assert_allclose(found[:, 0], level_map, atol=1e-5)


def test_points_outside_the_map_are_zero():
    maps = [np.ones_like(x) for x in feature_maps(4, images=1)]
    boxes = np.array([[[-0.5, 0.25, 0.5, 0.75], [1.5, 1.5, 2, 2]]], "float32")
    found = check_layer(PyramidROIAlign((3, 2)), [boxes, metas(1), *maps])
    np.testing.assert_array_equal(found[0, 0, :, 0, 0], [0, 1, 1])
    assert not found[0, 1].any()


class TestLevels:
    @pytest.mark.parametrize(
        "side, level",
        [(112, 3), (158, 3), (159, 4), (224, 4), (316, 4), (317, 5), (79.1, 2), (79.3, 3), (5, 2), (1024, 5)],
    )
    def test_of_squares_in_a_square_image(self, side, level):
        boxes = np.array([[[0.1, 0.2, 0.1 + side / 1024, 0.2 + side / 1024]]], "float32")
        assert call(lambda x: roi_levels(x, 1024.0 * 1024.0), boxes).tolist() == [[level]]

    def test_of_empty_and_inverted_boxes(self):
        boxes = np.array([[[0, 0, 0, 0], [0.3, 0.3, 0.3, 0.9], [0.9, 0, 0.1, 1]]], "float32")
        assert call(lambda x: roi_levels(x, 1e6), boxes).tolist() == [[2, 2, 2]]

    def test_the_first_image_gives_the_size(self):
        boxes, maps = boxes_of_all_sizes(5), feature_maps(6)
        meta = metas()
        meta[1, 4:6] = 8
        expected = check_layer(PyramidROIAlign((2, 2)), [boxes, metas(), *maps])
        np.testing.assert_array_equal(check_layer(PyramidROIAlign((2, 2)), [boxes, meta, *maps]), expected)


def test_sample_positions():
    low, high = np.array([[0.25]], "float32"), np.array([[0.75]], "float32")
    extent = np.array([[9.0]], "float32")
    found = call(lambda *x: roi_align.sample_positions(*x, 5), low, high, extent)
    np.testing.assert_allclose(found, [[[2, 3, 4, 5, 6]]])
    found = call(lambda *x: roi_align.sample_positions(*x, 1), low, high, extent)
    np.testing.assert_allclose(found, [[[4]]])


def test_mixed_precision_reads_at_float32_positions():
    """Positions rounded to the 8 bits of a bfloat16 would miss whole cells of a large map."""
    rng = np.random.default_rng(11)
    maps = [rng.integers(0, 2, (1, 256, 256, 1)).astype("float32") for _ in range(4)]
    corner = rng.uniform(0.5, 0.95, (1, 40, 2))
    boxes = np.concatenate([corner, corner + 0.01], axis=2).astype("float32")
    inputs = [boxes, metas(1), *maps]
    found = check_layer(PyramidROIAlign((2, 2), dtype="mixed_bfloat16"), inputs)
    assert found.dtype.name == "bfloat16"
    np.testing.assert_allclose(found.astype("float32"), run(PyramidROIAlign((2, 2)), inputs), atol=0.02)


class TestGradient:
    pool = (2, 2)

    def gradients(self, boxes, maps, weights):
        area = float(IMAGE[0] * IMAGE[1])

        def total(boxes, *maps):
            out = roi_align.pyramid_roi_align(boxes, area, list(maps), self.pool)
            return ops.sum(out * ops.convert_to_tensor(weights))

        return gradients(total, boxes, *maps)

    def test_features_by_finite_differences(self):
        boxes, maps = boxes_of_all_sizes(7, images=1), feature_maps(8, images=1, channels=2)
        weights = np.random.default_rng(9).normal(size=(1, 20, *self.pool, 2)).astype("float32")
        slopes = self.gradients(boxes, maps, weights)[1:]
        rng = np.random.default_rng(10)
        area = IMAGE[0] * IMAGE[1]
        base = (by_loop(boxes, area, maps, self.pool) * weights).sum()
        for level, level_map in enumerate(maps):
            # The result is linear in the features, so a step of 1 changes it by the gradient.
            cells = np.flatnonzero(np.abs(slopes[level]) > 1e-3)
            assert len(cells), f"no RoI reads P{level + 2}"
            for cell in [*rng.choice(cells, 6), rng.integers(level_map.size)]:
                moved = [x.astype("float64") for x in maps]
                moved[level].flat[cell] += 1
                change = (by_loop(boxes, area, moved, self.pool) * weights).sum() - base
                assert slopes[level].flat[cell] == pytest.approx(change, abs=1e-4)

    def test_none_to_the_boxes(self):
        boxes, maps = boxes_of_all_sizes(7, images=1), feature_maps(8, images=1, channels=2)
        weights = np.ones((1, 20, *self.pool, 2), "float32")
        assert not self.gradients(boxes, maps, weights)[0].any()

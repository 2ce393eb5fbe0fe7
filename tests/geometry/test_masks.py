import re
import warnings

import numpy as np
import pytest
from golden_files import golden_params, load, text, unpack_bits

from mrcnn.geometry import images, masks


def random_masks(rng, height, width, count):
    """Rectangles with holes; every mask has at least one pixel."""
    mask = np.zeros((height, width, count), bool)
    for i in range(count):
        y, x = rng.integers(0, height), rng.integers(0, width)
        bottom, right = y + rng.integers(1, height + 1), x + rng.integers(1, width + 1)
        mask[y:bottom, x:right, i] = True
        mask[..., i] &= rng.random((height, width)) > 0.2
        mask[y, x, i] = True
    return mask


class TestExtractBboxes:
    def test_worked_by_hand(self):
        mask = np.zeros((10, 12, 4), bool)
        mask[2:5, 3:9, 0] = True
        mask[9, 11, 1] = True
        mask[0, 0, 2] = mask[7, 4, 2] = True
        bboxes = masks.extract_bboxes(mask)
        assert bboxes.dtype == np.int32
        expected = [[2, 3, 5, 9], [9, 11, 10, 12], [0, 0, 8, 5], [0, 0, 0, 0]]
        np.testing.assert_array_equal(bboxes, expected)

    @pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
    @pytest.mark.parametrize("width", [1, 5, 16, 37, 64])
    def test_equals_plain_loops(self, dtype, width):
        mask = random_masks(np.random.default_rng(1), 23, width, 6)
        expected = []
        for i in range(6):
            pixels = [(y, x) for y in range(23) for x in range(width) if mask[y, x, i]]
            rows, columns = zip(*pixels, strict=True)
            expected.append([min(rows), min(columns), max(rows) + 1, max(columns) + 1])
        np.testing.assert_array_equal(masks.extract_bboxes(mask.astype(dtype)), expected)

    def test_small_and_negative_values_count(self):
        mask = np.zeros((3, 3, 2))
        mask[0, 1, 0], mask[2, 2, 1] = 0.1, -1
        np.testing.assert_array_equal(masks.extract_bboxes(mask), [[0, 1, 1, 2], [2, 2, 3, 3]])

    def test_layout_in_memory_does_not_matter(self):
        mask = random_masks(np.random.default_rng(2), 40, 33, 5)
        view = np.asfortranarray(mask)[::-1, ::2]
        np.testing.assert_array_equal(
            masks.extract_bboxes(view), masks.extract_bboxes(np.ascontiguousarray(view))
        )

    @pytest.mark.parametrize("shape", [(10, 12, 0), (0, 0, 0), (0, 5, 2)])
    def test_nothing(self, shape):
        bboxes = masks.extract_bboxes(np.zeros(shape, bool))
        assert bboxes.dtype == np.int32
        np.testing.assert_array_equal(bboxes, np.zeros((shape[2], 4)))

    def test_wants_the_axis_of_instances(self):
        with pytest.raises(ValueError, match=r"Received: mask\.shape=\(5, 6\)"):
            masks.extract_bboxes(np.zeros((5, 6)))


class TestOverlaps:
    def test_worked_by_hand(self):
        first = np.zeros((4, 4, 2), bool)
        first[:2, :, 0] = True
        first[:, :2, 1] = True
        second = np.ones((4, 4, 1), bool)
        overlaps = masks.compute_overlaps_masks(first, second)
        assert overlaps.dtype == np.float32
        np.testing.assert_array_equal(overlaps, [[0.5], [0.5]])
        np.testing.assert_allclose(
            masks.compute_overlaps_masks(first, first), [[1, 1 / 3], [1 / 3, 1]], rtol=1e-7
        )

    def test_equals_plain_loops(self, monkeypatch):
        monkeypatch.setattr(masks, "PIXELS_AT_A_TIME", 100)  # several parts and a shorter last one
        rng = np.random.default_rng(3)
        first, second = random_masks(rng, 21, 17, 4), random_masks(rng, 21, 17, 3)
        expected = np.zeros((4, 3))
        for i in range(4):
            for j in range(3):
                a, b = first[..., i], second[..., j]
                expected[i, j] = (a & b).sum() / (a | b).sum()
        np.testing.assert_allclose(masks.compute_overlaps_masks(first, second), expected, rtol=1e-6)

    def test_values_above_one_half_are_inside(self):
        first = np.array([[[0.5], [0.51], [3.0]]])
        second = np.array([[[1.0], [1.0], [0.0]]])
        assert masks.compute_overlaps_masks(first, second) == np.float32(1 / 3)

    def test_two_empty_masks_give_nan_quietly(self):
        empty = np.zeros((4, 5, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(masks.compute_overlaps_masks(empty, empty)).all()
            assert masks.compute_overlaps_masks(empty, np.ones((4, 5, 1))) == 0

    @pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0), (0, 0)])
    def test_no_masks(self, first, second):
        overlaps = masks.compute_overlaps_masks(np.zeros((4, 5, first)), np.zeros((4, 5, second)))
        np.testing.assert_array_equal(overlaps, np.zeros((first, second)))

    def test_other_image_shape_is_an_error(self):
        with pytest.raises(ValueError, match=r"\(4, 5, 1\), masks2\.shape=\(5, 4, 1\)"):
            masks.compute_overlaps_masks(np.zeros((4, 5, 1)), np.zeros((5, 4, 1)))


class TestMiniMasks:
    @pytest.mark.parametrize("mini_shape", [(8, 8), (28, 28), (10, 31)])
    def test_equals_resizing_each_cut(self, mini_shape):
        mask = random_masks(np.random.default_rng(4), 50, 60, 8)
        bbox = masks.extract_bboxes(mask)
        mini_mask = masks.minimize_mask(bbox, mask, mini_shape)
        assert mini_mask.dtype == bool
        assert mini_mask.shape == (*mini_shape, 8)
        for i, (y1, x1, y2, x2) in enumerate(bbox):
            values = images.resize(mask[y1:y2, x1:x2, i], mini_shape)
            clear = np.abs(values - 0.5) > 1e-9
            np.testing.assert_array_equal(mini_mask[..., i][clear], values[clear] > 0.5)

    def test_full_boxes_come_back_whole(self):
        bbox = np.array([[0, 0, 40, 50], [3, 4, 13, 34], [39, 49, 40, 50], [0, 7, 40, 8]])
        mask = np.zeros((40, 50, 4), bool)
        for i, (y1, x1, y2, x2) in enumerate(bbox):
            mask[y1:y2, x1:x2, i] = True
        mini_mask = masks.minimize_mask(bbox, mask, (28, 28))
        assert mini_mask.all()
        np.testing.assert_array_equal(masks.expand_mask(bbox, mini_mask, (40, 50)), mask)

    def test_round_trip_keeps_the_shape_of_an_ellipse(self):
        y, x = np.mgrid[:120, :160]
        mask = (((y - 60) / 50) ** 2 + ((x - 80) / 70) ** 2 < 1)[..., None]
        bbox = masks.extract_bboxes(mask)
        mini_mask = masks.minimize_mask(bbox, mask, (56, 56))
        again = masks.expand_mask(bbox, mini_mask, mask.shape)
        assert masks.compute_overlaps_masks(mask, again)[0, 0] > 0.97

    def test_further_columns_of_boxes_are_ignored(self):
        mask = np.ones((6, 6, 1), np.uint8)
        bbox = np.array([[1, 1, 5, 5, 99]])
        mini_mask = masks.minimize_mask(bbox, mask, (3, 3))
        assert mini_mask.all()
        assert masks.expand_mask(bbox, mini_mask, (6, 6, 3)).sum() == 16

    def test_no_instances(self):
        nothing = np.zeros((0, 4), np.int32)
        mini_mask = masks.minimize_mask(nothing, np.zeros((5, 6, 0), bool), (28, 28))
        assert mini_mask.shape == (28, 28, 0)
        assert masks.expand_mask(nothing, mini_mask, (5, 6)).shape == (5, 6, 0)

    def test_box_without_pixels_names_the_instance(self):
        bbox = np.array([[0, 0, 2, 2], [3, 3, 3, 5]])
        with pytest.raises(ValueError, match=r"instance 1 with box \[3, 3, 3, 5\]"):
            masks.minimize_mask(bbox, np.ones((6, 6, 2), bool), (3, 3))
        with pytest.raises(ValueError, match=r"instance 1 with box \[3, 3, 3, 5\]"):
            masks.expand_mask(bbox, np.ones((3, 3, 2), bool), (6, 6))

    def test_numbers_of_boxes_and_masks_must_agree(self):
        bbox = np.array([[0, 0, 2, 2]])
        with pytest.raises(ValueError, match=r"shapes \(1, 4\) and \(6, 6, 2\)"):
            masks.minimize_mask(bbox, np.ones((6, 6, 2), bool), (3, 3))
        with pytest.raises(ValueError, match="one box per mask"):
            masks.expand_mask(bbox, np.ones((3, 3), bool), (6, 6))


class TestUnmoldMask:
    def test_resized_first_then_thresholded(self):
        small = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
        full = masks.unmold_mask(small, (2, 3, 6, 7), (8, 9, 3))
        assert full.dtype == bool
        expected = np.zeros((8, 9), bool)
        expected[2:6, 3:7] = images.resize(small, (4, 4)) >= 0.5
        np.testing.assert_array_equal(full, expected)
        # 1 and 0 side by side at twice the size: .75 and .25; corners fade to .5625
        np.testing.assert_array_equal(
            full[2:6, 3:7], np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        )

    def test_one_half_is_inside(self):
        assert masks.unmold_mask(np.full((2, 2), 0.5), (0, 0, 3, 3), (3, 3)).all()

    @pytest.mark.parametrize("box", [(0, 0, 12, 15), (11, 14, 12, 15), np.array([3, 0, 4, 15])])
    def test_only_the_box_is_filled(self, box):
        y1, x1, y2, x2 = box
        full = masks.unmold_mask(np.ones((28, 28), np.float32), box, (12, 15))
        assert full[y1:y2, x1:x2].all()
        assert full.sum() == (y2 - y1) * (x2 - x1)

    @pytest.mark.parametrize(
        "box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 13, 5), (0, 0, 5, 16), (5, 5, 5, 9)]
    )
    def test_box_must_lie_in_the_image(self, box):
        message = re.escape(f"box {list(box)} in an image of 12 x 15")
        with pytest.raises(ValueError, match=message):
            masks.unmold_mask(np.ones((28, 28)), box, (12, 15))


def test_mold_mask_does_nothing():
    assert masks.mold_mask(np.ones((2, 2)), config=None) is None


@pytest.mark.parametrize("path", golden_params("utils_basic*.npz"))
class TestGoldenBasic:
    def test_extract_bboxes(self, path):
        recording = load(path)
        bboxes = masks.extract_bboxes(unpack_bits(recording, "bboxes_mask"))
        assert bboxes.dtype == recording["bboxes_out"].dtype
        np.testing.assert_array_equal(bboxes, recording["bboxes_out"])
        assert masks.extract_bboxes(np.zeros((3, 3, 0))).shape == (recording["bboxes_empty_out"].shape)

    def test_overlaps(self, path):
        recording = load(path)
        for name in ("ovm", "ovm_zero"):
            overlaps = masks.compute_overlaps_masks(recording[f"{name}_m1"], recording[f"{name}_m2"])
            expected = recording[f"{name}_out"]
            assert overlaps.dtype == expected.dtype
            np.testing.assert_allclose(overlaps, expected, rtol=1e-6, equal_nan=True)
        first = recording["ovm_m1"]
        empty = masks.compute_overlaps_masks(first, first[..., :0])
        assert empty.shape == recording["ovm_empty_out"].shape


@pytest.mark.parametrize("path", golden_params("utils_masks*.npz"))
class TestGoldenMasks:
    def test_minimize_and_expand(self, path):
        recording = load(path)
        mask, bbox = unpack_bits(recording, "mask"), recording["bbox"]
        names = [m[1] for m in (re.fullmatch(r"mini(\d+)_out", key) for key in recording) if m]
        assert names
        for name in names:
            mini_mask = masks.minimize_mask(bbox, mask, tuple(recording[f"mini{name}_shape"]))
            np.testing.assert_array_equal(mini_mask, recording[f"mini{name}_out"])
            expanded = masks.expand_mask(bbox, mini_mask, mask.shape[:2])
            np.testing.assert_array_equal(expanded, unpack_expanded(recording, name))

    def test_box_without_pixels_is_an_error(self, path):
        assert text(load(path)["mini_empty"]).startswith("raises")
        with pytest.raises(ValueError, match="instance 0"):
            masks.minimize_mask(np.zeros((1, 4), int), np.ones((5, 5, 1), bool), (8, 8))

    def test_unmold(self, path):
        recording = load(path)
        shape = recording["um_shape"]
        expected = np.unpackbits(recording["um_out"])[: np.prod(shape)].reshape(shape)
        for mask, box, full in zip(recording["um_mask"], recording["um_box"], expected, strict=True):
            np.testing.assert_array_equal(masks.unmold_mask(mask, box, tuple(shape[1:])), full)


def unpack_expanded(recording, name):
    shape = recording[f"expand{name}_shape"]
    bits = np.unpackbits(recording[f"expand{name}_out"])[: np.prod(shape)]
    return bits.reshape(shape).astype(bool)


def test_label_image():
    """The better of two masks has the pixels of both; one under a better one has none."""
    mask = np.zeros((2, 5, 3), bool)
    mask[:, :3, 0] = mask[:, 2:, 1] = mask[:, 1:2, 2] = True
    labels = masks.label_image(mask, [0.5, 0.9, 0.1])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [[1, 1, 2, 2, 2]] * 2)
    np.testing.assert_array_equal(masks.label_image(mask[..., :2], [0.5, 0.5]), [[1, 1, 1, 2, 2]] * 2)
    assert not masks.label_image(mask[..., :0], []).any()

"""Crops of masks: the same pixels as by way of whole masks."""

import numpy as np
import pytest

from mrcnn.geometry import images, masks
from mrcnn.geometry.mask_crops import MaskCrops


def some_masks(shape, seed=0):
    """Blobs, a hole, a frame along the border, a single pixel, two far pixels, and an empty mask."""
    rng = np.random.default_rng(seed)
    height, width = shape
    whole = np.zeros((*shape, 8), dtype=bool)
    for index in range(3):
        y, x = rng.integers(0, height - 9), rng.integers(0, width - 9)
        whole[y : y + rng.integers(3, 40), x : x + rng.integers(3, 40), index] = True
    whole[5:30, 6:31, 3] = True
    whole[10:20, 12:19, 3] = False
    whole[0, :, 4] = whole[-1, :, 4] = whole[:, 0, 4] = whole[:, -1, 4] = True
    whole[height // 2, width // 3, 5] = True
    whole[2, 3, 6] = whole[height - 4, width - 2, 6] = True
    return whole


@pytest.mark.parametrize(
    ("shape", "mode", "sizes"),
    [
        ((90, 61), "square", {"min_dim": 100, "max_dim": 128}),
        ((200, 310), "square", {"min_dim": 64, "max_dim": 64}),
        ((64, 64), "square", {"max_dim": 64}),
        ((90, 130), "pad64", {"min_dim": 128}),
        ((90, 130), "crop", {"min_dim": 64, "min_scale": 1.7}),
        ((64, 128), "none", {}),
    ],
)
def test_as_by_whole_masks(shape, mode, sizes):
    whole = some_masks(shape)
    _, _, scale, padding, crop = images.resize_image(np.zeros((*shape, 3), np.uint8), mode=mode, **sizes)
    crops, left = MaskCrops.cut(whole).resize(scale, padding, crop)

    resized = images.resize_mask(whole, scale, padding, crop)
    np.testing.assert_array_equal(left, resized.any(axis=(0, 1)))
    resized = resized[:, :, left]
    np.testing.assert_array_equal(crops.whole(), resized)
    np.testing.assert_array_equal(crops.boxes, masks.extract_bboxes(resized))
    assert crops.boxes.dtype == np.int32
    np.testing.assert_array_equal(crops.mini((28, 20)), masks.minimize_mask(crops.boxes, resized, (28, 20)))


def test_cut_and_whole_are_inverse():
    whole = some_masks((70, 80))
    np.testing.assert_array_equal(MaskCrops.cut(whole).whole(), whole)
    for crop, (y1, x1, y2, x2) in zip(MaskCrops.cut(whole).crops, MaskCrops.cut(whole).boxes, strict=True):
        assert crop.shape == (y2 - y1, x2 - x1)


def test_no_masks():
    crops, left = MaskCrops.cut(np.zeros((20, 30, 0), bool)).resize(2.0, [(2, 2), (0, 0), (0, 0)])
    assert left.shape == (0,)
    assert crops.boxes.shape == (0, 4)
    assert crops.whole().shape == (44, 60, 0)
    assert crops.mini((7, 9)).shape == (7, 9, 0)


def test_run_lengths_are_those_of_coco():
    """The text is that of pycocotools, runs over whole columns and empty masks included."""
    from pycocotools import mask as reference

    rng = np.random.default_rng(2)
    whole = np.zeros((7, 9, 6), dtype=bool)
    whole[:, 2:5, 0] = True
    whole[2:6, 1:8, 1] = rng.random((4, 7)) > 0.5
    whole[:, :, 2] = rng.random((7, 9)) > 0.3
    whole[..., 3] = True
    whole[6, 8, 4] = True
    expected = reference.encode(np.asfortranarray(whole.astype(np.uint8)))
    run_lengths = MaskCrops.cut(whole).run_lengths()
    assert [code["counts"].encode() for code in run_lengths] == [code["counts"] for code in expected]
    assert {tuple(code["size"]) for code in run_lengths} == {(7, 9)}
    assert MaskCrops.cut(np.zeros((7, 9, 0), bool)).run_lengths() == []

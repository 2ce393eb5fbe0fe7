"""Mask targets: cells of RoIs against a loop over all samples, and borders by hand."""

import math

import numpy as np
import pytest
from tensor_tools import call

from mrcnn.network.mask_targets import bin_weights, crop_masks
from mrcnn.network.roi_align import AVERAGE, AVERAGE_ALIGNED, CROP_AND_RESIZE

BOXES = np.array(
    [
        [[0, 0, 1, 1], [0.1, 0.2, 0.15, 0.9], [0.3, 0.3, 0.85, 0.5]],
        [[0.5, 0.25, 0.503, 0.26], [0.0, 0.4, 0.33, 1.0], [0, 0, 0, 0]],
    ],
    "float32",
)


def samples(low, high, extent, bins, method):
    """The positions of all samples of each bin: the definition of ROIAlign with adaptive sampling."""
    start, length = float(low) * extent, (float(high) - float(low)) * extent
    if method == AVERAGE_ALIGNED:
        start -= 0.5
    else:
        length = max(length, 1.0)
    side = length / bins
    count = max(math.ceil(side - 1e-4), 1)
    return [[start + (b + (k + 0.5) / count) * side for k in range(count)] for b in range(bins)]


def weights_of(position, extent):
    """The weights of the pixels around a sample."""
    weights = np.zeros(extent)
    if -1 <= position <= extent:
        position = min(max(position, 0.0), extent - 1.0)
        before = math.floor(position)
        weights[before] += 1 - (position - before)
        weights[min(before + 1, extent - 1)] += position - before
    return weights


def by_loop(mask, box, shape, method):
    y1, x1, y2, x2 = box
    rows, columns = (
        np.array([np.mean([weights_of(p, extent) for p in part], axis=0) for part in positions])
        for positions, extent in (
            (samples(y1, y2, mask.shape[0], shape[0], method), mask.shape[0]),
            (samples(x1, x2, mask.shape[1], shape[1], method), mask.shape[1]),
        )
    )
    return rows @ mask @ columns.T


@pytest.mark.parametrize("method", [AVERAGE, AVERAGE_ALIGNED])
def test_cells_are_means_of_all_samples(method):
    rng = np.random.default_rng(0)
    masks = rng.random((2, 60, 85, 3)) < 0.5
    assigned = rng.integers(0, 3, (2, 3)).astype("int32")
    found = call(lambda *x: crop_masks(*x, (5, 7), method, soft=True), masks, assigned, BOXES)
    for image in range(2):
        for roi in range(3):
            mask = masks[image, ..., assigned[image, roi]].astype(float)
            expected = by_loop(mask, BOXES[image, roi], (5, 7), method)
            np.testing.assert_allclose(found[image, roi], expected, atol=1e-4)


def test_samples_outside_the_mask():
    """RoIs may reach beyond a mini-mask: a pixel farther than its edge the mask is 0."""
    masks = np.ones((1, 6, 6, 1), bool)
    boxes = np.array([[[-1.0, 0.0, 2.0, 1.0]]], "float32")
    found = call(
        lambda *x: crop_masks(*x, (9, 2), AVERAGE, soft=True), masks, np.zeros((1, 1), "int32"), boxes
    )
    # Bins of 2 rows from row -6 on; only samples from -1 to 6 count, at half rows.
    np.testing.assert_allclose(found[0, 0, :, 0], [0, 0, 0.5, 1, 1, 1, 0, 0, 0], atol=1e-5)


def test_a_side_of_whole_pixels_takes_as_many_samples():
    # 2 bins of 3 pixels, aligned: samples at the centers of the pixels, one for each.
    edges = np.array([[0.1]], "float32"), np.array([[0.7]], "float32")
    found = call(lambda low, high: bin_weights(low, high, 10, 2, AVERAGE_ALIGNED), *edges)
    expected = np.zeros((2, 10))
    expected[0, 1:4] = expected[1, 4:7] = 1 / 3
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("method", "half"), [(CROP_AND_RESIZE, 0), (AVERAGE_ALIGNED, 1)])
def test_half_of_a_cell(method, half):
    """A cell that is half inside is rounded down by the Keras 2 library and up by Detectron2."""
    masks = np.zeros((1, 4, 4, 1), bool)
    masks[0, :, :2] = True
    boxes = np.array([[[0, 0, 1, 1]]], "float32")
    found = call(lambda *x: crop_masks(*x, (1, 1), method), masks, np.zeros((1, 1), "int32"), boxes)
    assert found.tolist() == [[[[half]]]]

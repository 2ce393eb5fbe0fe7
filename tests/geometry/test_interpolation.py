"""A part of a resized image is computed alone, and equals that part of the whole."""

import tracemalloc

import numpy as np
import pytest

from mrcnn.geometry import interpolation

SHAPES = (37, 53), (74, 106), (90, 40), (20, 61), (37, 53)


@pytest.mark.parametrize("edge", ["zero", "repeat"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_part_equals_the_same_part_of_the_whole(dtype, edge):
    rng = np.random.default_rng(0)
    image = (rng.random((37, 53, 3)) * (250 if np.dtype(dtype).kind == "u" else 1)).astype(dtype)
    for height, width in SHAPES:
        whole = np.empty((height, width, 3), dtype)
        interpolation.bilinear_into(image, whole, break_ties=dtype is np.uint8, edge=edge)
        for y, x, rows, columns in ((0, 0, 5, 7), (height - 9, width - 4, 9, 4), (3, 11, 1, 20)):
            part = np.empty((rows, columns, 3), dtype)
            interpolation.bilinear_into(
                image, part, dtype is np.uint8, edge, size=(height, width), corner=(y, x)
            )
            np.testing.assert_array_equal(part, whole[y : y + rows, x : x + columns])


@pytest.mark.usefixtures("usual_collector")
def test_a_large_image_is_not_copied_for_each_row():
    """Only a few rows of it are read for each row of the result; memory tells."""
    image = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    out = np.zeros((96, 128, 3), np.uint8)
    tracemalloc.start()
    try:
        interpolation.bilinear_into(image, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < image.nbytes / 4

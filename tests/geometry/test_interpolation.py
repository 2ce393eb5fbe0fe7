"""A part of a resized image is computed alone, and equals that part of the whole."""

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

"""Pasting of masks by the rules of three libraries, by hand."""

import numpy as np
import pytest

from mrcnn.geometry import mask_pasting
from mrcnn.geometry.mask_pasting import BOX, EXPANDED_BOX, GRID


def whole(mask, box, method, shape=(20, 20)):
    (y1, x1, y2, x2), part = mask_pasting.paste(np.asarray(mask, "float32"), box, shape, method)
    canvas = np.zeros(shape, bool)
    canvas[y1:y2, x1:x2] = part
    assert part.shape == (y2 - y1, x2 - x1)
    return canvas


def test_box_rounds_to_whole_pixels():
    found = whole(np.ones((4, 4)), [2.4, 3.6, 9.6, 12.4], BOX)
    assert found[2:10, 4:12].all()
    assert found.sum() == 8 * 8


def test_expanded_box_is_larger_by_about_a_pixel():
    """28 cells and one on each side: 28 pixels become 30, and 31 because both ends count.

    Column x of 31 reads cell (x + 0.5) * 30 / 31 - 0.5. The mask is at least 0.5 from cell 0.5 to 28.5.
    """
    found = whole(np.ones((28, 28)), [10, 10, 38, 38], EXPANDED_BOX, (50, 50))
    columns = np.flatnonzero(found[24])
    assert (columns.min(), columns.max()) == (10, 38)


def test_expanded_box_is_cut_at_the_image():
    found = whole(np.ones((28, 28)), [-10, 5, 18, 33], EXPANDED_BOX, (50, 50))
    assert found[0, 19]
    rows = np.flatnonzero(found[:, 19])
    assert rows.max() == 18


def test_expanded_box_outside_the_image_is_empty():
    assert not whole(np.ones((28, 28)), [60, 60, 80, 80], EXPANDED_BOX, (50, 50)).any()


def test_grid_reads_the_mask_at_the_center_of_each_pixel():
    """Box columns 2.5 to 12.5 for 10 cells: pixel 3 is centered at 3.5, on the border of cells 0 and 1."""
    mask = np.zeros((10, 10))
    mask[:, 0] = 1
    found = whole(mask, [0, 2.5, 10, 12.5], GRID)
    # Pixel 2 is centered at the left edge of the box, half outside: exactly 0.5 there, and 0.5 at pixel 3.
    assert np.flatnonzero(found[5]).tolist() == [2, 3]


def test_grid_matches_a_box_of_the_same_size():
    mask = np.random.default_rng(0).uniform(size=(8, 8))
    found = whole(mask, [4, 6, 12, 14], GRID)
    np.testing.assert_array_equal(found[4:12, 6:14], mask.astype("float32") >= 0.5)


@pytest.mark.parametrize("method", [BOX, EXPANDED_BOX, GRID])
def test_boxes_without_area(method):
    (y1, _, y2, _), part = mask_pasting.paste(
        np.ones((4, 4), "float32"), [5.2, 5.1, 6.0, 5.9], (20, 20), method
    )
    assert part.shape[0] == y2 - y1

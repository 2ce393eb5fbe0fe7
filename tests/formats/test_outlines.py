"""Polygons: areas, ellipses, and masks cut to their boxes."""

import numpy as np
import pytest

from mrcnn.formats import outlines


def test_areas():
    assert outlines.area(outlines.rectangle(3, 4, 5, 2)) == 10
    assert outlines.area(outlines.rectangle(3, 4, 5, 2)[::-1]) == 10  # either direction
    assert outlines.area(np.array([[0, 0], [4, 0], [0, 3]])) == 6
    assert outlines.area(np.array([[0, 0], [4, 4], [2, 2]])) == 0
    assert outlines.area(outlines.ellipse(9, 9, 10, 4, 0.3)) == pytest.approx(np.pi * 40, rel=0.002)


def test_an_ellipse_turns_clockwise_on_the_screen():
    x, y = outlines.ellipse(20, 30, 10, 1, np.pi / 6)[0]  # the end of the long half axis
    assert (x, y) == pytest.approx((20 + 10 * np.cos(np.pi / 6), 30 + 5))


def test_masks_are_cut_to_the_image():
    mask, origin = outlines.draw([outlines.rectangle(-5, 2, 9, 3)], (10, 20))
    assert origin == (2, 0) and mask.shape == (3, 4) and mask.all()
    assert outlines.draw([outlines.rectangle(30, 2, 9, 3)], (10, 20)) is None
    parts = [outlines.rectangle(0, 0, 2, 2), outlines.rectangle(5, 0, 2, 2)]
    mask, origin = outlines.draw(parts, (10, 20))
    assert mask.shape == (2, 7) and mask.sum() == 8


@pytest.mark.parametrize("x, outside", [(-0.9, False), (-1.5, True), (16.9, False), (17.5, True)])
def test_a_pixel_outside_is_tolerated(x, outside):
    assert outlines.reaches_outside([outlines.rectangle(x, 2, 4, 3)], (10, 20)) is outside

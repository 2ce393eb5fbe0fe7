"""Polygons: areas, ellipses, clipping, and masks cropped to their boxes."""

import time
import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as reference

from mrcnn.geometry import polygons

SIZE = (60, 80)


def whole(parts, size=SIZE):
    """The mask of `rasterize` on the whole image."""
    canvas = np.zeros(size, bool)
    drawn = polygons.rasterize(parts, size)
    if drawn is not None:
        mask, (row, column) = drawn
        canvas[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
    return canvas


def test_areas():
    assert polygons.area(polygons.rectangle(3, 4, 5, 2)) == 10
    assert polygons.area(polygons.rectangle(3, 4, 5, 2)[::-1]) == 10  # either direction
    assert polygons.area(np.array([[0, 0], [4, 0], [0, 3]])) == 6
    assert polygons.area(np.array([[0, 0], [4, 4], [2, 2]])) == 0
    assert polygons.area(polygons.ellipse(9, 9, 10, 4, 0.3)) == pytest.approx(np.pi * 40, rel=0.002)
    assert np.isnan(polygons.area(np.array([[0, 0], [4, np.nan], [0, 3]])))


def test_an_ellipse_turns_clockwise_on_the_screen():
    x, y = polygons.ellipse(20, 30, 10, 1, np.pi / 6)[0]  # the end of the long half axis
    assert (x, y) == pytest.approx((20 + 10 * np.cos(np.pi / 6), 30 + 5))


def test_masks_are_cropped_to_the_image():
    mask, origin = polygons.rasterize([polygons.rectangle(-5, 2, 9, 3)], (10, 20))
    assert origin == (2, 0) and mask.shape == (3, 4) and mask.all()
    assert polygons.rasterize([polygons.rectangle(30, 2, 9, 3)], (10, 20)) is None
    parts = [polygons.rectangle(0, 0, 2, 2), polygons.rectangle(5, 0, 2, 2)]
    mask, origin = polygons.rasterize(parts, (10, 20))
    assert mask.shape == (2, 7) and mask.sum() == 8


@pytest.mark.parametrize("x, outside", [(-0.9, False), (-1.5, True), (16.9, False), (17.5, True)])
def test_a_pixel_outside_is_tolerated(x, outside):
    assert polygons.reaches_outside([polygons.rectangle(x, 2, 4, 3)], (10, 20)) is outside


@pytest.mark.parametrize("seed", range(20))
def test_pixels_are_those_of_pycocotools(seed):
    """Also for polygons that reach outside by up to an image side."""
    rng = np.random.default_rng(seed)
    parts = [rng.uniform((-80, -80), (160, 140), (rng.integers(3, 12), 2)) for _ in range(3)]
    flat = [part.ravel().tolist() for part in parts]
    expected = reference.decode(reference.merge(reference.frPyObjects(flat, *SIZE)))
    assert np.array_equal(whole(parts), expected)
    assert np.array_equal(reference.decode(polygons.encode(parts, SIZE)), expected)


@pytest.mark.parametrize("far", [1e3, 1e7, 1e12, 1e300])
def test_an_edge_far_outside_stays_straight(far):
    """A triangle whose tip lies far to the right: its lower edge goes through (0, 10) with a known slope."""
    mask = whole([np.array([(0.0, 10.0), (far, 10.0), (0.0, 50.0)])])
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected = (rows > 10) & (rows < 50 - 40 * columns / far)
    assert (mask != expected).sum() <= SIZE[1]  # a pixel for each column, along the edge
    assert mask[10:45].all() or far == 1e3


@pytest.mark.usefixtures("usual_collector")
def test_large_coordinates_cost_nothing():
    tracemalloc.start()
    start = time.perf_counter()
    for value in (1e7, 1e12, -1e12, 1e308):
        whole([np.array([(10.0, 10.0), (value, 10.0), (40.0, 40.0)])])
        polygons.encode([np.array([(10.0, 10.0), (value, -value), (40.0, 40.0)])], SIZE)
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_outlines_that_are_too_long_are_refused():
    zigzag = np.tile([(0.0, 0.0), (80.0, 60.0)], (polygons.MAX_OUTLINE_LENGTH // 100, 1))
    with pytest.raises(ValueError, match="outline of an object may be at most"):
        polygons.rasterize([zigzag], SIZE)


def test_a_part_of_two_points_is_not_a_box():
    part, square = np.array([(1.0, 1.0), (30.0, 30.0)]), polygons.rectangle(2, 3, 4, 5)
    for parts in ([part, square], [square, part]):
        assert whole(parts).sum() == 20
    assert polygons.rasterize([part], SIZE) is None
    assert reference.area(polygons.encode([part], SIZE)) == 0


def test_many_parts_are_united():
    parts = [polygons.rectangle(2 * x, 2 * y, 1, 1) for x in range(40) for y in range(30)]
    assert whole(parts).sum() == 1200 and whole(parts)[::2, ::2].all()


@pytest.mark.parametrize(
    "segmentation, corners",
    [
        ([[1, 2, 3, 4, 5, 6]], [3]),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3.5, 4]], [3, 2]),
        ([1, 2, 3, 4, 5, 6.5], [3]),
        ([[[1, 2], [3, 4], [5, 6]]], [3]),
        ([], []),
        ([[]], [0]),
    ],
)
def test_flat_and_nested_segmentations(segmentation, corners):
    parts = polygons.parse(segmentation)
    assert [len(part) for part in parts] == corners
    if corners[:1] == [3]:
        assert parts[0][:2].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "segmentation",
    [
        7,
        "12345678",
        {"x": 1},
        [[1, 2, 3]],
        [["1", "2", "3", "4", "5", "6"]],
        [[1, 2, None, 4, 5, 6]],
        [[1, 2, float("nan"), 4, 5, 6]],
        [[1, 2, float("inf"), 4, 5, 6]],
        [[True, False, True, True, False, True]],
        [[1, 2, [3], 4, 5, 6]],
        [[10**400, 2, 3, 4, 5, 6]],
        [[[1, 2, 3], [4, 5, 6]]],
        [None],
        [1, 2, 3, 4, 5, "6"],
    ],
    ids=str,
)
def test_what_is_not_numbers_is_refused(segmentation):
    with pytest.raises(ValueError, match=r"polygon .*Received"):
        polygons.parse(segmentation)

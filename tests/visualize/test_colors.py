import colorsys

import numpy as np
import pytest

from mrcnn.drawing import colors


def test_random_colors_are_all_hues_at_equal_steps():
    for bright, value in ((True, 1.0), (False, 0.7)):
        hsv = [colorsys.rgb_to_hsv(*color) for color in colors.random_colors(6, bright)]
        np.testing.assert_allclose(sorted(h for h, _, _ in hsv), np.arange(6) / 6, atol=1e-9)
        np.testing.assert_allclose([(s, v) for _, s, v in hsv], [(1.0, value)] * 6)
    assert colors.random_colors(0) == []


def luminance_contrast(a, b):
    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_legible_on_every_color():
    for color in [*colors.distinct_colors(60), *colors.random_colors(12), (0, 0, 0), (1, 1, 1)]:
        ink = colors.text_color(color)
        other = tuple(1 - value for value in ink)
        assert luminance_contrast(ink, color) >= 4.5
        assert luminance_contrast(ink, color) >= luminance_contrast(other, color)


def with_deuteranopia(rgb):
    # Simulation matrix of Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
    matrix = [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
    linear = np.asarray(rgb) ** 2.2
    return np.clip(np.asarray(matrix) @ linear, 0, 1) ** (1 / 2.2)


def test_first_colors_stay_apart_for_color_blind_readers():
    perceived = [with_deuteranopia(color) for color in colors.distinct_colors(7)]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(perceived) for b in perceived[:i]]
    assert min(gaps) > 0.15
    # Plain hues, in contrast, have neighbors that nearly fall together.
    hues = [colorsys.hsv_to_rgb(i / 7, 1, 1) for i in range(7)]
    hues = [with_deuteranopia(color) for color in hues]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(hues) for b in hues[:i]) < min(gaps)


def test_distinct_colors_are_distinct_stable_and_in_range():
    many = colors.distinct_colors(100)
    assert len(set(many)) == 100
    assert many[:30] == colors.distinct_colors(30)
    assert np.min(many) >= 0 and np.max(many) <= 1


def test_instance_colors_accept_lists_arrays_bytes_and_alpha():
    expected = [[1.0, 0.0, 0.2], [0.0, 1.0, 0.4]]
    for values in (
        expected,
        np.array(expected),
        [(1.0, 0.0, 0.2, 0.8), (0.0, 1.0, 0.4)],
        [(255, 0, 51), (0, 255, 102)],
        np.array([(255, 0, 51), (0, 255, 102)], dtype=np.uint8),
        [*expected, (0.0, 0.0, 0.0)],
    ):
        np.testing.assert_allclose(colors.instance_colors(values, 2), expected)
    assert colors.instance_colors(None, 0).shape == (0, 3)
    assert colors.instance_colors([], 0).shape == (0, 3)


def test_instance_colors_need_one_color_per_instance():
    with pytest.raises(ValueError, match=r"len\(colors\)=1 for 2 instances"):
        colors.instance_colors([(1, 0, 0)], 2)
    with pytest.raises(ValueError, match=r"three or four numbers.*colors\[0\]=\(1, 0\)"):
        colors.instance_colors([(1, 0), (0, 1)], 2)


def test_class_colors_do_not_depend_on_other_classes():
    few, many = colors.class_colors([2, -2]), colors.class_colors(np.arange(20))
    np.testing.assert_array_equal(few, [colors.distinct_colors(2)[1]] * 2)
    np.testing.assert_array_equal(few[0], many[2])
    np.testing.assert_array_equal(many[0], colors.GRAY)
    assert colors.class_colors([]).shape == (0, 3)

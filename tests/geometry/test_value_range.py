"""The values of black and white: one range for a dtype or a data set, whatever the values of one image."""

import warnings

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.errors import InvalidDataError
from mrcnn.geometry import value_range
from mrcnn.geometry.value_range import scaled


@pytest.fixture
def config():
    return Config()


def on_scale(image, config):
    image = np.asarray(image)
    return scaled(image, value_range.value_range(image, config))


def test_each_dtype_has_a_range(config):
    eight = np.array([0, 128, 255], np.uint8)
    assert on_scale(eight, config) is eight
    np.testing.assert_allclose(on_scale(eight.astype(np.uint16) * 257, config), eight)
    np.testing.assert_allclose(on_scale(eight / 255.0, config), eight, rtol=1e-6)
    np.testing.assert_array_equal(on_scale([True, False], config), [255, 0])
    whole = eight.astype(np.int64)
    assert on_scale(whole, config) is whole


@pytest.mark.filterwarnings("ignore:A uint16 image has no value above 255")
@pytest.mark.parametrize("dtype, white", [(np.uint16, 65535), (np.float32, 1.0)])
def test_one_bright_pixel_or_more_light_changes_no_other_pixel(config, dtype, white):
    frame = (np.random.default_rng(0).uniform(0, 0.004, (64, 64, 3)) * white).astype(dtype)
    expected = frame.astype(np.float64) * (255 / white)
    np.testing.assert_allclose(on_scale(frame, config), expected, rtol=1e-5)
    hot = frame.copy()
    hot[5, 5] = white / 2
    changed = on_scale(hot, config)
    changed[5, 5] = expected[5, 5]
    np.testing.assert_allclose(changed, expected, rtol=1e-5)
    brighter = (frame * 1.1).astype(dtype)
    np.testing.assert_allclose(on_scale(brighter, config), brighter * (255 / white), rtol=1e-5)


@pytest.mark.parametrize("light", [0.999, 1.001, 1.1, 1.9])
def test_floats_around_one_are_on_the_same_scale(config, light):
    image = np.linspace(-0.05, 1, 300).reshape(10, 10, 3) * light
    np.testing.assert_allclose(on_scale(image, config), image * 255, rtol=1e-5)


def test_floats_of_0_to_255_stay_with_a_warning(config):
    image = np.linspace(0, 255, 300).reshape(10, 10, 3)
    with pytest.warns(UserWarning, match=r"float image.*IMAGE_VALUE_RANGE = \(0, 255\)"):
        assert on_scale(image, config) is image
    config.IMAGE_VALUE_RANGE = (0, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert on_scale(image, config) is image


@pytest.mark.parametrize(
    "image, message",
    [
        (np.full((4, 4, 3), 249, np.uint16), "uint16 image has no value above 255"),
        (np.full((4, 4, 3), 900, np.int32), "int32 has values above 255"),
    ],
)
def test_values_that_hint_at_another_range_are_named(config, image, message):
    with pytest.warns(UserWarning, match=message):
        on_scale(image, config)


@pytest.mark.parametrize(
    "image",
    [
        np.linspace(-123, 1.5, 300).reshape(10, 10, 3),  # a dark image minus the mean color
        np.repeat([0.0, 1.0, 2.0], 100).reshape(10, 10, 3),  # a black frame of a video
    ],
)
def test_dark_floats_of_0_to_255_stay_with_a_warning(config, image):
    assert not value_range.is_unit_range(image)
    with pytest.warns(UserWarning, match="its range is taken to be 0 to 255"):
        assert on_scale(image, config) is image


def test_values_of_any_size_stay_if_the_setting_says_so(config):
    config.IMAGE_VALUE_RANGE = (0, 255)
    image = np.full((4, 4, 3), 43690, np.uint16)
    with pytest.warns(UserWarning, match=r"uint16 image has values far outside.*\(0, 255\)"):
        assert on_scale(image, config) is image


def test_the_setting_rules_but_for_bytes(config):
    config.IMAGE_VALUE_RANGE = (100, 4195)
    image = np.array([[100, 4195]], np.uint16)
    np.testing.assert_allclose(on_scale(image, config), [[0, 255]], rtol=1e-6)
    np.testing.assert_allclose(on_scale(image.astype(np.float64), config), [[0, 255]], rtol=1e-6)
    eight = np.array([0, 128, 255], np.uint8)
    assert on_scale(eight, config) is eight


def test_a_mean_on_another_scale_leaves_the_values(config):
    config.MEAN_PIXEL = np.array([0.4, 0.4, 0.4])
    unit = np.array([0.0, 0.5, 1.0])
    assert on_scale(unit, config) is unit


@pytest.mark.parametrize(
    "image, limits, message",
    [
        (np.array([0.0, np.inf]), None, "must be finite"),
        (np.full((2, 2), np.nan, np.float32), (0, 1), "must be finite"),
        (
            np.full((2, 2, 3), 30000.0),
            None,
            r"float64 image must be near the range from 0 .black. to 255.*30000",
        ),
        (np.full((2, 2, 3), 2**40, np.int64), None, "int64 image must be near the range from 0 "),
        (np.full((2, 2, 3), 40000, np.uint16), (0, 1), "uint16 image must be near the range from 0 "),
        (np.full((2, 2, 3), -9000, np.int16), None, "int16 image"),
    ],
)
def test_values_far_from_the_range_are_refused(config, image, limits, message):
    config.IMAGE_VALUE_RANGE = limits
    with pytest.raises(InvalidDataError, match=message):
        value_range.value_range(image, config)


def test_a_change_of_scale_is_seen():
    eight = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    assert value_range.has_lost_scale(eight, eight / 255)
    assert value_range.has_lost_scale(eight / 255, eight)
    for same in (eight * 0.5, eight.astype(np.float32), eight // 2):
        assert not value_range.has_lost_scale(eight, same)
    assert not value_range.has_lost_scale(eight / 255, eight / 500)

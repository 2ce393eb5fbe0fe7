"""Channels and scale of pictures, by hand."""

import sys

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.errors import InvalidDataError
from mrcnn.geometry import preprocessing


def test_grey_becomes_rgb_and_alpha_goes():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rgb = preprocessing.with_channels(grey, 3)
    assert rgb.shape == (2, 3, 3)
    assert (rgb == grey[:, :, None]).all()
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(preprocessing.with_channels(rgba, 3), rgba[:, :, :3])
    assert preprocessing.with_channels(grey, 1).shape == (2, 3, 1)
    assert preprocessing.with_channels(rgba, 4) is rgba


@pytest.mark.parametrize("shape, channels", [((2, 3, 3), 1), ((2, 3, 5), 3), ((2,), 3), ((1, 2, 3, 3), 3)])
def test_what_would_have_to_be_guessed_is_refused(shape, channels):
    with pytest.raises(ValueError, match="IMAGE_CHANNEL_COUNT"):
        preprocessing.with_channels(np.arange(np.prod(shape)).reshape(shape), channels)


def test_three_equal_channels_become_one():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(preprocessing.with_channels(gray.repeat(3, axis=2), 1), gray)


@pytest.mark.parametrize(
    "image",
    [
        "a.png",
        b"a.png",
        None,
        {},
        np.zeros((2, 3, 3), complex),
        np.zeros((2, 3), object),
        np.zeros((0, 4, 3)),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(InvalidDataError, match="An image must"):
        preprocessing.with_channels(image, 3)


def test_both_by_config():
    config = Config()
    image = preprocessing.as_network_image(np.full((2, 2), 65535, np.uint16), config)
    np.testing.assert_allclose(image, np.full((2, 2, 3), 255.0))
    config.CONTRAST_PERCENTILES = (0, 100)
    stretched = preprocessing.as_network_image(np.arange(300, 600).reshape(10, 30).astype(np.uint16), config)
    assert (stretched.dtype, stretched.min(), stretched.max()) == (np.uint8, 0, 255)


def test_contrast_by_hand():
    """Channel by channel: 20..40 becomes 0..255, a flat one 0, one of four grey levels as if of eight."""
    picture = np.zeros((1, 5, 3), np.uint8)
    picture[0, :, 0] = [20, 25, 30, 35, 40]
    picture[0, :, 1] = 9
    picture[0, :, 2] = [0, 1, 2, 3, 4]
    stretched = preprocessing.stretch_contrast(picture, (0, 100))
    assert stretched.dtype == np.uint8
    assert stretched[0, :, 0].tolist() == [0, 64, 128, 191, 255]
    assert not stretched[..., 1].any()
    assert stretched[0, :, 2].tolist() == [0, 32, 64, 96, 128]
    # the outer quarters are clipped
    assert preprocessing.stretch_contrast(picture, (25, 75))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert preprocessing.stretch_contrast(picture, None) is picture


@pytest.mark.parametrize("change", [lambda p: p / 8, lambda p: p * 40 + 700, lambda p: p * [0.5, 1, 1.5] + 3])
@pytest.mark.parametrize("size", [40, 700])
def test_exposure_gain_and_tint_are_taken_away(change, size):
    picture = np.random.default_rng(0).uniform(0, 150, (size, size + 3, 3))
    expected = preprocessing.stretch_contrast(picture, (1, 99.8)).astype(int)
    stretched = preprocessing.stretch_contrast(change(picture), (1, 99.8))
    assert np.abs(stretched - expected).max() <= 1
    assert expected.min() == 0 and expected.max() == 255


@pytest.fixture(params=["OpenCV", "NumPy"])
def library(request, monkeypatch):
    """What looks up values in a table."""
    if request.param == "NumPy":
        monkeypatch.setitem(sys.modules, "cv2", None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("levels", [5, 60, 256])
def test_a_table_of_8_bits_stretches_as_the_formula(channels, levels):
    rng = np.random.default_rng(levels)
    image = rng.integers(0, levels, (30, 40, channels + 1)).astype(np.uint8)[..., :channels]
    low, high = preprocessing.contrast_limits(image, (1, 99.8))
    scale = np.float32(255) / np.maximum(high - low, 8)
    expected = np.clip((image - low) * scale + np.float32(0.5), 0, 255).astype(np.uint8)
    found = preprocessing.stretch_between(image, low, high)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_network_pixels_are_those_of_mold_image(dtype, channels):
    config = Config()
    config.MEAN_PIXEL = np.linspace(20.1, 130.7, channels)
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels)).astype(dtype)
    for view in (image, image[::-1, ::2], image[:0]):
        pixels = preprocessing.network_pixels(view, config)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, preprocessing.mold_image(view, config).astype(np.float32))


def test_bool_is_stretched_as_0_and_255():
    image = np.random.default_rng(0).random((20, 30, 3)) > 0.5
    stretched = preprocessing.stretch_contrast(image, (1, 99.8))
    assert stretched.dtype == np.uint8
    np.testing.assert_array_equal(stretched, image * 255)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(value):
    image = np.zeros((4, 5, 3), np.float32)
    image[1, 2, 0] = value
    with pytest.raises(InvalidDataError, match=r"scan.tif: .*1 of 60 values are NaN or infinite"):
        preprocessing.check_finite(image, "scan.tif")
    with pytest.raises(InvalidDataError, match="1 of 60 values"):
        preprocessing.stretch_contrast(image, (1, 99))

"""Changes of images: exact values where they are plain arithmetic, else the same as imgaug's."""

import io

import numpy as np
import PIL.Image
import pytest
from skimage import data

from mrcnn.data import image_changes

PICTURE = np.ascontiguousarray(data.astronaut()[:200, 150:350])
NO_MASKS = np.zeros((200, 200, 0), bool)

# Change -> the augmenter of imgaug with the same number, and the largest mean difference in gray levels.
SAME_AS_IMGAUG = {
    "brightness": (lambda: image_changes.multiply(PICTURE, 1.4), lambda iaa: iaa.Multiply(1.4), 0.6),
    "contrast": (
        lambda: image_changes.change_contrast(PICTURE, 0.7),
        lambda iaa: iaa.LinearContrast(0.7),
        0.6,
    ),
    "gamma": (lambda: image_changes.change_gamma(PICTURE, 1.8), lambda iaa: iaa.GammaContrast(1.8), 0.6),
    "warm": (
        lambda: image_changes.change_color_temperature(PICTURE, 4300),
        lambda iaa: iaa.ChangeColorTemperature(4300),
        0.6,
    ),
    "cold": (
        lambda: image_changes.change_color_temperature(PICTURE, 8700),
        lambda iaa: iaa.ChangeColorTemperature(8700),
        0.6,
    ),
    "hue": (
        lambda: image_changes.shift_hue_and_saturation(PICTURE, int(15 * 180 / 255), 0),
        lambda iaa: iaa.AddToHue(15),
        0.6,
    ),
    "saturation": (
        lambda: image_changes.shift_hue_and_saturation(PICTURE, 0, -40),
        lambda iaa: iaa.AddToSaturation(-40),
        0.6,
    ),
    "blur": (lambda: image_changes.blur(PICTURE, 1.2), lambda iaa: iaa.GaussianBlur(1.2), 0.6),
    "resolution": (
        lambda: image_changes.lower_resolution(PICTURE, 0.5),
        lambda iaa: iaa.KeepSizeByResize(iaa.Resize(0.5)),
        0.6,
    ),
    "rotation": (
        lambda: image_changes.rotate_and_scale(PICTURE, NO_MASKS, -10, 1.2, (90, 90, 90))[0],
        lambda iaa: iaa.Affine(rotate=10, scale=1.2, cval=90),
        1.5,
    ),
}


@pytest.mark.parametrize("name", SAME_AS_IMGAUG)
def test_is_the_change_of_imgaug(name):
    iaa = pytest.importorskip("imgaug.augmenters")
    change, augmenter, tolerance = SAME_AS_IMGAUG[name]
    changed = change()
    assert changed.dtype == np.uint8 and changed.shape == PICTURE.shape
    expected = augmenter(iaa).augment_image(PICTURE)
    assert np.abs(expected.astype(int) - PICTURE).mean() > 2, "the augmenter does nothing"
    assert np.abs(changed.astype(int) - expected).mean() < tolerance


def test_jpeg_is_that_of_pillow():
    file = io.BytesIO()
    PIL.Image.fromarray(PICTURE).save(file, "JPEG", quality=40)
    expected = np.asarray(PIL.Image.open(file)).astype(int)
    changed = image_changes.compress_as_jpeg(PICTURE, 40)
    assert np.abs(changed - expected).max() <= 2 < np.abs(PICTURE - expected).max()


def test_values_are_rounded_and_clipped():
    image = np.full((1, 1, 3), (10, 100, 201), np.uint8)
    assert image_changes.multiply(image, 1.25).tolist() == [[[12, 125, 251]]]
    assert image_changes.multiply(image, (2, 1, 1.5)).tolist() == [[[20, 100, 255]]]
    assert image_changes.change_contrast(image, 2).tolist() == [[[0, 73, 255]]]
    assert image_changes.change_gamma(image, 1).tolist() == image.tolist()
    noise = np.array([[[-11.0]]])
    assert image_changes.add_noise(image, noise).tolist() == [[[0, 89, 190]]]


@pytest.mark.parametrize("count", range(4))
def test_quarter_turns_move_masks_with_the_image(count):
    mask = np.zeros((40, 60), bool)
    mask[4:12, 6:18] = True  # a fifth of the height and of the width
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    turned, masks = image_changes.quarter_turns(image, mask[..., None], count)
    assert turned.shape == image.shape and masks.shape == (40, 60, 1)
    assert masks.sum() == mask.sum()
    assert (turned[..., 0] > 127)[masks[..., 0]].mean() > 0.9
    corner = [(0, 0), (1, 0), (1, 1), (0, 1)][count]  # counterclockwise from the upper left
    assert tuple(np.argwhere(masks[..., 0]).mean(axis=0) > (20, 30)) == corner


def test_rotation_moves_masks_with_the_image():
    y, x = np.mgrid[:90, :120]
    masks = np.stack([(y - 30) ** 2 + (x - 40) ** 2 < 200, (abs(y - 60) < 12) & (abs(x - 80) < 20)], axis=-1)
    image = np.dstack([masks, np.zeros((90, 120), bool)]).astype(np.uint8) * 255
    moved, moved_masks = image_changes.rotate_and_scale(image, masks, 20, 1.1, (0, 0, 0))
    bright = moved[..., :2] > 127
    assert (moved_masks != masks).any()
    iou = (bright & moved_masks).sum(axis=(0, 1)) / (bright | moved_masks).sum(axis=(0, 1))
    assert iou.min() > 0.95
    areas = moved_masks.sum(axis=(0, 1)) / masks.sum(axis=(0, 1))
    np.testing.assert_allclose(areas, 1.1**2, rtol=0.03)
    outside = image_changes.rotate_and_scale(image, masks, 0, 0.5, (7, 77, 200))
    assert (outside[0][0] == (7, 77, 200)).all() and not outside[1][0].any()


def test_no_blur_and_full_resolution_change_nothing():
    assert np.array_equal(image_changes.blur(PICTURE, 0), PICTURE)
    assert np.array_equal(image_changes.lower_resolution(PICTURE, 1), PICTURE)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint32", "int64", "float16"])
@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_images_of_any_dtype_are_scaled(dtype, factor):
    image = np.zeros((20, 30, 3))
    image[:, 15:] = 1 if dtype == "bool" else 100
    masks = image[..., :1] > 0
    changed, moved = image_changes.scale_and_move(image.astype(dtype), masks, factor, (0.5, 0.5))
    assert changed.dtype == dtype and changed.shape == image.shape
    expected, _ = image_changes.scale_and_move(image, masks, factor, (0.5, 0.5))
    np.testing.assert_allclose(changed[moved[..., 0]].astype(float), expected[moved[..., 0]], atol=1)

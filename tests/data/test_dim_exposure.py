"""Dim exposures whose contrast was stretched, as an augmentation."""

import numpy as np
import pytest
from skimage import data

import mrcnn
from mrcnn.data import dim_exposure as module
from mrcnn.data.augmentation import AugmentationError
from mrcnn.geometry import preprocessing


def bright_coins():
    """A dark picture with bright coins, its contrast stretched: uint8 [128, 128, 3]."""
    gray = preprocessing.stretch_contrast(data.coins()[:128, :128, np.newaxis], (1, 99.8))
    return np.repeat(gray, 3, axis=2)


def drawn(image, count=40, **options):
    masks = np.zeros((*image.shape[:2], 2), bool)
    augmentation = mrcnn.dim_exposure(1.0, **options)
    rng = np.random.default_rng(0)
    changed = [augmentation(image, masks, rng) for _ in range(count)]
    assert all(kept is masks for _, kept in changed)
    return [seen for seen, _ in changed]


def roughness(image):
    """Mean difference of neighbors in a row, in gray levels."""
    return np.abs(np.diff(image[..., 0].astype(int), axis=1)).mean()


def test_images_are_as_bright_as_before_and_noisier_or_smoother():
    image = bright_coins()
    seen = drawn(image)
    assert all(picture.shape == image.shape and picture.dtype == np.uint8 for picture in seen)
    assert min(np.percentile(picture, 99.8) for picture in seen) > 200
    ratios = [roughness(picture) / roughness(image) for picture in seen]
    assert max(ratios) > 3 and min(ratios) < 0.7
    similar = [np.corrcoef(picture.ravel(), image.ravel())[0, 1] for picture in seen]
    assert np.median(similar) > 0.8


def test_the_noise_of_a_dim_exposure_is_stretched_with_it(monkeypatch):
    """By hand: a tenth of the light, and noise of 5 levels, which are 50 after the contrast is stretched."""
    monkeypatch.setattr(module, "DARKEST", 0.1)

    class Lowest:
        """Draws the lowest factor, the first fault and a deviation of 5."""

        def random(self):
            return 0.0

        def integers(self, *_):
            return 0

        def uniform(self, low, high):
            return low if low < 0 else 5.0

        def normal(self, mean, sigma, size):
            return np.random.default_rng(0).normal(mean, sigma, size)

    flat = np.full((200, 200, 3), 128, np.uint8)
    flat[:20], flat[-20:] = 0, 255
    changed, _ = mrcnn.dim_exposure(1.0)(flat, np.zeros((200, 200, 0), bool), Lowest())
    # The darkest hundredth is clipped at 0, so the span is about 0 to 25.5 + 5 levels.
    assert 30 < changed[40:160].std() < 55


def test_faults_belong_to_the_pixels_of_the_camera():
    """An image that was enlarged fourfold has no noise between its own pixels."""
    image = np.repeat(np.repeat(bright_coins()[:32, :32], 4, axis=0), 4, axis=1)
    rough = max(roughness(picture) for picture in drawn(image))
    smooth = max(roughness(picture) for picture in drawn(image, enlarged=4.0))
    assert smooth < rough / 2


def test_the_probability_decides_how_many_images_change():
    image, masks = bright_coins(), np.zeros((128, 128, 1), bool)
    rng = np.random.default_rng(0)
    augmentation = mrcnn.dim_exposure(0.25)
    changed = sum(augmentation(image, masks, rng)[0] is not image for _ in range(400))
    assert 70 <= changed <= 130
    assert all(mrcnn.dim_exposure(0.0)(image, masks, rng)[0] is image for _ in range(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "`probability` must be a number from 0 to 1. Received: probability=1.5"),
        ({"probability": float("nan")}, "`probability` must be"),
        ({"enlarged": 0.5}, "`enlarged` must be at least 1. Pass the factor .* Received: enlarged=0.5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        mrcnn.dim_exposure(**options)


def test_other_images_are_refused():
    with pytest.raises(AugmentationError, match=r"uint8 RGB.*CONTRAST_PERCENTILES"):
        mrcnn.dim_exposure()(
            np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 0), bool), np.random.default_rng()
        )

"""One dye of a stained section, apart from the others."""

import numpy as np
import pytest
from skimage import color, data

from mrcnn.data import stains
from mrcnn.data.augmentation import AugmentationError


def section():
    """White glass with a spot of each dye: hematoxylin, eosin and DAB, and their amounts."""
    amounts = np.zeros((60, 60, 3))
    for dye, corner in enumerate((5, 25, 45)):
        amounts[corner : corner + 10, corner : corner + 10, dye] = 0.1
    return (color.hed2rgb(amounts) * 255).round().astype(np.uint8), amounts > 0


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_the_blue_dye_is_bright_and_the_others_are_dark(kind):
    picture, spots = section()
    seen = stains.hematoxylin(picture if kind is np.uint8 else picture / 255)
    assert seen.shape == (60, 60, 3) and seen.dtype == np.uint8
    assert (seen == seen[..., :1]).all()
    inner = np.zeros((60, 60), bool)
    inner[8:12, 8:12] = True
    assert seen[inner].min() > 230
    for other in (1, 2):
        assert seen[spots[..., other]].max() < 40
    assert np.median(seen) < 10


def test_nuclei_of_a_real_section_stand_out():
    """Those of the pale stroma, whose place is known, against the brown gland and the empty glass."""
    seen = stains.hematoxylin(data.immunohistochemistry())[..., 0].astype(int)
    nucleus, gland, glass = seen[271:277, 404:410], seen[160:200, 20:60], seen[330:380, 5:35]
    assert nucleus.mean() > gland.mean() + 40 and nucleus.mean() > glass.mean() + 100


def test_grey_pictures_have_no_stain():
    with pytest.raises(ValueError, match=r"color image of shape \(height, width, 3\).*shape=\(8, 8\)"):
        stains.hematoxylin(np.zeros((8, 8), np.uint8))


class TestStainJitter:
    def test_a_dye_changes_by_its_factor(self):
        """By hand: two layers of hematoxylin let through the square of what one layer lets through."""
        through = 10 ** -(0.4 * color.rgb_from_hed[0])
        one, two = (np.rint(255 * through**layers).astype(np.uint8)[None, None] for layers in (1, 2))
        changed = stains.change_dyes(one, np.array([2.0, 1.0, 1.0]), np.zeros(3))
        assert np.abs(changed.astype(int) - two).max() <= 2
        added = stains.change_dyes(np.full((1, 1, 3), 255, np.uint8), np.ones(3), np.array([0.4, 0, 0]))
        assert np.abs(added.astype(int) - one).max() <= 1

    def test_the_same_amounts_keep_the_image(self):
        picture = data.immunohistochemistry()[:64, :64]
        kept = stains.change_dyes(picture, np.ones(3), np.zeros(3))
        assert np.abs(kept.astype(int) - picture).max() <= 1

    def test_draws_change_colors_and_keep_masks(self):
        picture = data.immunohistochemistry()[:64, :64]
        masks = np.zeros((64, 64, 1), bool)
        jitter = stains.stain_jitter()
        first, again, other = (jitter(picture, masks, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
        assert first.shape == picture.shape and first.dtype == np.uint8
        assert 2 < np.abs(first.astype(int) - picture).mean() < 60
        assert jitter(picture, masks, np.random.default_rng(0))[1] is masks

    def test_images_without_color_are_not_changed(self):
        gray = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
        changed, _ = stains.stain_jitter(2)(gray, np.zeros((8, 8, 0), bool), np.random.default_rng(0))
        assert np.array_equal(changed, gray)

    def test_other_images_and_strengths_are_refused(self):
        with pytest.raises(AugmentationError, match=r"uint8 RGB.*dtype=float64. Set CONTRAST_PERCENTILES"):
            stains.stain_jitter()(np.zeros((8, 8, 3)), np.zeros((8, 8, 0), bool), np.random.default_rng(0))
        with pytest.raises(ValueError, match=r"from 0 to 2\. Received: strength=3"):
            stains.stain_jitter(3)
        with pytest.raises(ValueError, match=r"from 0 to 2\. Received: strength='high'"):
            stains.stain_jitter("high")

"""One dye of a stained section, apart from the others."""

import numpy as np
import pytest
from skimage import color, data

from mrcnn.data import stains


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

"""Color deconvolution: show one dye of a stained section alone, bright on dark, as in fluorescence images.

Networks trained on few stains find little in others. Color deconvolution separates the dyes by the colors
that they absorb (Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001;
with the vectors of scikit-image).
"""

import numpy as np
from skimage import color, filters

from mrcnn.geometry import preprocessing
from mrcnn.typing import Image

BLUR = 1.0  # in pixels; removes remains of the other dyes, which are noise of single pixels
# The low one lies in the background: half of a section and more has hardly any hematoxylin.
PERCENTILES = (30, 99.8)


def hematoxylin(image: Image) -> Image:
    """Separate the blue dye of nuclei from eosin's pink and the brown of DAB.

    Args:
        image: RGB [height, width, 3], uint8, uint16 or float of 0 to 1.

    Returns:
        uint8 [height, width, 3] with three equal channels; nuclei are bright on dark.

    Raises:
        ValueError: If the image has no color channels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] < 3:
        raise ValueError(
            "`image` must be a color image of shape (height, width, 3), because dyes differ in color. "
            f"Received: image.shape={image.shape}"
        )
    dye = filters.gaussian(color.rgb2hed(preprocessing.with_channels(image, 3))[..., 0], BLUR)
    bright = preprocessing.stretch_contrast(dye.astype(np.float32)[..., np.newaxis], PERCENTILES)
    return preprocessing.with_channels(bright, 3)

"""Stained sections as a fluorescence microscope would show them: one dye alone, bright on dark.

Networks that learnt from few stains find little in others. Colour deconvolution takes the dyes apart by the
colours that they absorb (Ruifrok and Johnston, Quantification of histochemical staining by color
deconvolution, 2001; the vectors are those of scikit-image).
"""

import numpy as np
from skimage import color, filters

from mrcnn.geometry import preprocessing

BLUR = 1.0  # pixels; what is left of the other dyes is noise of single pixels
# Of haematoxylin: half a section and more has hardly any, see `preprocessing.stretch_contrast`.
PERCENTILES = (30, 99.8)


def haematoxylin(picture: np.ndarray) -> np.ndarray:
    """The blue dye of nuclei, apart from eosin's pink and the brown of DAB.

    picture: RGB [h, w, 3], uint8, uint16 or float of 0..1. Returns uint8 [h, w, 3], three equal channels,
    nuclei bright on dark. Raises ValueError for a picture without colour channels.
    """
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] < 3:
        raise ValueError(
            f"A stain is told by its colour: the picture must be [h, w, 3]. Received: shape {picture.shape}"
        )
    dye = filters.gaussian(color.rgb2hed(preprocessing.with_channels(picture, 3))[..., 0], BLUR)
    bright = preprocessing.stretch_contrast(dye.astype(np.float32)[..., np.newaxis], PERCENTILES)
    return preprocessing.with_channels(bright, 3)

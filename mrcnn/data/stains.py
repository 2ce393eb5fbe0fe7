"""Color deconvolution of stained sections: one dye alone, or random amounts of all dyes in training.

Networks trained on few stains find little in others. Color deconvolution separates the dyes by the colors
that they absorb (Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001;
with the vectors of scikit-image). `hematoxylin` shows one dye bright on dark, as in fluorescence images.
`stain_jitter` makes training images that laboratories with other protocols could have made (Tellez et al.,
Whole-slide mitosis detection in H&E breast histology, 2018).
"""

from dataclasses import dataclass

import numpy as np
from skimage import color, filters

from mrcnn.data.augmentation import check_strength, check_uint8_rgb
from mrcnn.geometry import preprocessing
from mrcnn.typing import Image, Masks

BLUR = 1.0  # in pixels; removes remains of the other dyes, which are noise of single pixels
# The low one lies in the background: half of a section and more has hardly any hematoxylin.
PERCENTILES = (30, 99.8)
STAIN_FACTOR = 0.4  # each dye is multiplied by a factor from 1 / 1.4 to 1.4
STAIN_OFFSET = 0.05  # largest optical density that is added to or subtracted from each dye


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


@dataclass(frozen=True)
class StainJitter:
    """Random amounts of the dyes; see `stain_jitter`. Call it with a NumPy generator."""

    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, image: Image, masks: Masks, rng: np.random.Generator) -> tuple[Image, Masks]:
        """Draw the amounts and apply them.

        Args:
            image: uint8 `[height, width, 3]` RGB.
            masks: bool `[height, width, instances]`.
            rng: Source of random numbers.

        Returns:
            The changed image, and `masks`.

        Raises:
            AugmentationError: If the image is not uint8 RGB.
        """
        check_uint8_rgb(image, "stain_jitter")
        widest = np.log(1 + STAIN_FACTOR * self.strength)
        factors = np.exp(rng.uniform(-widest, widest, 3))
        offsets = rng.uniform(-STAIN_OFFSET * self.strength, STAIN_OFFSET * self.strength, 3)
        is_gray = (image == image[..., :1]).all()
        return (image if is_gray else change_dyes(image, factors, offsets)), masks


def stain_jitter(strength: float = 1.0) -> StainJitter:
    """Return an augmentation that varies the amounts of hematoxylin, eosin and DAB.

    Images without color, such as fluorescence images, are not changed. A dataset may contain both kinds.

    Args:
        strength: Factor, from 0 to 2, of the ranges.

    Returns:
        An augmentation for `MaskRCNN.train`.

    Raises:
        ValueError: If `strength` is not a number from 0 to 2.
    """
    return StainJitter(strength)


def change_dyes(image: Image, factors: np.ndarray, offsets: np.ndarray) -> Image:
    """Change the amounts of hematoxylin, eosin and DAB.

    Args:
        image: uint8 [height, width, 3] RGB.
        factors: Factor of each dye, [3].
        offsets: Optical density to add to each dye afterwards, [3].

    Returns:
        uint8 [height, width, 3].
    """
    # Light that n layers of a dye let through falls as 10 ** -n, so amounts add up in the logarithm. Black is
    # taken as the darkest gray. skimage's rgb2hed would clip negative amounts, and thus change the image.
    density = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)[image]
    mixed = color.hed_from_rgb @ np.diag(factors) @ color.rgb_from_hed
    changed = density @ mixed.astype(np.float32) + (offsets @ color.rgb_from_hed).astype(np.float32)
    result: Image = np.rint(255 * np.clip(10.0**-changed, 0, 1)).astype(np.uint8)
    return result

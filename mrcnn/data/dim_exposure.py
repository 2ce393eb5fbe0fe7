"""Dim images whose contrast was stretched, as training images.

`CONTRAST_PERCENTILES` makes dim images as bright as others, and their noise and compression artifacts as many
times stronger. The camera policy sees the images after that, so its noise is that of bright images.
`dim_exposure` makes the images that a dim exposure would have given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mrcnn.data import image_changes
from mrcnn.data.augmentation import check_uint8_rgb
from mrcnn.geometry import preprocessing
from mrcnn.typing import Image, Masks

DARKEST = 0.12  # smallest factor of the levels
NOISE = 20.0  # largest standard deviation in gray levels of the dim image
JPEG = (15, 80)  # quality
BLUR = 2.5  # largest standard deviation in pixels
PERCENTILES = (1, 99.8)  # of the levels that become black and white


@dataclass(frozen=True)
class DimExposure:
    """A random dim exposure of an image; see `dim_exposure`. Call it with a NumPy generator."""

    probability: float
    enlarged: float

    def __call__(self, image: Image, masks: Masks, rng: np.random.Generator) -> tuple[Image, Masks]:
        """Dim the image, degrade it, and stretch its contrast again, all at random.

        Args:
            image: uint8 `[height, width, 3]` RGB.
            masks: bool `[height, width, instances]`.
            rng: Source of random numbers.

        Returns:
            The changed image, and `masks`.

        Raises:
            AugmentationError: If the image is not uint8 RGB.
        """
        check_uint8_rgb(image, "dim_exposure")
        if rng.random() >= self.probability:
            return image, masks
        height, width = image.shape[:2]
        size = max(1, round(width / self.enlarged)), max(1, round(height / self.enlarged))
        dim = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        dim = image_changes.multiply(dim, float(np.exp(rng.uniform(np.log(DARKEST), 0))))
        faults = self._faults(rng)
        dim = faults[rng.integers(len(faults))](dim)
        bright = preprocessing.stretch_contrast(dim, PERCENTILES)
        return cv2.resize(bright, (width, height), interpolation=cv2.INTER_LINEAR), masks

    def _faults(self, rng: np.random.Generator) -> list[Callable[[Image], Image]]:
        """Return the ways to degrade an image. Each draws its strength when it is called."""

        def noise(image: Image) -> Image:
            channels = 3 if rng.random() < 0.5 else 1
            return image_changes.add_noise(
                image, rng.normal(0, rng.uniform(0, NOISE), (*image.shape[:2], channels))
            )

        return [
            noise,
            lambda image: image_changes.compress_as_jpeg(image, int(rng.integers(JPEG[0], JPEG[1] + 1))),
            lambda image: image_changes.blur(image, rng.uniform(0, BLUR)),
        ]


def dim_exposure(probability: float = 0.5, enlarged: float = 1.0) -> DimExposure:
    """Return an augmentation that imitates dim exposures, for a Config with CONTRAST_PERCENTILES.

    The levels are multiplied by 0.12 to 1 (the logarithm is uniform). The dim image gets noise of up to 20
    gray levels, the artifacts of a JPEG file of quality 15 to 80, or a blur of up to 2.5 pixels. Then its
    contrast is stretched again.

    Args:
        probability: Share of the images that are changed.
        enlarged: Factor by which the Config enlarges the images, such as IMAGE_MIN_SCALE. The faults belong
            to the pixels of the camera, so the image is reduced by this factor, and enlarged afterwards.

    Returns:
        An augmentation for `MaskRCNN.train`.

    Raises:
        ValueError: If `probability` is not within 0 to 1, or `enlarged` is below 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must be a number from 0 to 1. Received: probability={probability!r}")
    if not enlarged >= 1:
        raise ValueError(
            "`enlarged` must be at least 1. Pass the factor by which the Config enlarges images, such as "
            f"IMAGE_MIN_SCALE. Received: enlarged={enlarged!r}"
        )
    return DimExposure(probability, enlarged)

"""Decide once for a dataset which values of its images are black and white."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry.value_range import NETWORK_RANGE, UNIT_RANGE, is_scaled, is_unit_range

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset

logger = logging.getLogger(__name__)

SAMPLED_IMAGES = 8  # of a dataset, to find the scale


def settle_value_range(dataset: "Dataset", config: "Config") -> None:
    """Set IMAGE_VALUE_RANGE of a Config for a dataset of float images, unless it is set.

    The dtype is that of the first image. For floats, several images spread over the dataset determine whether
    the scale is 0 to 1 or 0 to 255. For all other dtypes the range is known, and nothing changes. Nothing
    changes either if images are not scaled, because MEAN_PIXEL is not on a scale of 0 to 255.

    Args:
        dataset: A prepared Dataset.
        config: Its IMAGE_VALUE_RANGE may be set.
    """
    if config.IMAGE_VALUE_RANGE is not None or config.CONTRAST_PERCENTILES is not None:
        return
    if not is_scaled(config):
        return
    image_ids = dataset.image_ids
    chosen = image_ids[np.linspace(0, len(image_ids) - 1, min(SAMPLED_IMAGES, len(image_ids))).astype(int)]
    found = []
    for image_id in map(int, chosen):
        try:
            image = np.asarray(dataset.load_image(image_id))
        except Exception:  # training tolerates a few such images
            continue
        if image.dtype.kind != "f":
            return
        if np.isfinite(image).all():  # others cannot be loaded; their percentiles are NaN
            found.append(is_unit_range(image))
    if found:
        values = UNIT_RANGE if all(found) else NETWORK_RANGE
        config.IMAGE_VALUE_RANGE = tuple(values)
        logger.info(
            "Float images are taken to range from %g to %g. Set IMAGE_VALUE_RANGE to change this.", *values
        )

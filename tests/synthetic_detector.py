"""A detector that finds the connected regions of an image, for tests of tiles: what it must find is known."""

import numpy as np
from skimage import draw, measure

import mrcnn
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results.detections import Detections
from mrcnn.tiles.detecting import TileModel


class RegionConfig(mrcnn.Config):
    """Images keep their size."""

    NAME = "regions"
    NUM_CLASSES = 1 + 2
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = None
    IMAGE_MIN_SCALE = 0
    DETECTION_MAX_INSTANCES = 1000


def regions_of(image, limit=1000):
    """The connected regions of equal values above 0; the class is 1 for values below 128, else 2."""
    values = image if image.ndim == 2 else image[..., 0]
    found = measure.regionprops(measure.label(values), values)[:limit]
    boxes = np.array([region.bbox for region in found], np.int32).reshape(-1, 4)
    return Detections(
        boxes,
        np.array([1 + (values[tuple(region.coords[0])] >= 128) for region in found], np.int32),
        np.linspace(1, 0.5, len(found), dtype=np.float32),
        MaskCrops(values.shape, boxes, tuple(region.image for region in found)),
    )


def region_model(limit=1000, detect=None):
    """A model of `detect_large` with at most `limit` regions in a tile."""
    config = RegionConfig()
    config.DETECTION_MAX_INSTANCES = limit

    def of_each(images, settings):
        return [regions_of(image, limit) for image in images]

    return TileModel(detect or of_each, config, ["BG", "dark", "bright"], lambda: 1)


def as_set(result):
    """Boxes, classes and masks, without order."""
    return {
        (tuple(map(int, roi)), int(class_id), crop.tobytes())
        for roi, class_id, (_, crop) in zip(result["rois"], result["class_ids"], result.crops(), strict=True)
    }


def disks(shape, step, radius, seed=0):
    """An image of disks that do not touch, of two classes, at every place relative to the seams."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.uint8)
    for y in range(step // 2, shape[0], step):
        for x in range(step // 2, shape[1], step):
            rows, columns = draw.disk((y, x), rng.integers(2, radius + 1), shape=shape)
            image[rows, columns] = rng.choice([100, 200])
    return image

"""Options of detection that take more time and may find more objects, off by default.

TEST_TIME_FLIPS also detects in mirror images and merges the detections. MASK_NMS_THRESHOLD suppresses a
detection whose mask overlaps the mask of a better one of its class. The boxes of slanted or touching objects
may overlap even if their masks do not, so with this option you can raise DETECTION_NMS_THRESHOLD, which
compares boxes, or set SOFT_NMS_SIGMA, which lowers scores.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry import boxes as box_geometry
from mrcnn.geometry import masks as mask_geometry
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference.outputs import Detections
from mrcnn.typing import Image, Masks

if TYPE_CHECKING:
    from mrcnn.config import Config

Detect = Callable[[Sequence[Image]], list[Detections]]

# Axes that each view reverses: none, left-right, top-bottom, both.
VIEWS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
VIEW_COUNTS = {"none": 1, "horizontal": 2, "all": 4}


def has_options(config: "Config") -> bool:
    """Return whether a Config sets one of the options."""
    return VIEW_COUNTS[config.TEST_TIME_FLIPS] > 1 or config.MASK_NMS_THRESHOLD is not None


def detect_with_options(detect: Detect, images: Sequence[Image], config: "Config") -> list[Detections]:
    """Detect with the options that a Config sets.

    Args:
        detect: The detector without options. It returns masks as MaskCrops whose boxes are the RoIs.
        images: Arrays [height, width, ...].
        config: Read for TEST_TIME_FLIPS, MASK_NMS_THRESHOLD, SOFT_NMS_SIGMA and the DETECTION_* settings. The
            merged detections of several views are suppressed by their masks at MASK_NMS_THRESHOLD. If that is
            None, those of one view lower the scores of those of the others with SOFT_NMS_SIGMA; without it,
            they are suppressed at DETECTION_NMS_THRESHOLD.

    Returns:
        The detections of each image, by descending score.
    """
    if not has_options(config):
        return detect(images)
    views = VIEWS[: VIEW_COUNTS[config.TEST_TIME_FLIPS]]
    by_view = [detect([np.flip(image, axes) for image in images]) for axes in views]
    return [
        _merge(
            [
                _unflip(detections[index], axes, image)
                for detections, axes in zip(by_view, views, strict=True)
            ],
            config,
        )
        for index, image in enumerate(images)
    ]


def _unflip(detections: Detections, axes: Sequence[int], image: Image) -> tuple[Detections, Masks]:
    """Map detections from a flipped view to the image. Return them and their masks [height, width, N]."""
    rois = detections["rois"].copy()
    for axis in axes:
        rois[:, [axis, axis + 2]] = image.shape[axis] - rois[:, [axis + 2, axis]]
    masks = detections["masks"]
    unflipped = Detections(rois, detections["class_ids"], detections["scores"], masks)
    return unflipped, np.flip(masks.whole(), axes)


def _merge(views: list[tuple[Detections, Masks]], config: "Config") -> Detections:
    """Merge the detections of all views; see `detect_with_options`."""
    rois = np.concatenate([detections["rois"] for detections, _ in views])
    class_ids = np.concatenate([detections["class_ids"] for detections, _ in views])
    scores = np.concatenate([detections["scores"] for detections, _ in views])
    masks = np.concatenate([whole for _, whole in views], axis=-1)
    threshold, sigma = config.MASK_NMS_THRESHOLD, config.SOFT_NMS_SIGMA
    if threshold is None and sigma is not None:
        view_ids = np.repeat(np.arange(len(views)), [len(detections["rois"]) for detections, _ in views])
        kept, scores = box_geometry.soft_non_max_suppression(
            rois, scores, class_ids, sigma, config.DETECTION_MIN_CONFIDENCE, view_ids
        )
    else:
        threshold = config.DETECTION_NMS_THRESHOLD if threshold is None else threshold
        kept = mask_geometry.non_max_suppression_masks(masks, rois, scores, class_ids, threshold)
    kept = kept[: config.DETECTION_MAX_INSTANCES]
    crops = MaskCrops.cut(masks[..., kept], rois[kept])
    return Detections(rois[kept], class_ids[kept], scores[kept], crops)

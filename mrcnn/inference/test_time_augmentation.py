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
from mrcnn.results.detections import Detections
from mrcnn.typing import Boxes, Image

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
        detect: The detector without options. It returns masks as MaskCrops.
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
        _merge([_unflip(found, axes) for found, axes in zip(of_image, views, strict=True)], config)
        for of_image in zip(*by_view, strict=True)
    ]


def _unflip(detections: Detections, axes: Sequence[int]) -> Detections:
    """Map detections from a flipped view to the image."""
    masks = detections["masks"]
    crops = tuple(np.ascontiguousarray(np.flip(crop, axes)) for crop in masks.crops)
    return Detections(
        _unflip_boxes(detections["rois"], axes, masks.shape),
        detections["class_ids"],
        detections["scores"],
        MaskCrops(masks.shape, _unflip_boxes(masks.boxes, axes, masks.shape), crops),
    )


def _unflip_boxes(boxes: Boxes, axes: Sequence[int], shape: tuple[int, int]) -> Boxes:
    boxes = boxes.copy()
    for axis in axes:
        boxes[:, [axis, axis + 2]] = shape[axis] - boxes[:, [axis + 2, axis]]
    return boxes


def _merge(views: list[Detections], config: "Config") -> Detections:
    """Merge the detections of all views; see `detect_with_options`."""
    rois, class_ids, scores = (
        np.concatenate([detections[name] for detections in views]) for name in ("rois", "class_ids", "scores")
    )
    # The boxes of masks are not the RoIs: masks may be pasted beyond these, see `geometry.mask_pasting`.
    regions = np.concatenate([detections["masks"].boxes for detections in views])
    crops = tuple(crop for detections in views for crop in detections["masks"].crops)
    masks = MaskCrops(views[0]["masks"].shape, regions, crops)
    threshold, sigma = config.MASK_NMS_THRESHOLD, config.SOFT_NMS_SIGMA
    if threshold is None and sigma is not None:
        view_ids = np.repeat(np.arange(len(views)), [len(detections["rois"]) for detections in views])
        kept, scores = box_geometry.soft_non_max_suppression(
            rois, scores, class_ids, sigma, config.DETECTION_MIN_CONFIDENCE, view_ids
        )
    else:
        threshold = config.DETECTION_NMS_THRESHOLD if threshold is None else threshold
        whole = masks.whole()
        kept = mask_geometry.non_max_suppression_masks(whole, regions, scores, class_ids, threshold)
    kept = kept[: config.DETECTION_MAX_INSTANCES]
    return Detections(rois[kept], class_ids[kept], scores[kept], masks.select(kept))

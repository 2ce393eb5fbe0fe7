"""Options of detection that cost time and may find more; off by default.

TEST_TIME_FLIPS detects in the picture and in its mirror images and joins what was found. MASK_NMS_THRESHOLD
drops a detection whose mask overlaps that of a better one of its class: boxes of slanted or touching objects
overlap where masks do not, so with it DETECTION_NMS_THRESHOLD, which looks at boxes, can be higher.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn.geometry import masks as mask_geometry
from mrcnn.geometry.mask_crops import MaskCrops

Detections = dict[str, Any]
Detect = Callable[[Sequence[np.ndarray]], list[Detections]]

# Axes of a picture that are reversed: not at all, left and right, top and bottom, both.
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))


def detect_with_options(detect_once: Detect, pictures: Sequence[np.ndarray], config: Any) -> list[Detections]:
    """Detections of each picture with the options of a Config.

    detect_once: the plain detector, from pictures [h, w, ...] to dicts of rois, class_ids, scores and masks
    (MaskCrops, whose boxes are the rois).
    Reads TEST_TIME_FLIPS ("none", "horizontal" or "all"), MASK_NMS_THRESHOLD, DETECTION_NMS_THRESHOLD and
    DETECTION_MAX_INSTANCES. What flipped copies add is suppressed by masks, at MASK_NMS_THRESHOLD or, without
    it, at DETECTION_NMS_THRESHOLD. Returns dicts of the same kind, scores falling.
    """
    flips = FLIPS[: {"none": 1, "horizontal": 2, "all": 4}[config.TEST_TIME_FLIPS]]
    threshold = config.MASK_NMS_THRESHOLD
    if len(flips) == 1 and threshold is None:
        return detect_once(pictures)
    views = [detect_once([np.flip(picture, axes) for picture in pictures]) for axes in flips]
    results = []
    for number, picture in enumerate(pictures):
        parts = [_unflipped(view[number], axes, picture) for view, axes in zip(views, flips, strict=True)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "masks"}
        whole = np.concatenate([part["masks"] for part in parts], axis=-1)
        kept = mask_geometry.non_max_suppression_masks(
            whole,
            found["rois"],
            found["scores"],
            found["class_ids"],
            config.DETECTION_NMS_THRESHOLD if threshold is None else threshold,
        )[: config.DETECTION_MAX_INSTANCES]
        best = {name: values[kept] for name, values in found.items()}
        results.append({**best, "masks": MaskCrops.cut(whole[..., kept], best["rois"])})
    return results


def _unflipped(found: Detections, axes: Sequence[int], picture: np.ndarray) -> Detections:
    """Detections of a flipped picture in the coordinates of the picture itself, masks bool [h, w, N]."""
    rois = found["rois"].copy()
    for axis in axes:
        rois[:, [axis, axis + 2]] = picture.shape[axis] - rois[:, [axis + 2, axis]]
    return {**found, "rois": rois, "masks": np.flip(found["masks"].whole(), axes)}

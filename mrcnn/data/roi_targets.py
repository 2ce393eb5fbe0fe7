"""Targets of the heads for any RoIs, in NumPy, for inspection and for scripts of the Keras 2 library.

Training uses `network.detection_targets`, which samples negatives by a different rule.

Axes: N RoIs, G instances, R = TRAIN_ROIS_PER_IMAGE sampled RoIs, n = NUM_CLASSES.
Boxes are (y1, x1, y2, x2) in pixels, half-open.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.rpn_targets import RandomSource
from mrcnn.geometry import boxes, images, masks
from mrcnn.typing import Boxes, Masks

if TYPE_CHECKING:
    from mrcnn.config import Config

# Share of the random RoIs that lie around objects.
SHARE_AROUND_OBJECTS = 0.9


def build_detection_targets(
    rpn_rois: Boxes,
    gt_class_ids: np.ndarray,
    gt_boxes: Boxes,
    gt_masks: Masks,
    config: "Config",
    rng: RandomSource = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample RoIs and build their targets: class, box deltas and mask.

    An RoI is positive if its IoU with some instance is above ROI_POSITIVE_IOU, and negative if it is below.
    At most R * ROI_POSITIVE_RATIO positives are sampled. Negatives fill the rest and are repeated if there
    are too few. Without negatives, positives are repeated. Without instances, all RoIs are negative.

    Args:
        rpn_rois: [N, 4].
        gt_class_ids: int [G]. Crowds (below 0) and padding (0) are not used.
        gt_boxes: [G, 4].
        gt_masks: bool [H, W, G], or [mini_height, mini_width, G] with USE_MINI_MASK.
        config: Settings of the RoIs and masks.
        rng: A numpy Generator or RandomState; NumPy's global one if None.

    Returns:
        Four arrays, with positives first.

        rois: [R, 4], dtype of `rpn_rois`.
        class_ids: int32 [R], 0 for negatives.
        bboxes: float32 [R, n, (dy, dx, log(dh), log(dw))], divided by BBOX_STD_DEV. Only the RoI's own class
            has deltas other than zero.
        masks: float32 [R, mask_height, mask_width, n], resized and not thresholded, at the RoI's own class.

    Raises:
        ValueError: If there are no RoIs, if the numbers of masks and class ids differ, or if every RoI lies
            exactly on the threshold.
    """
    _check(rpn_rois, gt_class_ids, gt_masks)
    objects = np.flatnonzero(np.asarray(gt_class_ids) > 0)
    gt_class_ids = np.asarray(gt_class_ids)[objects]
    gt_boxes = np.asarray(gt_boxes)[objects]

    best_gt, best_iou = _match(rpn_rois, gt_boxes)
    sampled, is_positive = _sample(best_iou, config, rng)
    rois, best_gt = rpn_rois[sampled], best_gt[sampled]
    positives = np.flatnonzero(is_positive)
    class_ids = np.zeros(len(sampled), dtype=np.int32)
    class_ids[positives] = gt_class_ids[best_gt[positives]]

    count, (height, width) = len(sampled), config.MASK_SHAPE
    bbox_targets = np.zeros((count, config.NUM_CLASSES, 4), dtype=np.float32)
    mask_targets = np.zeros((count, height, width, config.NUM_CLASSES), dtype=np.float32)
    deltas = boxes.box_refinement(rois[positives], gt_boxes[best_gt[positives]]) / config.BBOX_STD_DEV
    bbox_targets[positives, class_ids[positives]] = deltas
    for row in positives:
        # The mask stays at the RoI's own class; the mask loss reads no other.
        gt = best_gt[row]
        mask = gt_masks[:, :, objects[gt]]
        if config.USE_MINI_MASK:
            mask = _expand(mask, gt_boxes[gt], rois[row], config.IMAGE_SHAPE)
        mask_targets[row, :, :, class_ids[row]] = _crop(mask, rois[row], (height, width))
    return rois, class_ids, bbox_targets, mask_targets


def generate_random_rois(
    image_shape: Sequence[int],
    count: int,
    gt_class_ids: np.ndarray | None,
    gt_boxes: Boxes,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Draw random RoIs, most of them around objects, to test the heads without the RPN.

    Each of the G boxes gets 0.9 * count / G RoIs, rounded down, with corners in the box enlarged by its own
    size on every side and clipped to the image. The others lie anywhere in the image.

    Args:
        image_shape: (height, width, ...) in pixels.
        count: Number of RoIs.
        gt_class_ids: Ignored. It is part of the signature in the Keras 2 library.
        gt_boxes: [G, 4].
        rng: A numpy Generator. If None, a new one is seeded from NumPy's global state.

    Returns:
        int32 [count, 4], inside the image, with sides of at least 1 pixel.
    """
    if rng is None:
        rng = np.random.default_rng(np.random.randint(2**31))
    height, width = image_shape[:2]
    rois = []
    count_per_box = int(SHARE_AROUND_OBJECTS * count / len(gt_boxes)) if len(gt_boxes) else 0
    for y1, x1, y2, x2 in np.asarray(gt_boxes, dtype=np.int64):
        box_height, box_width = y2 - y1, x2 - x1
        enlarged = np.array([y1 - box_height, x1 - box_width, y2 + box_height, x2 + box_width])
        rois.append(_random_boxes(boxes.clip_boxes(enlarged, (0, 0, height, width)), count_per_box, rng))
    remaining = count - count_per_box * len(gt_boxes)
    rois.append(_random_boxes((0, 0, height, width), remaining, rng))
    return np.concatenate(rois)


def _check(rpn_rois: Boxes, gt_class_ids: np.ndarray, gt_masks: Masks) -> None:
    if len(rpn_rois) == 0:
        raise ValueError(
            f"`rpn_rois` must hold at least one RoI. Received: rpn_rois.shape={np.shape(rpn_rois)}"
        )
    if gt_masks.shape[-1] != len(gt_class_ids):
        raise ValueError(
            "`gt_masks` must have one mask per class id on its last axis. Received: "
            f"gt_masks.shape={gt_masks.shape} and {len(gt_class_ids)} class ids."
        )


def _match(rois: Boxes, gt_boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Return for each RoI the index of the box it overlaps most, int [N], and that IoU, [N]."""
    if len(gt_boxes) == 0:
        return np.zeros(len(rois), dtype=np.intp), np.zeros(len(rois))
    overlaps = boxes.compute_overlaps(rois, gt_boxes)
    return overlaps.argmax(axis=1), overlaps.max(axis=1)


def _sample(best_iou: np.ndarray, config: "Config", rng: RandomSource) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the sampled RoIs, positives first, and which of them are positive."""
    choice = (np.random if rng is None else rng).choice
    total = config.TRAIN_ROIS_PER_IMAGE
    positive = np.flatnonzero(best_iou > config.ROI_POSITIVE_IOU)
    negative = np.flatnonzero(best_iou < config.ROI_POSITIVE_IOU)
    max_positives = int(total * config.ROI_POSITIVE_RATIO)
    if len(positive) > max_positives:
        positive = choice(positive, max_positives, replace=False)
    if len(negative) > total - len(positive):
        negative = choice(negative, total - len(positive), replace=False)
    sampled = np.concatenate([positive, negative])
    # Few random RoIs may be negative. The heads need a full sample, so some RoIs come twice.
    repeatable = negative if len(negative) else positive
    if len(repeatable) == 0:
        raise ValueError(
            "`rpn_rois` must hold a negative RoI, or a positive one that "
            f"ROI_POSITIVE_RATIO={config.ROI_POSITIVE_RATIO} allows. Received: IoUs from "
            f"{best_iou.min():.3f} to {best_iou.max():.3f}, with "
            f"ROI_POSITIVE_IOU={config.ROI_POSITIVE_IOU}. Add RoIs that show background."
        )
    repeated = choice(repeatable, total - len(sampled), replace=True)
    sampled = np.concatenate([sampled, repeated]).astype(np.intp)
    return sampled, best_iou[sampled] > config.ROI_POSITIVE_IOU


def _expand(mini_mask: np.ndarray, box: np.ndarray, roi: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Expand a mini-mask into a canvas that holds its box and the RoI, and at least the network's input."""
    far_corner = np.ceil(np.maximum(box[2:], roi[2:])).astype(int)
    canvas = tuple(np.maximum(far_corner, shape[:2]))
    return masks.expand_mask(box[np.newaxis], mini_mask[:, :, np.newaxis], canvas)[:, :, 0]


def _crop(mask: np.ndarray, roi: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize the part of a mask inside an RoI."""
    y1, x1, y2, x2 = (int(corner) for corner in roi)
    return images.resize(mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)], shape)


def _random_boxes(
    window: Sequence[int] | np.ndarray[Any, Any], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw boxes, int32 [count, 4], with corners distributed uniformly in a window (y1, x1, y2, x2)."""
    y1, y2 = _distinct_pairs(window[0], window[2], count, rng)
    x1, x2 = _distinct_pairs(window[1], window[3], count, rng)
    return np.stack([y1, x1, y2, x2], axis=1).astype(np.int32)


def _distinct_pairs(low: int, high: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw sorted pairs [2, count] of different integers from low to high, both included."""
    first = rng.integers(low, high + 1, count)
    second = rng.integers(low, high, count)
    second += second >= first  # skips the value of `first`
    return np.sort([first, second], axis=0)

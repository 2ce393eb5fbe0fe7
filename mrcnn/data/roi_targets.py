"""Targets of the second stage for given ROIs, in NumPy: for inspection and for old callers.

Training itself uses the layer of the network, which follows another rule for negatives.
"""

from typing import Any

import numpy as np

from mrcnn.geometry import boxes, images, masks

# Share of random ROIs that are placed around objects; the rest lies anywhere.
SHARE_AROUND_OBJECTS = 0.9


def build_detection_targets(
    rpn_rois: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    gt_masks: np.ndarray,
    config: Any,
    rng: Any = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Choose R = TRAIN_ROIS_PER_IMAGE ROIs and what the heads should answer for each.

    rpn_rois: [N, (y1, x1, y2, x2)] in pixels. gt_class_ids: int [G]; gt_boxes: int [G, 4] in
    pixels; gt_masks: bool [H, W, G], or [mini_h, mini_w, G] with USE_MINI_MASK. Objects with an id
    below 1, crowds and padding, are left out. rng: a numpy RandomState or Generator; the global
    one if None.

    A ROI is positive with an IoU above ROI_POSITIVE_IOU and negative below. At most
    R * ROI_POSITIVE_RATIO are positive; negatives fill the rest, drawn repeatedly where there are
    too few. If there is no negative, positives are repeated.

    Returns, positives first, with n = NUM_CLASSES:
    - rois: [R, 4], dtype of rpn_rois
    - class_ids: int32 [R], 0 for negatives
    - bboxes: float32 [R, n, (dy, dx, log(dh), log(dw))] divided by BBOX_STD_DEV, at the ROI's class
    - masks: float32 [R, mask_h, mask_w, n], resized and not thresholded, at the ROI's class

    Raises ValueError without ROIs, without an object of positive class, or if every ROI lies
    exactly on the threshold.
    """
    _check(rpn_rois, gt_class_ids, gt_masks)
    objects = np.flatnonzero(np.asarray(gt_class_ids) > 0)
    gt_class_ids = np.asarray(gt_class_ids)[objects]
    gt_boxes = np.asarray(gt_boxes)[objects]

    overlaps = boxes.compute_overlaps(rpn_rois, gt_boxes)
    best_gt = overlaps.argmax(axis=1)
    kept, positives = _sample(overlaps.max(axis=1), config, np.random if rng is None else rng)
    rois, best_gt = rpn_rois[kept], best_gt[kept]
    class_ids = np.where(positives, gt_class_ids[best_gt], 0).astype(np.int32)

    count, (height, width) = len(kept), config.MASK_SHAPE
    bbox_targets = np.zeros((count, config.NUM_CLASSES, 4), dtype=np.float32)
    mask_targets = np.zeros((count, height, width, config.NUM_CLASSES), dtype=np.float32)
    rows = np.flatnonzero(positives)
    deltas = boxes.box_refinement(rois[rows], gt_boxes[best_gt[rows]]) / config.BBOX_STD_DEV
    bbox_targets[rows, class_ids[rows]] = deltas
    for row in rows:
        gt = best_gt[row]
        mask = gt_masks[:, :, objects[gt]]
        if config.USE_MINI_MASK:
            mask = _expand(mask, gt_boxes[gt], rois[row], config.IMAGE_SHAPE)
        mask_targets[row, :, :, class_ids[row]] = _cut(mask, rois[row], (height, width))
    return rois, class_ids, bbox_targets, mask_targets


def generate_random_rois(
    image_shape: Any,
    count: int,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    rng: Any = None,
) -> np.ndarray:
    """Random ROIs, most of them around objects, to try the heads without the RPN.

    image_shape: (height, width, ...) in pixels. count: how many. gt_class_ids: not read.
    gt_boxes: [N, (y1, x1, y2, x2)] in pixels. rng: a numpy Generator; seeded from the global state
    if None.

    Each box gets 0.9 * count / N ROIs, rounded down, with corners in the box enlarged by its own
    size on every side and clipped to the image; the others lie anywhere in the image.

    Returns int32 [count, (y1, x1, y2, x2)] in pixels, sides of at least 1, inside the image.
    """
    if rng is None:
        rng = np.random.default_rng(np.random.randint(2**31))
    height, width = image_shape[:2]
    rois = []
    each = int(SHARE_AROUND_OBJECTS * count / len(gt_boxes)) if len(gt_boxes) else 0
    for y1, x1, y2, x2 in np.asarray(gt_boxes, dtype=np.int64):
        tall, wide = y2 - y1, x2 - x1
        around = np.array([y1 - tall, x1 - wide, y2 + tall, x2 + wide])
        rois.append(_random_boxes(boxes.clip_boxes(around, (0, 0, height, width)), each, rng))
    left = count - each * len(gt_boxes)
    rois.append(_random_boxes((0, 0, height, width), left, rng))
    return np.concatenate(rois)


def _check(rpn_rois: np.ndarray, gt_class_ids: np.ndarray, gt_masks: np.ndarray) -> None:
    if len(rpn_rois) == 0:
        raise ValueError("build_detection_targets wants at least one ROI. Received: none.")
    if not np.any(np.asarray(gt_class_ids) > 0):
        raise ValueError(
            "build_detection_targets wants at least one object of a class. "
            f"Received: gt_class_ids={list(gt_class_ids)}. Leave such images out."
        )
    if gt_masks.shape[-1] != len(gt_class_ids):
        raise ValueError(
            "gt_masks wants one channel for each class id. Received: "
            f"{gt_masks.shape[-1]} channels and {len(gt_class_ids)} class ids."
        )


def _sample(best_iou: np.ndarray, config: Any, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the chosen ROIs, positives first, and which of them are positive."""
    total = config.TRAIN_ROIS_PER_IMAGE
    positive = np.flatnonzero(best_iou > config.ROI_POSITIVE_IOU)
    negative = np.flatnonzero(best_iou < config.ROI_POSITIVE_IOU)
    most = int(total * config.ROI_POSITIVE_RATIO)
    if len(positive) > most:
        positive = rng.choice(positive, most, replace=False)
    if len(negative) > total - len(positive):
        negative = rng.choice(negative, total - len(positive), replace=False)
    kept = np.concatenate([positive, negative])
    repeatable = negative if len(negative) else positive
    if len(repeatable) == 0:
        raise ValueError(
            f"No ROI has an IoU other than ROI_POSITIVE_IOU={config.ROI_POSITIVE_IOU}, or none may "
            f"be positive. Received: best IoU {best_iou.min():.3f} to {best_iou.max():.3f}. "
            "Give ROIs of background as well."
        )
    repeated = rng.choice(repeatable, total - len(kept), replace=True)
    kept = np.concatenate([kept, repeated]).astype(np.intp)
    return kept, best_iou[kept] > config.ROI_POSITIVE_IOU


def _expand(mini_mask: np.ndarray, box: np.ndarray, roi: np.ndarray, shape: Any) -> np.ndarray:
    """A mini mask in a canvas of at least the network's input size that holds box and ROI."""
    far = np.ceil(np.maximum(box[2:], roi[2:])).astype(int)
    canvas = tuple(np.maximum(far, shape[:2]))
    return masks.expand_mask(box[np.newaxis], mini_mask[:, :, np.newaxis], canvas)[:, :, 0]


def _cut(mask: np.ndarray, roi: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The part of a mask inside a ROI, resized."""
    y1, x1, y2, x2 = (int(corner) for corner in roi)
    return images.resize(mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)], shape)


def _random_boxes(window: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes with corners drawn uniformly in a window (y1, x1, y2, x2); int32 [count, 4]."""
    y1, y2 = _distinct_pairs(window[0], window[2], count, rng)
    x1, x2 = _distinct_pairs(window[1], window[3], count, rng)
    return np.stack([y1, x1, y2, x2], axis=1).astype(np.int32)


def _distinct_pairs(low: int, high: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted pairs of different integers from low to high, both included; [2, count]."""
    first = rng.integers(low, high + 1, count)
    second = rng.integers(low, high, count)
    second += second >= first  # steps over the value already taken
    return np.sort([first, second], axis=0)

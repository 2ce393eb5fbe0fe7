"""Targets of the RPN: labels of all anchors, deltas of positive ones (Faster R-CNN, section 3.1.2).

`network.rpn_targets` computes the same with tensors.

Axes: A anchors, N ground-truth boxes. Boxes are (y1, x1, y2, x2) in pixels, half-open.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mrcnn.geometry import boxes
from mrcnn.geometry.anchors import NEGATIVE, NEUTRAL, POSITIVE
from mrcnn.typing import Boxes

if TYPE_CHECKING:
    from mrcnn.config import Config

# A generator of either generation of NumPy, or None for the global one.
RandomSource: TypeAlias = "np.random.Generator | np.random.RandomState | None"


def build_rpn_targets(
    image_shape: Sequence[int] | None,
    anchors: Boxes,
    gt_class_ids: np.ndarray,
    gt_boxes: Boxes,
    config: "Config",
    rng: RandomSource = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Label anchors as positive, negative or neutral, and encode the boxes of the positive ones.

    An anchor is positive if its IoU with some box is at least RPN_POSITIVE_IOU, or if no other anchor
    overlaps that box more. It is negative if its IoU is below RPN_NEGATIVE_IOU with every box and below
    CROWD_IOU with every crowd. Of these, RPN_TRAIN_ANCHORS_PER_IMAGE are sampled, at most half of them
    positive; all others are neutral. A box that no anchor touches makes no anchor positive. Without boxes
    there are only negatives.

    Args:
        image_shape: Ignored. It is part of the signature in the Keras 2 library.
        anchors: [A, 4].
        gt_class_ids: int [N], negative for crowds.
        gt_boxes: [N, 4].
        config: Read for RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU, CROWD_IOU, RPN_TRAIN_ANCHORS_PER_IMAGE and
            RPN_BBOX_STD_DEV.
        rng: A numpy Generator or RandomState; NumPy's global one if None.

    Returns:
        rpn_match: int32 [A]: 1 positive, -1 negative, 0 neutral.
        rpn_bbox: float64 [RPN_TRAIN_ANCHORS_PER_IMAGE, (dy, dx, log(dh), log(dw))], divided by
            RPN_BBOX_STD_DEV. Row i belongs to the i-th positive anchor and its best-matching box; the other
            rows are zero.
    """
    choice = (np.random if rng is None else rng).choice
    gt_class_ids, gt_boxes = np.asarray(gt_class_ids), np.asarray(gt_boxes).reshape(-1, 4)
    crowd_boxes = gt_boxes[gt_class_ids < 0]
    if len(crowd_boxes):
        gt_boxes = gt_boxes[gt_class_ids > 0]

    best_gt, best_iou, best_for_a_box = _match(anchors, gt_boxes)
    # The order matters: positives overrule crowds, and crowds overrule negatives.
    rpn_match = np.full(len(anchors), NEUTRAL, dtype=np.int32)
    rpn_match[best_iou < config.RPN_NEGATIVE_IOU] = NEGATIVE
    if len(crowd_boxes):
        _, crowd_iou, _ = _match(anchors, crowd_boxes)
        rpn_match[crowd_iou >= config.CROWD_IOU] = NEUTRAL
    rpn_match[best_for_a_box] = POSITIVE  # at any IoU, so that every box has an anchor
    rpn_match[best_iou >= config.RPN_POSITIVE_IOU] = POSITIVE

    # Negatives fill the rest of the sample, which is most of it in most images.
    sample_size = config.RPN_TRAIN_ANCHORS_PER_IMAGE
    _keep_at_most(sample_size // 2, POSITIVE, rpn_match, choice)
    positive = np.flatnonzero(rpn_match == POSITIVE)
    _keep_at_most(sample_size - len(positive), NEGATIVE, rpn_match, choice)

    rpn_bbox = np.zeros((sample_size, 4))
    if len(positive):
        deltas = _encode(anchors[positive], gt_boxes[best_gt[positive]])
        rpn_bbox[: len(positive)] = deltas / config.RPN_BBOX_STD_DEV
    return rpn_match, rpn_bbox


def _match(anchors: Boxes, gt_boxes: Boxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match anchors and boxes by IoU.

    The IoU is only computed for the few anchors that touch a box. If values are equal, the first box counts.

    Returns:
        For each anchor the index of its best-matching box, int [A], and that IoU, float64 [A]. Last, the int
        indices of the anchors that no other anchor beats for some box.
    """
    best_gt = np.zeros(len(anchors), dtype=np.intp)
    best_iou = np.zeros(len(anchors))
    best_for_a_box = [np.zeros(0, dtype=np.intp)]
    anchors = np.asarray(anchors, dtype=np.float64)
    y1, x1, y2, x2 = np.ascontiguousarray(anchors.T)
    for index, box in enumerate(np.asarray(gt_boxes, dtype=np.float64)):
        touching = np.flatnonzero((y1 < box[2]) & (y2 > box[0]) & (x1 < box[3]) & (x2 > box[1]))
        iou = boxes.compute_overlaps(anchors[touching], box[np.newaxis])[:, 0]
        if not np.any(iou > 0):
            continue
        best_for_a_box.append(touching[iou == iou.max()])
        is_better = iou > best_iou[touching]
        best_gt[touching[is_better]] = index
        best_iou[touching[is_better]] = iou[is_better]
    return best_gt, best_iou, np.concatenate(best_for_a_box)


def _keep_at_most(count: int, label: int, rpn_match: np.ndarray, choice: Callable[..., Any]) -> None:
    """Make surplus anchors with this label neutral, in place."""
    labeled = np.flatnonzero(rpn_match == label)
    surplus = len(labeled) - count
    if surplus > 0:
        rpn_match[choice(labeled, surplus, replace=False)] = NEUTRAL


def _encode(anchors: Boxes, gt_boxes: Boxes) -> np.ndarray:
    """Return the deltas from anchors to boxes in float64; `boxes.box_refinement` computes in float32."""
    size = anchors[:, 2:] - anchors[:, :2]
    gt_size = gt_boxes[:, 2:] - gt_boxes[:, :2]
    shift = (gt_boxes[:, :2] + 0.5 * gt_size) - (anchors[:, :2] + 0.5 * size)
    return np.concatenate([shift / size, np.log(gt_size / size)], axis=1)

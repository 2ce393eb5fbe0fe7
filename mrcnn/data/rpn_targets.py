"""What the region proposal network should answer at each anchor (Faster R-CNN, section 3.1.2)."""

from typing import Any

import numpy as np

from mrcnn.geometry import boxes

POSITIVE, NEUTRAL, NEGATIVE = 1, 0, -1


def build_rpn_targets(
    image_shape: Any,
    anchors: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    config: Any,
    rng: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Label anchors as positive, negative or neutral and encode the boxes of the positive ones.

    image_shape: not read, kept for old callers. anchors: [A, (y1, x1, y2, x2)] and gt_boxes:
    [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside. gt_class_ids: int [N], negative for crowds.
    config: RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU, CROWD_IOU, RPN_TRAIN_ANCHORS_PER_IMAGE and
    RPN_BBOX_STD_DEV are read. rng: a numpy RandomState or Generator; NumPy's global one if None.

    An anchor is positive with an IoU of at least RPN_POSITIVE_IOU, or if no anchor overlaps some
    object more; negative below RPN_NEGATIVE_IOU with every object and CROWD_IOU with every crowd.
    At most half of the budget stays positive and the whole of it labelled, chosen at random.
    Objects that touch no anchor make none positive. Without objects all anchors are negative.

    Returns
    - rpn_match: int32 [A], 1 positive, -1 negative, 0 neutral.
    - rpn_bbox: float64 [RPN_TRAIN_ANCHORS_PER_IMAGE, (dy, dx, log(dh), log(dw))] divided by the
      standard deviations; row i belongs to the i-th positive anchor, the rest is zero. The target
      is the object that the anchor overlaps most.
    """
    choice = (np.random if rng is None else rng).choice
    gt_class_ids, gt_boxes = np.asarray(gt_class_ids), np.asarray(gt_boxes).reshape(-1, 4)
    crowd_boxes = gt_boxes[gt_class_ids < 0]
    if len(crowd_boxes):
        gt_boxes = gt_boxes[gt_class_ids > 0]

    best_gt, best_iou, favourites = _match(anchors, gt_boxes)
    rpn_match = np.zeros(len(anchors), dtype=np.int32)
    rpn_match[best_iou < config.RPN_NEGATIVE_IOU] = NEGATIVE
    if len(crowd_boxes):
        _, crowd_iou, _ = _match(anchors, crowd_boxes)
        rpn_match[crowd_iou >= config.CROWD_IOU] = NEUTRAL
    rpn_match[favourites] = POSITIVE
    rpn_match[best_iou >= config.RPN_POSITIVE_IOU] = POSITIVE

    budget = config.RPN_TRAIN_ANCHORS_PER_IMAGE
    _keep_at_most(budget // 2, POSITIVE, rpn_match, choice)
    positive = np.flatnonzero(rpn_match == POSITIVE)
    _keep_at_most(budget - len(positive), NEGATIVE, rpn_match, choice)

    rpn_bbox = np.zeros((budget, 4))
    if len(positive):
        deltas = _encode(anchors[positive], gt_boxes[best_gt[positive]])
        rpn_bbox[: len(positive)] = deltas / config.RPN_BBOX_STD_DEV
    return rpn_match, rpn_bbox


def _match(anchors: np.ndarray, gt_boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each anchor the box it overlaps most and that IoU; the anchors nearest to some box.

    Few anchors touch a given box, and only for these the IoU is computed. Of equal values the
    first box counts. Returns int [A], float64 [A] and int indices of anchors.
    """
    best_gt = np.zeros(len(anchors), dtype=np.intp)
    best_iou = np.zeros(len(anchors))
    favourites = [np.zeros(0, dtype=np.intp)]
    anchors = np.asarray(anchors, dtype=np.float64)
    y1, x1, y2, x2 = np.ascontiguousarray(anchors.T)
    for index, box in enumerate(np.asarray(gt_boxes, dtype=np.float64)):
        touching = np.flatnonzero((y1 < box[2]) & (y2 > box[0]) & (x1 < box[3]) & (x2 > box[1]))
        iou = boxes.compute_overlaps(anchors[touching], box[np.newaxis])[:, 0]
        if not np.any(iou > 0):
            continue
        favourites.append(touching[iou == iou.max()])
        better = iou > best_iou[touching]
        best_gt[touching[better]] = index
        best_iou[touching[better]] = iou[better]
    return best_gt, best_iou, np.concatenate(favourites)


def _keep_at_most(count: int, label: int, rpn_match: np.ndarray, choice: Any) -> None:
    """Make surplus anchors of a label neutral, in place."""
    labelled = np.flatnonzero(rpn_match == label)
    surplus = len(labelled) - count
    if surplus > 0:
        rpn_match[choice(labelled, surplus, replace=False)] = NEUTRAL


def _encode(anchors: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """Deltas from anchors to boxes in float64; boxes.box_refinement works in float32."""
    size = anchors[:, 2:] - anchors[:, :2]
    gt_size = gt_boxes[:, 2:] - gt_boxes[:, :2]
    shift = (gt_boxes[:, :2] + 0.5 * gt_size) - (anchors[:, :2] + 0.5 * size)
    return np.concatenate([shift / size, np.log(gt_size / size)], axis=1)

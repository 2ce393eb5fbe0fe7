"""Average precision and recall of the predictions for one image.

Axes: H, W image; G ground-truth instances; P predictions; T IoU thresholds.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.evaluation import matching
from mrcnn.geometry import boxes
from mrcnn.typing import Boxes, Masks


def compute_ap(
    gt_boxes: Boxes,
    gt_class_ids: np.ndarray,
    gt_masks: Masks,
    pred_boxes: Boxes,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: Masks,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the average precision of one image at one IoU threshold, the area under the PR curve.

    All classes are ranked together, but a match requires the same class. Precision is made non-increasing
    first (the all-point interpolation of Pascal VOC 2010).

    Args:
        gt_boxes: [G, 4]; rows of zeros at the end are padding.
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [P, 4]; rows of zeros at the end are padding.
        pred_class_ids: [P].
        pred_scores: [P].
        pred_masks: [H, W, P].
        iou_threshold: The smallest mask IoU of a match.

    Returns:
        mAP: The average precision; 0.0 without predictions, else NaN without ground truth.
        precisions: [P + 2], after each prediction, with 0 before and after.
        recalls: [P + 2], after each prediction, with 0 before and 1 after.
        overlaps: Mask IoU [P, G], predictions by descending score.

    Raises:
        ValueError: See `matching.compute_matches`.
    """
    gt_class_ids, pred_class_ids, overlaps = matching.ranked_overlaps(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
    )
    ap, precisions, recalls = _average_precision(gt_class_ids, pred_class_ids, overlaps, iou_threshold)
    return ap, precisions, recalls, overlaps


def compute_ap_range(
    gt_box: Boxes,
    gt_class_id: np.ndarray,
    gt_mask: Masks,
    pred_box: Boxes,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: Masks,
    iou_thresholds: Sequence[float] | np.ndarray | None = None,
    verbose: int = 1,
) -> float:
    """Compute the mean of the average precision of one image over several IoU thresholds.

    Args:
        gt_box: [G, 4]; rows of zeros at the end are padding.
        gt_class_id: [G].
        gt_mask: [H, W, G].
        pred_box: [P, 4]; rows of zeros at the end are padding.
        pred_class_id: [P].
        pred_score: [P].
        pred_mask: [H, W, P].
        iou_thresholds: [T], by default COCO's 0.50, 0.55, ..., 0.95.
        verbose: 1 to print a line per threshold and the mean.

    Returns:
        The mean; 0.0 without predictions, else NaN without ground truth.

    Raises:
        ValueError: See `matching.compute_matches`.
    """
    if iou_thresholds is None or len(iou_thresholds) == 0:
        iou_thresholds = np.arange(0.5, 1.0, 0.05)
    thresholds = [float(threshold) for threshold in iou_thresholds]
    # The masks are compared once for all thresholds.
    ranked = matching.ranked_overlaps(
        gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask
    )
    average_precisions = []
    for iou_threshold in thresholds:
        ap = _average_precision(*ranked, iou_threshold)[0]
        average_precisions.append(ap)
        if verbose:
            print(f"AP @{iou_threshold:.2f}:\t {ap:.3f}")
    mean = float(np.mean(average_precisions))
    if verbose:
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {mean:.3f}")
    return mean


def compute_recall(pred_boxes: Boxes, gt_boxes: Boxes, iou: float) -> tuple[float, np.ndarray]:
    """Compute the share of ground-truth boxes that predicted boxes find.

    A prediction is positive if its best IoU is at least `iou`. It then finds the ground truth with that IoU.

    Args:
        pred_boxes: [P, (y1, x1, y2, x2)], y2 and x2 outside.
        gt_boxes: [G, 4] in the same unit.
        iou: The smallest box IoU of a positive prediction.

    Returns:
        The recall, NaN without ground truth, and the indices of the positive predictions.
    """
    overlaps = boxes.compute_overlaps(pred_boxes, gt_boxes)
    if overlaps.shape[1] == 0:
        return np.nan, np.zeros(0, dtype=np.int64)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    recalled = np.unique(overlaps[positive_ids].argmax(axis=1))
    return len(recalled) / overlaps.shape[1], positive_ids


def _average_precision(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    overlaps: np.ndarray,
    iou_threshold: float,
) -> tuple[float, np.ndarray, np.ndarray]:
    _, pred_match = matching.match_ranked(gt_class_ids, pred_class_ids, overlaps, iou_threshold)
    hits = np.cumsum(pred_match > -1)
    precisions = hits / np.arange(1, len(hits) + 1)
    with np.errstate(invalid="ignore"):  # without ground truth: 0 / 0
        recalls = hits.astype(np.float32) / np.float32(len(gt_class_ids))

    precisions = np.concatenate([[0.0], precisions, [0.0]])
    recalls = np.concatenate([[0.0], recalls, [1.0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.sum(np.diff(recalls) * precisions[1:])), precisions, recalls

"""Average precision and recall of the predictions for one image."""

from collections.abc import Sequence

import numpy as np

from mrcnn.evaluation import matching
from mrcnn.geometry import boxes


def compute_ap(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of one image at one IoU threshold: the area under precision over recall.

    Arguments and errors as of `matching.compute_matches`. All classes are counted together; the
    class enters only in that it must agree for a match. Precision is made non-increasing first (the
    all-point interpolation of Pascal VOC 2010).

    Returns
    - AP: 0.0 without predictions, NaN without ground truth
    - precisions, recalls [P + 2]: after each prediction, padded with (0, 0) and with (0, 1)
    - overlaps [P, G]: mask IoU; predictions in order of score
    """
    gt_class_ids, pred_class_ids, overlaps = matching.ranked_overlaps(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
    )
    ap, precisions, recalls = _average_precision(gt_class_ids, pred_class_ids, overlaps, iou_threshold)
    return ap, precisions, recalls, overlaps


def compute_ap_range(
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    iou_thresholds: Sequence[float] | np.ndarray | None = None,
    verbose: int = 1,
) -> float:
    """Mean of the average precision of one image over several IoU thresholds.

    Arguments as of `compute_ap`. iou_thresholds: list or array, by default 0.50, 0.55, ..., 0.95 as
    for COCO; the masks are compared once for all of them. verbose: print one line per threshold
    and the mean.

    Returns the mean; NaN without ground truth.
    """
    if iou_thresholds is None or len(iou_thresholds) == 0:
        iou_thresholds = np.arange(0.5, 1.0, 0.05)
    thresholds = [float(threshold) for threshold in iou_thresholds]
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


def compute_recall(pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float) -> tuple[float, np.ndarray]:
    """Share of the ground-truth boxes that predicted boxes find.

    pred_boxes: [P, (y1, x1, y2, x2)], gt_boxes: [G, 4], in one unit, y2 and x2 outside. A
    prediction is positive if its best box IoU is at least `iou`; it finds the ground truth of that
    best IoU.

    Returns recall (NaN without ground truth) and the indices of the positive predictions.
    """
    overlaps = boxes.compute_overlaps(pred_boxes, gt_boxes)
    if overlaps.shape[1] == 0:
        return np.nan, np.zeros(0, dtype=np.int64)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    found = np.unique(overlaps[positive_ids].argmax(axis=1))
    return len(found) / overlaps.shape[1], positive_ids


def _average_precision(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    overlaps: np.ndarray,
    iou_threshold: float,
) -> tuple[float, np.ndarray, np.ndarray]:
    _, pred_match = matching.match_ranked(gt_class_ids, pred_class_ids, overlaps, iou_threshold)
    found = np.cumsum(pred_match > -1)
    precisions = found / np.arange(1, len(found) + 1)
    with np.errstate(invalid="ignore"):  # without ground truth: 0 / 0
        recalls = found.astype(np.float32) / np.float32(len(gt_class_ids))

    precisions = np.concatenate([[0.0], precisions, [0.0]])
    recalls = np.concatenate([[0.0], recalls, [1.0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.sum(np.diff(recalls) * precisions[1:])), precisions, recalls

"""Match predicted instances with ground truth in one image, by the IoU of masks.

Axes: H, W image; G ground-truth instances; P predictions.
"""

import numpy as np

from mrcnn.geometry import boxes, masks
from mrcnn.typing import Boxes, Masks


def compute_matches(
    gt_boxes: Boxes,
    gt_class_ids: np.ndarray,
    gt_masks: Masks,
    pred_boxes: Boxes,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: Masks,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match predictions, best score first, with the ground truth of their class that they overlap most.

    Args:
        gt_boxes: [G, 4]; rows of zeros at the end are padding. Boxes are only used to find the padding.
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [P, 4]; rows of zeros at the end are padding.
        pred_class_ids: [P].
        pred_scores: [P].
        pred_masks: [H, W, P].
        iou_threshold: The smallest mask IoU of a match.
        score_threshold: A second lower limit of the IoU. Despite its name, it is not compared with scores, as
            in the Keras 2 library.

    Returns:
        gt_match: float [G], index of the prediction among those by descending score, or -1.
        pred_match: float [P], index of the ground truth or -1; predictions by descending score.
        overlaps: Mask IoU [P, G]; predictions by descending score.

    Raises:
        ValueError: If the masks of ground truth and predictions have different heights or widths, or there
            are fewer class ids, scores or masks than boxes.
    """
    gt_class_ids, pred_class_ids, overlaps = ranked_overlaps(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
    )
    gt_match, pred_match = match_ranked(
        gt_class_ids, pred_class_ids, overlaps, max(iou_threshold, score_threshold)
    )
    return gt_match, pred_match, overlaps


def ranked_overlaps(
    gt_boxes: Boxes,
    gt_class_ids: np.ndarray,
    gt_masks: Masks,
    pred_boxes: Boxes,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: Masks,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop padding, sort predictions by score and compute overlaps: the part that depends on no threshold.

    Args:
        gt_boxes: [G, 4]; rows of zeros at the end are padding.
        gt_class_ids: [G].
        gt_masks: [H, W, G].
        pred_boxes: [P, 4]; rows of zeros at the end are padding.
        pred_class_ids: [P].
        pred_scores: [P].
        pred_masks: [H, W, P].

    Returns:
        gt_class_ids: [G].
        pred_class_ids: [P], by descending score.
        overlaps: Mask IoU [P, G], predictions by descending score.

    Raises:
        ValueError: See `compute_matches`.
    """
    gt_count = len(boxes.trim_zeros(gt_boxes))
    pred_count = len(boxes.trim_zeros(pred_boxes))
    gt_class_ids, gt_masks = np.asarray(gt_class_ids), np.asarray(gt_masks)
    pred_class_ids, pred_masks = np.asarray(pred_class_ids), np.asarray(pred_masks)
    pred_scores = np.asarray(pred_scores)
    _check_count("ground truth", gt_count, len(gt_class_ids), gt_masks.shape[-1])
    _check_count("predictions", pred_count, len(pred_class_ids), len(pred_scores), pred_masks.shape[-1])
    order = np.argsort(pred_scores[:pred_count], kind="stable")[::-1]
    overlaps = masks.compute_overlaps_masks(pred_masks[..., order], gt_masks[..., :gt_count])
    return gt_class_ids[:gt_count], pred_class_ids[order], overlaps


def match_ranked(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    overlaps: np.ndarray,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Match predictions greedily with ground truth.

    In turn, each prediction takes the unmatched ground truth of its class that it overlaps most. NaN, the
    overlap of two empty masks, never matches.

    Args:
        gt_class_ids: [G].
        pred_class_ids: [P], by descending score.
        overlaps: IoU [P, G].
        iou_threshold: The smallest IoU of a match.

    Returns:
        gt_match float [G] and pred_match float [P], -1 where there is no match.
    """
    gt_match = np.full(len(gt_class_ids), -1.0)
    pred_match = np.full(len(pred_class_ids), -1.0)
    for pred, class_id in enumerate(pred_class_ids):
        is_candidate = (overlaps[pred] >= iou_threshold) & (gt_match == -1) & (gt_class_ids == class_id)
        candidates = np.flatnonzero(is_candidate)
        if len(candidates) > 0:
            # Of equal overlaps the last one, as in the Keras 2 library.
            gt = candidates[::-1][np.argmax(overlaps[pred, candidates[::-1]])]
            gt_match[gt] = pred
            pred_match[pred] = gt
    return gt_match, pred_match


def _check_count(what: str, boxes_count: int, *counts: int) -> None:
    if min(counts) < boxes_count:
        raise ValueError(
            f"The {what} must have a class id, a mask and, for predictions, a score for each box. "
            f"Received: {boxes_count} boxes that are not padding, but only {min(counts)} of one of the "
            "others."
        )

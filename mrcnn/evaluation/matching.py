"""Matching of predicted instances with ground truth by mask overlap."""

import numpy as np

from mrcnn.geometry import boxes, masks


def compute_matches(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match predictions, best score first, with ground truth of their class, best overlap first.

    gt_boxes [G, 4], gt_class_ids [G], gt_masks [H, W, G], pred_boxes [P, 4], pred_class_ids [P],
    pred_scores [P], pred_masks [H, W, P]; padding rows of zeros may follow. Boxes serve only to
    tell padding. iou_threshold: smallest mask IoU of a match. score_threshold: despite its name
    compared with the IoU as well, as in the original; ground truths below it are not looked at.

    Returns
    - gt_match float [G]: index of the prediction, in order of score, or -1
    - pred_match float [P]: index of the ground truth or -1; predictions in order of score
    - overlaps [P, G]: mask IoU; predictions in order of score

    Raises ValueError if ground truth and predictions are masks of different image shape, or if
    there are fewer ids, scores or masks than boxes.
    """
    gt_class_ids, pred_class_ids, overlaps = ranked_overlaps(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
    )
    gt_match, pred_match = match_ranked(
        gt_class_ids, pred_class_ids, overlaps, max(iou_threshold, score_threshold)
    )
    return gt_match, pred_match, overlaps


def ranked_overlaps(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of matching that no threshold enters: drop padding, sort by score, overlap masks.

    Arguments and errors as of `compute_matches`.

    Returns gt_class_ids [G], pred_class_ids [P] and overlaps [P, G], predictions best score first.
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
    """Greedy one-to-one matching of predictions that are already in order of score.

    gt_class_ids [G], pred_class_ids [P], overlaps [P, G] as `ranked_overlaps` gives them. Each
    prediction takes the ground truth of its class that it overlaps most, at least `iou_threshold`,
    among those not taken yet. NaN, the overlap of two empty masks, never matches.

    Returns gt_match float [G] and pred_match float [P], -1 where nothing matched.
    """
    gt_match = np.full(len(gt_class_ids), -1.0)
    pred_match = np.full(len(pred_class_ids), -1.0)
    for pred, class_id in enumerate(pred_class_ids):
        allowed = (overlaps[pred] >= iou_threshold) & (gt_match == -1) & (gt_class_ids == class_id)
        candidates = np.flatnonzero(allowed)
        if len(candidates) > 0:
            # Of equal overlaps the later one, as a reversed sort puts it first.
            gt = candidates[::-1][np.argmax(overlaps[pred, candidates[::-1]])]
            gt_match[gt] = pred
            pred_match[pred] = gt
    return gt_match, pred_match


def _check_count(what: str, boxes_count: int, *counts: int) -> None:
    if min(counts) < boxes_count:
        raise ValueError(
            f"Wanted a class id, a mask and, for predictions, a score for each box of the {what}. "
            f"Received: {boxes_count} boxes that are not zero, but only {min(counts)} of another."
        )

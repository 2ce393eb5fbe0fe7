"""Plots of one image against its ground truth, with the arguments that the Keras 2 notebooks pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.typing import ClassIds
from mrcnn.visualize import figures
from mrcnn.visualize.captions import class_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ZEROS = 1000  # a heat map with more cells leaves those with IoU 0 blank


def plot_precision_recall(
    AP: float, precisions: Sequence[float] | np.ndarray, recalls: Sequence[float] | np.ndarray
) -> Figure:
    """Plot a precision-recall curve, without showing it.

    Args:
        AP: Average precision at IoU 0.5, for the title.
        precisions: Precisions [K], as `compute_ap` returns them.
        recalls: Recalls [K], as `compute_ap` returns them.

    Returns:
        The figure.
    """
    figure, ax = figures.pyplot().subplots(1)
    ax.set_title(f"Precision-Recall Curve. AP@50 = {AP:.3f}")
    ax.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1.1), ylim=(0, 1.1))
    ax.plot(recalls, precisions)
    return figures.finish(figure, show=False)


def plot_overlaps(
    gt_class_ids: ClassIds,
    pred_class_ids: ClassIds,
    pred_scores: Sequence[float] | np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> Figure:
    """Plot the IoU of predictions (rows) with ground truth (columns) as a heat map, without showing it.

    Args:
        gt_class_ids: Class ids [G] of the ground truth; zeros are padding.
        pred_class_ids: Class ids [P] in the order of the rows of `overlaps`; zeros are padding.
        pred_scores: Scores [P].
        overlaps: IoU [P, G], with or without the padding.
        class_names: A name for each class id, the background first.
        threshold: IoU above which a cell says whether the classes match. If there are more than 1000 cells,
            zeros are left blank.

    Returns:
        The figure.

    Raises:
        ValueError: If the shape of `overlaps` does not match the numbers of ids, or scores are missing.
    """
    gt_class_ids, pred_class_ids = np.asarray(gt_class_ids), np.asarray(pred_class_ids)
    overlaps = np.asarray(overlaps)
    gt_ids, pred_ids = gt_class_ids[gt_class_ids != 0], pred_class_ids[pred_class_ids != 0]
    if overlaps.shape == (len(pred_class_ids), len(gt_class_ids)):
        overlaps = overlaps[pred_class_ids != 0][:, gt_class_ids != 0]
    if overlaps.shape != (len(pred_ids), len(gt_ids)):
        raise ValueError(
            "`overlaps` must have shape (predictions, ground truth), here "
            f"({len(pred_ids)}, {len(gt_ids)}). Received: overlaps.shape={overlaps.shape}"
        )
    if len(pred_scores) < len(pred_class_ids):
        raise ValueError(
            f"`pred_scores` must have a score for each of the {len(pred_class_ids)} predictions. Received: "
            f"{len(pred_scores)}"
        )
    scores = np.asarray(pred_scores)[: len(pred_class_ids)][pred_class_ids != 0]
    figure, ax = figures.pyplot().subplots(1, figsize=(12, 10))
    if overlaps.size:
        ax.imshow(overlaps, cmap="Blues", vmin=0, aspect="auto")
    names = [class_name(i, class_names) for i in pred_ids]
    row_names = [f"{name} ({score:.2f})" for name, score in zip(names, scores, strict=True)]
    ax.set_yticks(np.arange(len(pred_ids)), row_names, parse_math=False)
    gt_names = [class_name(i, class_names) for i in gt_ids]
    ax.set_xticks(np.arange(len(gt_ids)), gt_names, rotation=90, parse_math=False)
    ax.set(xlabel="Ground truth", ylabel="Predictions")
    _write_overlaps(ax, overlaps, pred_ids[:, np.newaxis] == gt_ids, threshold)
    figure.tight_layout()
    return figures.finish(figure, show=False)


def _write_overlaps(ax: Axes, overlaps: np.ndarray, is_same_class: np.ndarray, threshold: float) -> None:
    """Write the IoU into each cell, and below it whether a high one is a match."""
    half = overlaps.max(initial=0) / 2
    for (i, j), iou in np.ndenumerate(overlaps):
        if iou == 0 and overlaps.size > MAX_ZEROS:
            continue
        verdict = ""
        if iou > threshold:
            verdict = "\nmatch" if is_same_class[i, j] else "\nwrong"
        color = "white" if iou > half else "black" if iou > 0 else "gray"
        ax.text(j, i, f"{iou:.3f}{verdict}", color=color, ha="center", va="center", fontsize=9)

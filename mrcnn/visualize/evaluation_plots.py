"""Plots of the evaluation of a dataset: confusion matrix, precision-recall curves, and F1 against the score.

    results = model.evaluate(val, min_score=0.5)
    visualize.plot_confusion_matrix(results.confusion_matrix)
    visualize.plot_precision_recall_curves(results.precision_recall["mask"])
    visualize.plot_f1(results.score_curves)

Each function draws on the axes that you pass, or on those of a new figure, and returns the axes. `ax.figure`
is the figure, for instance to save it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrcnn.drawing.colors import distinct_colors
from mrcnn.visualize import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mrcnn.evaluation.coco import PrecisionRecall
    from mrcnn.evaluation.confusion import ConfusionMatrix
    from mrcnn.evaluation.score_curves import ScoreCurves

# Labels of the last row and the last column of a confusion matrix.
NO_OBJECT, MISSED = "no object", "missed"
# Matrices with more classes have no numbers in their cells.
MOST_NUMBERS = 30
# Plots with more classes have no legend, and thin lines behind a bold one for all classes.
MOST_NAMES = 20


def plot_confusion_matrix(
    matrix: ConfusionMatrix | None,
    normalize: Literal["true", "detected"] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a confusion matrix: a row for each true class, a column for each detected class.

    The last row counts detections that match no object, the last column objects that were missed.

    Args:
        matrix: `confusion_matrix` of the results of an evaluation with `min_score`.
        normalize: What the cells show: None for counts, "true" for shares of the row (the diagonal is the
            recall), "detected" for shares of the column (the diagonal is the precision).
        ax: Axes to draw on. None makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If `matrix` is None or `normalize` is not valid.
    """
    if matrix is None:
        raise ValueError(
            "`matrix` must be a ConfusionMatrix. Received: None. Pass min_score to evaluate() to compute "
            "the matrix."
        )
    names, has_numbers = matrix.class_names, len(matrix.class_names) <= MOST_NUMBERS
    values = matrix.counts if normalize is None else matrix.normalized(normalize)
    darkest = max(1, matrix.counts.max()) if normalize is None else 1.0
    side = max(3.5, (0.55 if has_numbers else 0.2) * (len(names) + 1))
    _, ax, _ = figures.get_axes(ax, (side + 1.5, side + 0.8))
    ax.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=darkest)
    positions = np.arange(len(names) + 1)
    ax.set_xticks(positions, [*names, MISSED], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(positions, [*names, NO_OBJECT])
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_parse_math(False)
    ax.set(xlabel="Detected class", ylabel="True class")
    ax.set_title(f"Score ≥ {matrix.min_score:g}, IoU ≥ {matrix.iou_threshold:g}")
    if has_numbers:
        _write_cells(ax, values, darkest)
    return ax


def _write_cells(ax: Axes, values: np.ndarray, darkest: float) -> None:
    """Write the value of each cell. The last cell of the diagonal, which is always 0, stays empty."""
    is_count = np.issubdtype(values.dtype, np.integer)
    for (row, column), value in np.ndenumerate(values):
        if row == column == len(values) - 1:
            continue
        text = str(value) if is_count else "-" if np.isnan(value) else f"{value:.2f}"
        color = "white" if value > 0.5 * darkest else "black" if value > 0 else "gray"
        ax.text(column, row, text, ha="center", va="center", color=color, fontsize=9)


def plot_precision_recall_curves(
    curves: PrecisionRecall, iou_threshold: float = 0.5, ax: Axes | None = None
) -> Axes:
    """Draw the precision-recall curve of each class, with its average precision in the legend.

    Args:
        curves: `precision_recall["mask"]` or `["box"]` of the results of an evaluation.
        iou_threshold: One of `curves.iou_thresholds`.
        ax: Axes to draw on. None makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If `iou_threshold` is not one of them.
    """
    precision = curves.at(iou_threshold)
    _, ax, _ = figures.get_axes(ax, (6, 4.5))
    average = precision.mean(axis=0)
    known = precision[:, ~np.isnan(average)]
    overall = known.mean(axis=1) if known.size else np.full(len(precision), np.nan)
    labels = [f"{name} (AP {value:.2f})" for name, value in zip(curves.class_names, average, strict=True)]
    _draw_curves(ax, curves.recall, precision, labels, overall, f"all classes (AP {overall.mean():.2f})")
    ax.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.02))
    ax.set_title(f"IoU ≥ {iou_threshold:g}")
    return ax


def plot_f1(curves: ScoreCurves | None, ax: Axes | None = None) -> Axes:
    """Draw the F1 of each class against the score threshold, and mark the best threshold of all classes.

    Args:
        curves: `score_curves` of the results of an evaluation with `min_score`.
        ax: Axes to draw on. None makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If `curves` is None.
    """
    if curves is None:
        raise ValueError(
            "`curves` must be ScoreCurves. Received: None. Pass min_score to evaluate() to compute the "
            "curves."
        )
    _, ax, _ = figures.get_axes(ax, (6, 4.5))
    overall, best = curves.f1_of_all, curves.best_score()
    title = f"IoU ≥ {curves.iou_threshold:g}"
    if not np.isnan(best):
        title += f", best F1 {np.nanmax(overall):.2f} at score {best:.2f}"
        ax.axvline(best, color="gray", linestyle=":", linewidth=1)
    _draw_curves(ax, curves.scores, curves.f1, curves.class_names, overall, "all classes")
    ax.set(xlabel="Score threshold", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
    ax.set_title(title)
    return ax


def _draw_curves(
    ax: Axes,
    x: np.ndarray,
    values: np.ndarray,
    labels: Sequence[str],
    overall: np.ndarray,
    overall_label: str,
) -> None:
    """Draw a curve for each class and, if there are several classes, one for all of them.

    Args:
        ax: Axes to draw on.
        x: [N].
        values: [N, K]. Classes whose values are all NaN are left out.
        labels: A text for each class.
        overall: [N].
        overall_label: The text of this curve.
    """
    named = len(labels) <= MOST_NAMES
    lines = []
    for curve, label, color in zip(values.T, labels, distinct_colors(len(labels)), strict=True):
        if not np.isnan(curve).all():
            (line,) = ax.plot(x, curve, color=color, linewidth=1.5 if named else 0.5)
            lines.append((line, label))
    if len(labels) > 1:
        (line,) = ax.plot(x, overall, color="black", linewidth=2.5)
        lines.append((line, overall_label))
    shown = lines if named else lines[-1:]
    if shown:
        legend = ax.legend(*zip(*shown, strict=True), loc="lower left", fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
    ax.grid(alpha=0.3)

"""Plots of an evaluation: what the cells and the curves show, in a new figure and on given axes."""

import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mrcnn import visualize
from mrcnn.evaluation.coco import PrecisionRecall
from mrcnn.evaluation.confusion import ConfusionMatrix
from mrcnn.evaluation.score_curves import ScoreCurves
from mrcnn.visualize import evaluation_plots


@pytest.fixture(autouse=True)
def close_figures():
    """Warnings are errors: NaN or a missing letter would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


MATRIX = ConfusionMatrix(("cat", r"dog $\x$"), np.array([[6, 1, 1], [0, 0, 0], [2, 0, 0]]), 0.4, 0.5)


def cells(ax):
    return {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts
    }


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curves(*precision):
    """Curves at IoU 0.5 and 0.75 with the given precision of each class at recall 0, 0.5 and 1."""
    at_half = np.array(precision, dtype=float).T
    both = np.stack([at_half, at_half / 2])
    names = tuple(f"class {index} $\\x$" for index in range(len(precision)))
    return PrecisionRecall(names, np.array([0.5, 0.75]), np.array([0, 0.5, 1.0]), both, both)


def test_a_confusion_matrix_shows_true_classes_as_rows():
    ax = visualize.plot_confusion_matrix(MATRIX)
    ax.figure.canvas.draw()
    assert ticks(ax.yaxis) == ["cat", r"dog $\x$", "no object"]
    assert ticks(ax.xaxis) == ["cat", r"dog $\x$", "missed"]
    shown = cells(ax)
    assert shown[0, 1] == "1" and shown[2, 0] == "2" and shown[0, 0] == "6" and (2, 2) not in shown
    np.testing.assert_array_equal(ax.images[0].get_array(), MATRIX.counts)
    assert ax.get_title() == "Score ≥ 0.4, IoU ≥ 0.5"


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("true", {(0, 0): "0.75", (0, 1): "0.12", (1, 0): "-", (2, 0): "1.00"}),
        ("detected", {(0, 0): "0.75", (0, 1): "1.00", (1, 0): "0.00", (2, 0): "0.25"}),
    ],
)
def test_shares_of_a_confusion_matrix(normalize, expected):
    shown = cells(visualize.plot_confusion_matrix(MATRIX, normalize))
    assert {cell: shown[cell] for cell in expected} == expected


def test_matrices_of_many_classes_have_no_numbers():
    count = evaluation_plots.MOST_NUMBERS + 1
    names = tuple(f"class {index}" for index in range(count))
    ax = visualize.plot_confusion_matrix(ConfusionMatrix(names, np.eye(count + 1, dtype=int), 0.5, 0.5))
    assert not ax.texts and len(ticks(ax.yaxis)) == count + 1


def test_an_empty_matrix_can_be_drawn():
    ax = visualize.plot_confusion_matrix(ConfusionMatrix(("a",), np.zeros((2, 2), int), 0.5, 0.5))
    ax.figure.canvas.draw()
    assert set(cells(ax).values()) == {"0"}


def test_precision_recall_curves_with_their_average_precision():
    ax = visualize.plot_precision_recall_curves(curves([1, 1, 0.4], [0.5, 0.1, 0], [np.nan] * 3))
    ax.figure.canvas.draw()
    assert legend(ax) == [
        r"class 0 $\x$ (AP 0.80)",
        r"class 1 $\x$ (AP 0.20)",
        "all classes (AP 0.50)",
    ]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1], [0.5, 1], [1, 0.4]])
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), [0.75, 0.55, 0.2])
    assert "IoU ≥ 0.5" in ax.get_title()
    stricter = visualize.plot_precision_recall_curves(curves([1, 1, 0.4]), iou_threshold=0.75)
    assert legend(stricter) == [r"class 0 $\x$ (AP 0.40)"]
    with pytest.raises(ValueError, match="`iou_threshold` must be one of"):
        visualize.plot_precision_recall_curves(curves([1, 1, 0.4]), iou_threshold=0.6)


def test_curves_of_classes_without_objects():
    ax = visualize.plot_precision_recall_curves(curves([np.nan] * 3))
    ax.figure.canvas.draw()
    assert ax.get_legend() is None and not ax.lines


def test_many_curves_have_one_legend_entry():
    count = evaluation_plots.MOST_NAMES + 1
    ax = visualize.plot_precision_recall_curves(curves(*[[1, 1, 0.4]] * count))
    assert len(ax.lines) == count + 1 and legend(ax) == ["all classes (AP 0.80)"]


def test_f1_against_the_score_marks_the_best_one():
    scores = np.array([0.2, 0.5, 0.8])
    counts = (np.array(x)[:, np.newaxis] for x in ([4, 4, 1], [4, 0, 0], [0, 0, 3]))
    ax = visualize.plot_f1(ScoreCurves((r"$\x$",), scores, *counts, 0.5))
    ax.figure.canvas.draw()
    assert ax.get_title() == "IoU ≥ 0.5, best F1 1.00 at score 0.50"
    assert legend(ax) == [r"$\x$"]
    curve = next(line for line in ax.lines if len(line.get_xdata()) == 3)
    np.testing.assert_allclose(curve.get_xydata(), [[0.2, 8 / 12], [0.5, 1], [0.8, 2 / 5]])


def test_all_draw_on_given_axes():
    figure, axes = plt.subplots(1, 3)
    nothing = np.zeros((2, 1), int)
    assert visualize.plot_confusion_matrix(MATRIX, ax=axes[0]) is axes[0]
    assert visualize.plot_precision_recall_curves(curves([1, 1, 0]), ax=axes[1]) is axes[1]
    scores = ScoreCurves(("cat",), np.array([0.0, 1.0]), nothing, nothing, nothing, 0.5)
    assert visualize.plot_f1(scores, ax=axes[2]) is axes[2]
    assert plt.get_fignums() == [figure.number]
    assert axes[2].get_legend() is None


@pytest.mark.parametrize("plot", [visualize.plot_confusion_matrix, visualize.plot_f1])
def test_results_without_min_score_say_what_to_do(plot):
    with pytest.raises(ValueError, match="Pass min_score to evaluate"):
        plot(None)

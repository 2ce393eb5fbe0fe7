"""Figures of images, instances, boxes, scores and weights, with matplotlib.

    instances         display_instances, display_differences
    boxes             draw_boxes, draw_rois
    grids             display_images, display_top_masks
    evaluation_plots  plot_confusion_matrix, plot_precision_recall_curves, plot_f1
    plots             plot_precision_recall, plot_overlaps
    tables            display_table, display_weight_stats
    overlays          overlay_instances, apply_mask, draw_box, to_rgb: paint into arrays, without matplotlib
    colors            random_colors

matplotlib is imported when the first figure is drawn, so importing this package is cheap on a server.

Images are [H, W, 3] RGB; other kinds are converted; see `to_rgb`. Boxes are [N, (y1, x1, y2, x2)] in pixels,
y2 and x2 exclusive. Masks are [H, W, N], bool or integers; `MaskCrops`; or N run lengths. Class id 0 is the
background.

Functions that make a figure return it; those of `evaluation_plots` return their axes. A window only opens if
the function made the figure itself and there is a display.
"""

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.drawing.colors import random_colors
from mrcnn.visualize.boxes import draw_boxes, draw_rois
from mrcnn.visualize.evaluation_plots import plot_confusion_matrix, plot_f1, plot_precision_recall_curves
from mrcnn.visualize.grids import display_images, display_top_masks
from mrcnn.visualize.instances import display_differences, display_instances
from mrcnn.visualize.overlays import apply_mask, draw_box, overlay_instances, to_rgb
from mrcnn.visualize.plots import plot_overlaps, plot_precision_recall
from mrcnn.visualize.tables import display_table, display_weight_stats

if TYPE_CHECKING:
    from matplotlib import pyplot as plt

# np and plt stand here for programs that take them from `from mrcnn.visualize import *`.
__all__ = [
    "apply_mask",
    "display_differences",
    "display_images",
    "display_instances",
    "display_table",
    "display_top_masks",
    "display_weight_stats",
    "draw_box",
    "draw_boxes",
    "draw_rois",
    "np",
    "overlay_instances",
    "plot_confusion_matrix",
    "plot_f1",
    "plot_overlaps",
    "plot_precision_recall",
    "plot_precision_recall_curves",
    "plt",
    "random_colors",
    "to_rgb",
]


def __getattr__(name: str) -> Any:
    """Import matplotlib when a program first uses `plt`."""
    if name != "plt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("matplotlib.pyplot")

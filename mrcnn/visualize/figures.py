"""Panels, captions, lines and legends for all figures of `mrcnn.visualize` and `mrcnn.inspection`.

The functions import matplotlib when they are called, so importing the package is cheap on a server.

Boxes are (y1, x1, y2, x2) in pixels, y2 and x2 exclusive. matplotlib puts the centers of pixels at whole
numbers, so an edge is half a pixel before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.drawing.colors import Color, text_color
from mrcnn.drawing.display import finish as finish
from mrcnn.drawing.display import pyplot as pyplot
from mrcnn.typing import Boxes
from mrcnn.visualize.captions import caption_positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TEXT_SIZE = 10  # points
TEXT_HEIGHT = 12  # points: height of a line of that size
HINTED = 1.08  # rendered letters are at most this much wider than their outlines
TEXT_PAD = 1.5  # points around a text, on its patch


def panels(
    shape: Sequence[int],
    rows: int,
    cols: int,
    *,
    side: float = 5.0,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of axes for images of one size.

    Args:
        shape: (height, width, ...) of an image.
        rows: Number of rows.
        cols: Number of columns.
        side: Length in inches of the longer side of an image.
        widths: Widths of the columns, in widths of an image. 1 each by default.

    Returns:
        The figure and its axes [rows, cols], without ticks.
    """
    height, width = (side * length / max(shape[:2]) for length in shape[:2])
    widths = widths or [1.0] * cols
    figure, axes = pyplot().subplots(
        rows,
        cols,
        figsize=(sum(widths) * width + 0.1 * cols, rows * (height + 0.4)),
        width_ratios=widths,
        squeeze=False,
        layout="compressed",
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes


def get_axes(
    ax: Axes | np.ndarray | Sequence[Axes] | None, figsize: tuple[float, float]
) -> tuple[Figure, Axes, bool]:
    """Return the axes to draw on: those of the caller, or those of a new figure.

    Args:
        ax: Axes, alone or in an array of length 1; None makes a new figure.
        figsize: Width and height of a new figure in inches.

    Returns:
        The figure, the axes, and whether they are new.

    Raises:
        ValueError: If `ax` holds several axes.
    """
    if ax is None:
        figure, new = pyplot().subplots(1, figsize=figsize, layout="constrained")
        return figure, new, True
    given = np.ravel(np.asarray(ax, dtype=object))
    if len(given) != 1:
        raise ValueError(f"`ax` must be one matplotlib axes. Received: {len(given)} axes")
    return given[0].figure, given[0], False


def show_canvas(ax: Axes, canvas: np.ndarray, shape: Sequence[int], margin: float, title: str) -> None:
    """Put an image on the axes, without ticks.

    Args:
        ax: Axes to draw on.
        canvas: uint8 RGB image, possibly magnified.
        shape: (H, W, ...) of the image before magnification. The axes count its pixels.
        margin: Free space on each side, in those pixels.
        title: Title of the axes. A dollar sign in it does not start a formula.
    """
    height, width = shape[:2]
    ax.imshow(canvas, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_xlim(-margin, width + margin)
    ax.set_ylim(height + margin, -margin)
    ax.axis("off")
    ax.set_title(title, parse_math=False)


def write_captions(ax: Axes, boxes: Boxes, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write captions at boxes where they do not cover each other; see `captions.caption_positions`.

    Args:
        ax: Axes that have their image and their limits already.
        boxes: Boxes [N, 4].
        texts: Captions [N]; empty ones are skipped.
        colors: Colors [N, 3] of the patches behind the captions.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    corner = np.array([top, left, top, left]) + 0.5
    sizes = _text_sizes(ax, texts)
    positions = caption_positions(boxes - corner, sizes, (bottom - top, right - left))
    for position, text, color in zip(positions, texts, colors, strict=True):
        if position is not None:
            _write_text(ax, position + corner, text, color)


def _text_sizes(ax: Axes, texts: Sequence[str]) -> np.ndarray:
    """Return height and width [N, 2] of texts on their patches, in units of the axes; zero without a text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    sizes = np.zeros([len(texts), 2])
    if any(texts):
        unit = _units_per_point(ax)
        font = FontProperties(size=TEXT_SIZE)
        for i, text in enumerate(texts):
            if text:
                width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
                sizes[i] = (TEXT_HEIGHT + 2 * TEXT_PAD) * unit, (HINTED * width + 2 * TEXT_PAD) * unit
    return sizes


def _units_per_point(ax: Axes) -> float:
    """Return the length of a typographic point on the vertical scale of the axes, in the current layout."""
    figure: Any = ax.figure
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    ax.apply_aspect()
    bottom, top = ax.get_ylim()
    return float(abs(bottom - top) / ax.get_window_extent().height * figure.dpi / 72)


def _write_text(ax: Axes, position: np.ndarray, text: str, color: Color) -> None:
    """Write a text on a patch of color at a position (y1, x1, y2, x2) of the size of `_text_sizes`."""
    unit = (position[2] - position[0]) / (TEXT_HEIGHT + 2 * TEXT_PAD)
    ax.text(
        position[1] + TEXT_PAD * unit - 0.5,
        (position[0] + position[2]) / 2 - 0.5,
        text,
        color=text_color(color),
        fontsize=TEXT_SIZE,
        verticalalignment="center_baseline",
        bbox={"facecolor": tuple(color), "alpha": 0.8, "edgecolor": "none", "pad": TEXT_PAD},
        parse_math=False,  # a dollar sign in a class name does not start a formula
    )


def add_legend(ax: Axes, texts: Sequence[str], colors: Sequence[Color] | np.ndarray) -> None:
    """Put a legend to the right of the image: texts [N] beside patches of their colors [N, 3]."""
    from matplotlib.patches import Patch

    if len(texts):
        patches: list[Any] = [
            Patch(color=tuple(color), label=text) for text, color in zip(texts, colors, strict=True)
        ]
        legend = ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def add_lines(
    ax: Axes,
    lines: np.ndarray,
    colors: np.ndarray,
    opacity: np.ndarray,
    styles: Sequence[str] | np.ndarray,
) -> None:
    """Draw polylines as one matplotlib object, which is fast even for thousands of them.

    Args:
        ax: Axes to draw on.
        lines: Polylines [N, points, (x, y)].
        colors: Colors [N, 3].
        opacity: Opacities [N] in 0..1.
        styles: matplotlib line styles [N].
    """
    from matplotlib.collections import LineCollection

    if len(lines):
        rgba = np.concatenate([colors, opacity[:, np.newaxis]], axis=1)
        ax.add_collection(
            LineCollection(list(lines), colors=rgba, linewidths=2, linestyles=list(styles)),
            autolim=False,
        )


def box_lines(boxes: Boxes) -> np.ndarray:
    """Convert boxes [N, 4] to closed polylines [N, 5, (x, y)] in matplotlib's coordinates."""
    y1, x1, y2, x2 = np.asarray(boxes, dtype=np.float64).T - 0.5
    points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    return np.stack([np.stack(point, axis=1) for point in points], axis=1)


def color_scale(values: np.ndarray) -> ScalarMappable:
    """Make a scale from dark blue (smallest value) to yellow (largest), for lines and for a color bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return ScalarMappable(Normalize(low, high), cmap="viridis")

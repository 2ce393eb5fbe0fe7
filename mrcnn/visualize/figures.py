"""The few operations on matplotlib figures that the pictures of `mrcnn.visualize` share.

matplotlib is imported by the functions, not by the module. Boxes are (y1, x1, y2, x2) in pixels,
y2 and x2 outside; matplotlib puts the centre of a pixel at its whole number, so an edge lies half a
pixel before it.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.visualize import labels
from mrcnn.visualize.colors import Color, text_color

# Backends that only write files: showing a figure with them does nothing but warn.
FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
TEXT_SIZE = 10  # points
TEXT_HEIGHT = 12  # of a line of that size
HINTED = 1.08  # letters on pixels are at most so much wider than their outlines
TEXT_PAD = 1.5  # of the patch behind it


def pyplot() -> Any:
    """The module matplotlib.pyplot, imported at the first call."""
    import matplotlib.pyplot

    return matplotlib.pyplot


def finish(figure: Any, show: bool) -> Any:
    """Show a figure if asked to and if there is a display, and give it to the caller.

    Notebooks show every new figure below its cell by themselves. So that a figure that is the value of
    that cell is not shown twice, it shows itself from the next cell on.
    """
    import matplotlib

    backend = matplotlib.get_backend().lower()
    if show and backend not in FILE_BACKENDS:
        pyplot().show()
    if "inline" in backend:
        figure._ipython_display_ = functools.partial(_display_later, figure, _cell_number())
    return figure


def _display_later(figure: Any, own_cell: int | None) -> None:
    """What a notebook calls for a figure: as the value of a cell, and to show new ones below the cell."""
    shell = _shell()
    is_value = getattr(getattr(shell, "displayhook", None), "exec_result", None) is not None
    if is_value and _cell_number() == own_cell:
        return
    del figure._ipython_display_
    sys.modules["IPython"].display.display(figure)


def _cell_number() -> int | None:
    """The number of the notebook's cell that runs now; None outside notebooks."""
    return getattr(_shell(), "execution_count", None)


def _shell() -> Any:
    """IPython's shell; None outside of it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def panels(
    shape: Sequence[int],
    rows: int,
    cols: int,
    side: float = 5.0,
    widths: Sequence[float] | None = None,
) -> tuple[Any, np.ndarray]:
    """A figure with a grid of axes for pictures of one size.

    shape: (height, width, ...) of a picture; side: inches of the longer side of each. widths: of the columns,
    in widths of a picture, 1 each by default.

    Returns the figure and its axes [rows, cols], without ticks.
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


def get_axes(ax: Any, figsize: tuple[float, float]) -> tuple[Any, Any, bool]:
    """The axes to draw on: those given, alone or as an array of one, else those of a new figure.

    Returns the figure, the axes and whether they are new.
    Raises ValueError for several axes.
    """
    if ax is None:
        figure, ax = pyplot().subplots(1, figsize=figsize, layout="constrained")
        return figure, ax, True
    given = np.ravel(np.asarray(ax, dtype=object))
    if len(given) != 1:
        raise ValueError(f"One picture needs one axis; choose one. Received: {len(given)} axes")
    return given[0].figure, given[0], False


def show_canvas(ax: Any, canvas: np.ndarray, shape: Sequence[int], margin: float, title: str) -> None:
    """Put one picture on the axes, without ticks.

    canvas: uint8 RGB of an image, magnified or not. shape: (H, W, ...) of that image, in whose
    pixels the axes count; `margin` of them are left free on each side.
    """
    height, width = shape[:2]
    ax.imshow(canvas, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_xlim(-margin, width + margin)
    ax.set_ylim(height + margin, -margin)
    ax.axis("off")
    ax.set_title(title)


def write_captions(ax: Any, boxes: np.ndarray, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write texts [N] at boxes [N, 4] where they do not cover each other; empty ones are skipped.

    The axes must have their picture and their limits. See `labels.place_labels`.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    corner = np.array([top, left, top, left]) + 0.5
    sizes = _text_sizes(ax, texts)
    places = labels.place_labels(boxes - corner, sizes, (bottom - top, right - left))
    for place, text, color in zip(places, texts, colors, strict=True):
        if place is not None:
            _write_text(ax, place + corner, text, color)


def _text_sizes(ax: Any, texts: Sequence[str]) -> np.ndarray:
    """Height and width [N, 2] that texts will take on the axes with their patches, in its own units.

    Zero for empty texts.
    """
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


def _units_per_point(ax: Any) -> float:
    """How much of the axes' vertical scale a typographic point is, as the figure is laid out now."""
    engine = ax.figure.get_layout_engine()
    if engine is not None:
        engine.execute(ax.figure)
    ax.apply_aspect()
    bottom, top = ax.get_ylim()
    return abs(bottom - top) / ax.get_window_extent().height * ax.figure.dpi / 72


def _write_text(ax: Any, place: np.ndarray, text: str, color: Color) -> None:
    """Write a text on a patch of colour at a place (y1, x1, y2, x2) of the size of `_text_sizes`."""
    unit = (place[2] - place[0]) / (TEXT_HEIGHT + 2 * TEXT_PAD)
    ax.text(
        place[1] + TEXT_PAD * unit - 0.5,
        (place[0] + place[2]) / 2 - 0.5,
        text,
        color=text_color(color),
        fontsize=TEXT_SIZE,
        verticalalignment="center_baseline",
        bbox={"facecolor": tuple(color), "alpha": 0.8, "edgecolor": "none", "pad": TEXT_PAD},
        parse_math=False,  # a dollar sign in a class name is no formula
    )


def add_legend(ax: Any, texts: Sequence[str], colors: np.ndarray) -> None:
    """Put a list of texts beside patches of their colours [N, 3] to the right of the picture."""
    from matplotlib.patches import Patch

    if len(texts):
        patches = [Patch(color=color, label=text) for text, color in zip(texts, colors, strict=True)]
        ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def add_lines(
    ax: Any,
    lines: np.ndarray,
    colors: np.ndarray,
    opacity: np.ndarray,
    styles: Sequence[str] | np.ndarray,
) -> None:
    """Draw polylines as one object, which stays fast for thousands.

    lines: [N, points, (x, y)]; colors: [N, 3]; opacity: [N]; styles: [N] matplotlib line styles.
    """
    from matplotlib.collections import LineCollection

    if len(lines):
        rgba = np.concatenate([colors, opacity[:, np.newaxis]], axis=1)
        ax.add_collection(
            LineCollection(list(lines), colors=rgba, linewidths=2, linestyles=list(styles)),
            autolim=False,
        )


def box_lines(boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] as closed polylines [N, 5, (x, y)] in matplotlib's coordinates."""
    y1, x1, y2, x2 = np.asarray(boxes, dtype=np.float64).T - 0.5
    points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    return np.stack([np.stack(point, axis=1) for point in points], axis=1)


def color_scale(values: np.ndarray) -> Any:
    """A scale from dark blue for the smallest value to yellow for the largest, for lines and a colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return ScalarMappable(Normalize(low, high), cmap="viridis")

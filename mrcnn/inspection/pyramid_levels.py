"""The pyramid level of each RoI: large RoIs are sampled on coarse levels, small ones on fine levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import backend, visualize
from mrcnn.drawing.colors import PALETTE
from mrcnn.geometry.boxes import norm_boxes
from mrcnn.network import roi_align
from mrcnn.typing import Boxes, Image
from mrcnn.visualize import figures
from mrcnn.visualize.boxes import SOLID

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mrcnn.config import Config

LEVELS = range(roi_align.FIRST_LEVEL, roi_align.LAST_LEVEL + 1)
LEVEL_OF_CANONICAL_SIDE = 4
# Orange, sky blue, bluish green and reddish purple for P2 to P5.
COLORS = dict(zip(LEVELS, (PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[6]), strict=True))


@dataclass(frozen=True)
class BoxLevels:
    """Boxes and their pyramid levels.

    Attributes:
        image: The image [H, W, channels] at the size of the network.
        boxes: Boxes [N, 4] in its pixels, y2 and x2 exclusive.
        sides: Side length [N] in pixels of a square of the same area.
        levels: Pyramid level [N], int32, 2 to 5.
        rounds_down: Whether levels are rounded down, not to the nearest integer.
    """

    image: np.ndarray
    boxes: Boxes
    sides: np.ndarray
    levels: np.ndarray
    rounds_down: bool = False

    @property
    def counts(self) -> dict[int, int]:
        """Number of boxes on each level."""
        return {level: int((self.levels == level).sum()) for level in LEVELS}


def assign_levels(image: Image, boxes: Boxes, config: Config | None = None) -> BoxLevels:
    """Compute the pyramid level of boxes as ROIAlign does (FPN, equation 1).

    The level is 4 + log2(side / 224), rounded and limited to 2..5. An RoI as large as an ImageNet image, 224
    pixels, belongs to P4; half the side means one level finer.

    Args:
        image: The image [H, W, channels] at the size of the network: an image of `load_image_gt`, or
            `NetworkInput.image` of another step.
        boxes: Boxes [N, 4] in its pixels, y2 and x2 exclusive, such as ground truth or proposals.
        config: The Config of the network. Its CONVENTIONS say whether levels are rounded to the nearest
            integer or down. Without it, they are rounded to the nearest integer.
    """
    conventions = None if config is None else config.conventions()
    method = conventions.roi_align if conventions else roi_align.CROP_AND_RESIZE
    half_open = conventions.half_open_boxes if conventions else False
    boxes = np.asarray(boxes).reshape(-1, 4)
    height, width = np.shape(image)[:2]
    normalized = norm_boxes(boxes, (height, width), half_open)
    levels = roi_align.roi_levels(normalized[np.newaxis], float(height * width), method)
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64))
    rounds_down = method != roi_align.CROP_AND_RESIZE
    return BoxLevels(np.asarray(image), boxes, sides, backend.to_numpy(levels)[0], rounds_down)


def draw_levels(levels: BoxLevels) -> Figure:
    """Draw the boxes colored by level, and their side length against the level.

    Returns the figure. Its second panel shows the equation before rounding as a gray line.
    """
    figure, (image_ax, plot_ax) = figures.pyplot().subplots(
        1, 2, figsize=(14, 5.5), layout="constrained", width_ratios=(1.4, 1)
    )
    visualize.draw_boxes(
        levels.image,
        boxes=levels.boxes,
        visibilities=np.full(len(levels.boxes), SOLID),
        colors=[COLORS[int(level)] for level in levels.levels],
        title=f"{len(levels.boxes)} boxes by pyramid level",
        ax=image_ax,
    )
    texts = [f"P{level}, stride {2**level}: {count}" for level, count in levels.counts.items()]
    figures.add_legend(image_ax, texts, list(COLORS.values()))
    _plot_equation(plot_ax, levels)
    return figures.finish(figure, show=False)


def _plot_equation(ax: Axes, levels: BoxLevels) -> None:
    """Plot level against side length: the equation, its rounding, and the boxes."""
    canonical = roi_align.CANONICAL_SIDE
    # Rounding switches halfway between two levels on a logarithmic scale, or at the upper one if it is down.
    switch = 1.0 if levels.rounds_down else 0.5
    borders = [canonical * 2.0 ** (level + switch - LEVEL_OF_CANONICAL_SIDE) for level in list(LEVELS)[:-1]]
    low = min(levels.sides.min(initial=borders[0]), borders[0]) / 1.5
    high = max(levels.sides.max(initial=borders[-1]), borders[-1]) * 1.5
    sides = np.geomspace(max(low, 1.0), high, 200)
    ax.plot(sides, LEVEL_OF_CANONICAL_SIDE + np.log2(sides / canonical), color="gray", linewidth=1)
    ax.hlines(list(LEVELS), [sides[0], *borders], [*borders, high], color="black", linewidth=1)
    for border in borders:
        ax.axvline(border, color="gray", linestyle="dotted", linewidth=1)
    ax.scatter(levels.sides, levels.levels, c=[COLORS[int(level)] for level in levels.levels], zorder=3)
    ax.set_xscale("log", base=2)
    ticks = borders if canonical in borders else [canonical, *borders]
    ax.set_xticks(ticks, [f"{side:.0f}" for side in ticks])
    ax.minorticks_off()
    ax.set_yticks(list(LEVELS), [f"P{level}" for level in LEVELS])
    ax.set_ylim(LEVELS[0] - 0.7, LEVELS[-1] + 0.7)
    ax.set(
        xlabel="side of the box in pixels: sqrt(height x width)",
        title=f"level = 4 + log2(side / 224), rounded{' down' if levels.rounds_down else ''}",
    )

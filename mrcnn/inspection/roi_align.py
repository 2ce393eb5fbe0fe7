"""ROIAlign: where an RoI samples its pyramid level, and its features compared with those of ROIPool.

ROIAlign samples the feature map between its cells. ROIPool, its predecessor in Fast R-CNN, rounds the RoI and
its bins to whole cells. Mask R-CNN, section 3, measures the effect of this quantization.

Axes: N RoIs, P bins along each side, C channels, h and w cells of a level. Positions in cells count from the
center of the first cell, as matplotlib draws them. Where that is on the image depends on the method of
ROIAlign; see `mrcnn.network.roi_align`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.drawing.colors import PALETTE
from mrcnn.inspection import tensors
from mrcnn.inspection.feature_maps import PYRAMID
from mrcnn.network.roi_align import (
    AVERAGE_ALIGNED,
    CROP_AND_RESIZE,
    bin_range,
    bin_sample_positions,
    pyramid_roi_align,
    roi_levels,
    sample_positions,
)
from mrcnn.typing import Boxes, Image
from mrcnn.visualize import figures
from mrcnn.visualize.overlays import to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN

ALIGN_COLOR, POOL_COLOR = PALETTE[0], PALETTE[1]  # orange, sky blue


@dataclass(frozen=True)
class PooledRois:
    """The features of RoIs of one image.

    Attributes:
        input: The image as the network received it.
        rois: RoIs [N, 4], int32 in its pixels, y2 and x2 exclusive.
        levels: Pyramid level [N] of each RoI.
        maps: The levels P2 to P5, each [h, w, C].
        sample_rows: Rows [N, P] in cells of the RoI's level at which ROIAlign samples; [N, 2 * P] where it
            averages 2 x 2 samples of each bin.
        sample_columns: Columns in cells, of the same shape.
        outlines: Edges [N, (y1, x1, y2, x2)] in cells of the area that ROIAlign divides into bins.
        aligned: Features of ROIAlign [N, P, P, C].
        bin_rows: Rows of cells of each bin of ROIPool, int [N, P, (first, end)], end exclusive.
        bin_columns: Columns of cells of each bin, int [N, P, (first, end)].
        pooled: Features of ROIPool [N, P, P, C], the maximum of each bin.
        method: The method of ROIAlign.
    """

    input: tensors.NetworkInput
    rois: Boxes
    levels: np.ndarray
    maps: Mapping[int, np.ndarray]
    sample_rows: np.ndarray
    sample_columns: np.ndarray
    outlines: np.ndarray
    aligned: np.ndarray
    bin_rows: np.ndarray
    bin_columns: np.ndarray
    pooled: np.ndarray
    method: str


def pool_rois(
    model: MaskRCNN,
    image: Image,
    rois: Boxes | None = None,
    image_meta: np.ndarray | None = None,
    *,
    pool_size: int | None = None,
) -> PooledRois:
    """Fetch the pyramid, and pool RoIs from it with the network's ROIAlign and with ROIPool in NumPy.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image, or one from `load_image_gt` with `image_meta`; see `tensors.fetch`.
        rois: RoIs [N, 4] in pixels of the image as the network receives it. By default the proposals.
        image_meta: The image meta of an image from `load_image_gt`.
        pool_size: Bins along each side. By default POOL_SIZE, that of the box head.
    """
    names = {"rois": "ROI"} | {f"P{level}": name for level, name in PYRAMID.items()}
    outputs = tensors.layer_outputs(model, names)
    network_input, values = tensors.fetch(model, image, outputs, image_meta)
    height, width = network_input.image.shape[:2]
    if rois is None:
        normalized = values["rois"][values["rois"].any(axis=1)]
    else:
        normalized = network_input.normalized(np.asarray(rois).reshape(-1, 4))
    count = pool_size or model.config.POOL_SIZE
    maps = {level: values[f"P{level}"] for level in PYRAMID}
    area, method = float(height * width), model.config.conventions().roi_align
    aligned = pyramid_roi_align(
        normalized[np.newaxis], area, [one[np.newaxis] for one in maps.values()], (count, count), method
    )
    levels = backend.to_numpy(roi_levels(normalized[np.newaxis], area, method))[0]
    cells = np.array([maps[level].shape[:2] for level in levels], np.float32).reshape(-1, 2)
    # A closed box spans the centers of the outermost cells, a half-open one their outer edges.
    edges = normalized * np.tile(cells if network_input.half_open else cells - 1, 2)
    bins = [
        (pool_bins(y1, y2, maps[level].shape[0], count), pool_bins(x1, x2, maps[level].shape[1], count))
        for level, (y1, x1, y2, x2) in zip(levels, edges, strict=True)
    ]
    pooled = [
        roi_pool(maps[level], rows, columns) for level, (rows, columns) in zip(levels, bins, strict=True)
    ]
    return PooledRois(
        input=network_input,
        rois=network_input.pixels(normalized),
        levels=levels,
        maps=maps,
        sample_rows=_sample_positions(normalized[:, [0, 2]], cells[:, 0], count, method),
        sample_columns=_sample_positions(normalized[:, [1, 3]], cells[:, 1], count, method),
        outlines=_outlines(normalized, cells, method),
        aligned=backend.to_numpy(aligned)[0],
        bin_rows=np.array([rows for rows, _ in bins], int).reshape(-1, count, 2),
        bin_columns=np.array([columns for _, columns in bins], int).reshape(-1, count, 2),
        pooled=np.array(pooled).reshape(-1, count, count, maps[2].shape[-1]),
        method=method,
    )


def pool_bins(low: float, high: float, extent: int, count: int) -> np.ndarray:
    """Divide a side of an RoI into the bins of ROIPool (Fast R-CNN, section 2.1).

    The edges are rounded to whole cells. Each bin reaches from the floor of its first edge to the ceiling of
    its last one, so bins overlap if the RoI has fewer cells than bins.

    Args:
        low: Edge in cells.
        high: Opposite edge in cells.
        extent: Number of cells of the map; bins are clipped to it.
        count: Number of bins.

    Returns:
        int [count, (first, end)] in cells, end exclusive.
    """
    start, stop = (int(np.floor(edge + 0.5)) for edge in (low, high))
    cells = max(stop - start + 1, 1)
    i = np.arange(count)
    first, end = i * cells // count, -(-(i + 1) * cells // count)
    return np.clip(start + np.stack([first, end], axis=1), 0, extent)


def roi_pool(level_map: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Take the maximum of each bin of an RoI; an empty bin is zero.

    Args:
        level_map: Feature map [h, w, C].
        rows: Rows of each bin, int [P, (first, end)]; see `pool_bins`.
        columns: Columns of each bin, int [P, (first, end)].

    Returns:
        Features [P, P, C].
    """
    pooled = np.zeros((len(rows), len(columns), level_map.shape[2]), level_map.dtype)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            cells = level_map[top:bottom, left:right]
            if cells.size:
                pooled[i, j] = cells.max(axis=(0, 1))
    return pooled


def _sample_positions(edges: np.ndarray, cells: np.ndarray, count: int, method: str) -> np.ndarray:
    """Return the positions [N, samples] in cells at which ROIAlign samples along one axis.

    Args:
        edges: Normalized edges [N, 2] of the RoIs.
        cells: Number of cells [N] of the maps.
        count: Bins along the axis.
        method: The method of ROIAlign.
    """
    low, high, extent = (ops.convert_to_tensor(x[np.newaxis]) for x in (*edges.T, cells))
    if method == CROP_AND_RESIZE:
        return backend.to_numpy(sample_positions(low, high, extent, count))[0]
    return backend.to_numpy(bin_sample_positions(low, high, extent, count, method))[0]


def _outlines(normalized: Boxes, cells: np.ndarray, method: str) -> np.ndarray:
    """Return the edges [N, 4] of what ROIAlign divides into bins, on maps of [N, (height, width)] cells."""
    if method == CROP_AND_RESIZE:
        return normalized * np.tile(cells - 1, 2)
    low, high, extent = (ops.convert_to_tensor(x) for x in (normalized[:, :2], normalized[:, 2:], cells))
    start, length = (backend.to_numpy(x) for x in bin_range(low, high, extent, method))
    return np.concatenate([start, start + length], axis=1)


def _on_image(positions: np.ndarray, cells: np.ndarray, pixels: np.ndarray, method: str) -> np.ndarray:
    """Convert positions in cells to pixels of the image, counted from the center of the first one.

    Args:
        positions: Positions [N] along an axis.
        cells: Number of cells of the map along that axis, one for all or [N].
        pixels: Number of pixels of the image along that axis, one for all or [N].
        method: The method of ROIAlign.
    """
    if method == CROP_AND_RESIZE:
        # The centers of the first and the last cell lie at the centers of the first and the last pixel.
        return positions * (pixels - 1) / np.maximum(cells - 1, 1)
    # The value of a cell is at its center, or at its upper-left corner.
    shift = 0.5 if method == AVERAGE_ALIGNED else 0.0
    return (positions + shift) * pixels / cells - 0.5


def draw_pooled_rois(pooled: PooledRois, limit: int = 3, channel: int | None = None) -> Figure:
    """Draw RoIs on the image and on their level, and their features by ROIAlign and by ROIPool.

    Each row shows for one RoI: the samples of ROIAlign (orange) on the image and on one channel of the level;
    the bins of ROIPool (blue), rounded to whole cells; and the features of both.

    Args:
        pooled: The result of `pool_rois`.
        limit: Largest number of RoIs to draw, the first ones.
        channel: Channel to draw; by default the one that varies most within the RoI.

    Returns:
        The figure, with five panels per RoI.
    """
    count = min(limit, len(pooled.rois))
    figure, axes = figures.panels((1, 1), max(count, 1), 5, side=3.2)
    for row in range(count):
        on_image, on_level, in_bins, aligned, bins = axes[row]
        features = pooled.aligned[row]
        drawn = int(features.std(axis=(0, 1)).argmax()) if channel is None else channel
        values = features[..., drawn], pooled.pooled[row, ..., drawn]
        limits = {"vmin": min(map(np.min, values)), "vmax": max(map(np.max, values))}
        level = int(pooled.levels[row])
        _draw_image(on_image, pooled, row)
        size = "{} x {} pixels".format(*(pooled.rois[row, 2:] - pooled.rois[row, :2]))
        on_image.set_title(f"RoI of {size}: P{level}", fontsize=9)
        for ax in (on_level, in_bins):
            ax.imshow(pooled.maps[level][..., drawn], cmap="gray")
            _zoom(ax, pooled, row)
        _draw_samples(on_level, pooled.sample_rows[row], pooled.sample_columns[row], pooled.outlines[row])
        on_level.set_title(f"ROIAlign samples P{level}, channel {drawn}", fontsize=9)
        _draw_bins(in_bins, pooled, row)
        rows, columns = (
            bins_of_side[-1, 1] - bins_of_side[0, 0]
            for bins_of_side in (pooled.bin_rows[row], pooled.bin_columns[row])
        )
        in_bins.set_title(f"ROIPool rounds to {rows} x {columns} cells", fontsize=9)
        for ax, name, feature in zip((aligned, bins), ("ROIAlign", "ROIPool"), values, strict=True):
            ax.imshow(feature, cmap="viridis", **limits)
            ax.set_title("{}: {} x {}".format(name, *feature.shape), fontsize=9)
    return figures.finish(figure, show=False)


def _draw_image(ax: Axes, pooled: PooledRois, row: int) -> None:
    """Draw the part of the image around an RoI with the samples of ROIAlign."""
    image = to_rgb(pooled.input.image)
    cells, pixels = np.array(pooled.maps[int(pooled.levels[row])].shape[:2]), np.array(image.shape[:2])
    rows = _on_image(pooled.sample_rows[row], cells[0], pixels[0], pooled.method)
    columns = _on_image(pooled.sample_columns[row], cells[1], pixels[1], pooled.method)
    outline = _on_image(pooled.outlines[row], np.tile(cells, 2), np.tile(pixels, 2), pooled.method)
    ax.imshow(image)
    _draw_samples(ax, rows, columns, outline)
    margin = 0.25 * max(np.ptp(rows), np.ptp(columns)) + 1
    ax.set_xlim(columns[0] - margin, columns[-1] + margin)
    ax.set_ylim(rows[-1] + margin, rows[0] - margin)


def _draw_samples(ax: Axes, rows: np.ndarray, columns: np.ndarray, outline: np.ndarray) -> None:
    """Draw the outline (y1, x1, y2, x2) of an RoI and a dot at each sample."""
    _draw_outline(ax, outline, linewidth=1.5)
    x, y = np.meshgrid(columns, rows)
    ax.scatter(x, y, s=9, color=ALIGN_COLOR, edgecolors="black", linewidths=0.4, zorder=3)


def _draw_outline(ax: Axes, outline: np.ndarray, **style: Any) -> None:
    y1, x1, y2, x2 = outline
    ax.plot((x1, x2, x2, x1, x1), (y1, y1, y2, y2, y1), color=ALIGN_COLOR, **style)


def _draw_bins(ax: Axes, pooled: PooledRois, row: int) -> None:
    """Draw the exact outline of an RoI dotted, and the bins of ROIPool."""
    rows, columns = pooled.bin_rows[row], pooled.bin_columns[row]
    for top, bottom in rows - 0.5:
        for left, right in columns - 0.5:
            x, y = (left, right, right, left, left), (top, top, bottom, bottom, top)
            ax.plot(x, y, color=POOL_COLOR, linewidth=1)
    _draw_outline(ax, pooled.outlines[row], linestyle="dotted")


def _zoom(ax: Axes, pooled: PooledRois, row: int) -> None:
    """Show the cells around an RoI."""
    rows, columns = pooled.bin_rows[row], pooled.bin_columns[row]
    ax.set_xlim(columns[0, 0] - 2, columns[-1, 1] + 1)
    ax.set_ylim(rows[-1, 1] + 1, rows[0, 0] - 2)

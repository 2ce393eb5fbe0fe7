"""ROIAlign: where an RoI samples its pyramid level, and its features compared with those of ROIPool.

ROIAlign samples the feature map between its cells. ROIPool, its predecessor in Fast R-CNN, rounds the RoI and
its bins to whole cells. Mask R-CNN, section 3, measures the effect of this quantization.

Axes: N RoIs, P bins along each side, C channels, h and w cells of a level. Positions in cells count from the
center of the first cell, as matplotlib draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import backend
from mrcnn.drawing.colors import PALETTE
from mrcnn.inspection import tensors
from mrcnn.inspection.feature_maps import PYRAMID
from mrcnn.network.roi_align import (
    CROP_AND_RESIZE,
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
        aligned: Features of ROIAlign [N, P, P, C].
        bin_rows: Rows of cells of each bin of ROIPool, int [N, P, (first, end)], end exclusive.
        bin_columns: Columns of cells of each bin, int [N, P, (first, end)].
        pooled: Features of ROIPool [N, P, P, C], the maximum of each bin.
    """

    input: tensors.NetworkInput
    rois: Boxes
    levels: np.ndarray
    maps: Mapping[int, np.ndarray]
    sample_rows: np.ndarray
    sample_columns: np.ndarray
    aligned: np.ndarray
    bin_rows: np.ndarray
    bin_columns: np.ndarray
    pooled: np.ndarray


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
    edges = normalized * np.array([np.tile(maps[level].shape[:2], 2) - 1 for level in levels]).reshape(-1, 4)
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
        sample_rows=_sample_positions(normalized[:, [0, 2]], maps, levels, 0, count, method),
        sample_columns=_sample_positions(normalized[:, [1, 3]], maps, levels, 1, count, method),
        aligned=backend.to_numpy(aligned)[0],
        bin_rows=np.array([rows for rows, _ in bins], int).reshape(-1, count, 2),
        bin_columns=np.array([columns for _, columns in bins], int).reshape(-1, count, 2),
        pooled=np.array(pooled).reshape(-1, count, count, maps[2].shape[-1]),
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


def _sample_positions(
    edges: np.ndarray,
    maps: Mapping[int, np.ndarray],
    levels: np.ndarray,
    axis: int,
    count: int,
    method: str,
) -> np.ndarray:
    """Positions [N, samples] in cells at which ROIAlign samples along one axis; edges [N, 2] normalized."""
    extents = np.array([maps[level].shape[axis] for level in levels], np.float32)
    low, high = edges.T[:, np.newaxis]
    if method == CROP_AND_RESIZE:
        return backend.to_numpy(sample_positions(low, high, extents[np.newaxis], count))[0]
    return backend.to_numpy(bin_sample_positions(low, high, extents[np.newaxis], count, method))[0]


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
        _draw_samples(on_level, pooled.sample_rows[row], pooled.sample_columns[row])
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
    cells = pooled.maps[int(pooled.levels[row])].shape[:2]
    # The centers of the first and the last cell lie at the centers of the first and the last pixel.
    scale = (np.array(image.shape[:2]) - 1) / np.maximum(np.array(cells) - 1, 1)
    rows, columns = pooled.sample_rows[row] * scale[0], pooled.sample_columns[row] * scale[1]
    ax.imshow(image)
    _draw_samples(ax, rows, columns)
    margin = 0.25 * max(np.ptp(rows), np.ptp(columns)) + 1
    ax.set_xlim(columns[0] - margin, columns[-1] + margin)
    ax.set_ylim(rows[-1] + margin, rows[0] - margin)


def _draw_samples(ax: Axes, rows: np.ndarray, columns: np.ndarray) -> None:
    """Draw the outline of an RoI and a dot at each sample."""
    outline = np.array([(0, 0), (0, -1), (-1, -1), (-1, 0), (0, 0)])
    ax.plot(columns[outline[:, 1]], rows[outline[:, 0]], color=ALIGN_COLOR, linewidth=1.5)
    x, y = np.meshgrid(columns, rows)
    ax.scatter(x, y, s=9, color=ALIGN_COLOR, edgecolors="black", linewidths=0.4, zorder=3)


def _draw_bins(ax: Axes, pooled: PooledRois, row: int) -> None:
    """Draw the exact outline of an RoI dotted, and the bins of ROIPool."""
    rows, columns = pooled.bin_rows[row], pooled.bin_columns[row]
    for top, bottom in rows - 0.5:
        for left, right in columns - 0.5:
            x, y = (left, right, right, left, left), (top, top, bottom, bottom, top)
            ax.plot(x, y, color=POOL_COLOR, linewidth=1)
    y1, y2 = pooled.sample_rows[row, [0, -1]]
    x1, x2 = pooled.sample_columns[row, [0, -1]]
    ax.plot((x1, x2, x2, x1, x1), (y1, y1, y2, y2, y1), color=ALIGN_COLOR, linestyle="dotted")


def _zoom(ax: Axes, pooled: PooledRois, row: int) -> None:
    """Show the cells around an RoI."""
    rows, columns = pooled.bin_rows[row], pooled.bin_columns[row]
    ax.set_xlim(columns[0, 0] - 2, columns[-1, 1] + 1)
    ax.set_ylim(rows[-1, 1] + 1, rows[0, 0] - 2)

"""Several images in one figure: a grid of images, and the largest masks by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.typing import ClassIds, Image
from mrcnn.visualize import figures
from mrcnn.visualize.captions import class_name
from mrcnn.visualize.overlays import AnyMasks, to_bool, to_rgb, whole_masks

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure


def display_images(
    images: Sequence[Image] | Image,
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: str | Colormap | None = None,
    norm: Normalize | None = None,
    interpolation: str | None = None,
) -> Figure:
    """Show images in a grid.

    Args:
        images: Images. [H, W, 3] are colors in any range (see `to_rgb`). [H, W] are values, such as a mask,
            an index image or a feature map; the color map spans 0 (or the minimum, if that is negative) to
            the maximum of each.
        titles: A title per image; missing ones are empty. A dollar sign does not start a formula.
        cols: Number of columns.
        cmap: matplotlib color map for [H, W] images; gray by default.
        norm: matplotlib normalization for [H, W] images, instead of the range above.
        interpolation: As in matplotlib's `imshow`.

    Returns:
        The figure.
    """
    rows = max(1, math.ceil(len(images) / cols))
    figure = figures.pyplot().figure(figsize=(14, max(1, 14 * rows // cols)), layout="constrained")
    for i, image in enumerate(images):
        ax = figure.add_subplot(rows, cols, i + 1)
        title = titles[i] if titles is not None and i < len(titles) else ""
        ax.set_title(title, fontsize=9, parse_math=False)
        ax.axis("off")
        image = np.asarray(image)
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3:
            ax.imshow(to_rgb(image), interpolation=interpolation)
            continue
        image = image.astype(np.float32)
        low, high = (0.0, 0.0) if image.size == 0 else (np.nanmin(image), np.nanmax(image))
        limits: dict[str, Any] = {} if norm is not None else {"vmin": min(low, 0), "vmax": max(high, 0) or 1}
        ax.imshow(image, cmap=cmap or "gray", norm=norm, interpolation=interpolation, **limits)
    return figures.finish(figure, show=True)


def display_top_masks(
    image: Image,
    mask: AnyMasks,
    class_ids: ClassIds,
    class_names: Sequence[str],
    limit: int = 4,
) -> Figure:
    """Show an image and, for the classes with the largest mask area, all their masks.

    The j-th instance of a class, counted from 1, adds j to the pixels of its mask. If there are fewer than
    `limit` classes, empty panels with the title "-" follow.

    Args:
        image: Image of any kind (see `to_rgb`).
        mask: Masks [H, W, N], `MaskCrops` or N run lengths, as `detect` returns them.
        class_ids: Class ids [N].
        class_names: A name for each class id, the background first.
        limit: Number of classes to show.

    Returns:
        The figure.

    Raises:
        ValueError: If `mask` and `class_ids` differ in number.
    """
    mask, class_ids = to_bool(whole_masks(image, mask)), np.asarray(class_ids).reshape(-1)
    if mask.shape[-1] != len(class_ids):
        raise ValueError(
            "`mask` must have shape (height, width, instances) and `class_ids` one entry per instance. "
            f"Received: mask.shape={mask.shape}, len(class_ids)={len(class_ids)}"
        )
    height, width = np.shape(image)[:2]
    areas = np.count_nonzero(mask, axis=(0, 1))
    totals = {i: areas[class_ids == i].sum() for i in np.unique(class_ids)}
    top = sorted((i for i in totals if totals[i] > 0), key=lambda i: -totals[i])[:limit]
    images, titles = [to_rgb(image)], [f"H x W={height}x{width}"]
    for class_id in top:
        numbers = np.zeros([height, width], np.int32)
        for j, i in enumerate(np.flatnonzero(class_ids == class_id), start=1):
            numbers[mask[..., i]] += j
        images.append(numbers)
        titles.append(class_name(class_id, class_names))
    missing = limit - len(top)
    images += [np.zeros([height, width])] * missing
    titles += ["-"] * missing
    return display_images(images, titles, cols=limit + 1, cmap="Blues_r")

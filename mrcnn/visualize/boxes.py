"""Draw boxes before and after refinement, with masks and captions, or a sample of RoIs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.drawing.colors import GRAY, Color, instance_colors
from mrcnn.geometry import masks as mask_geometry
from mrcnn.typing import Boxes, ClassIds, Image
from mrcnn.visualize import figures, overlays
from mrcnn.visualize.captions import class_name, instance_captions
from mrcnn.visualize.instances import magnification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How a box is drawn; see `visibilities` of `draw_boxes`.
FAINT, DOTTED, SOLID = 0, 1, 2


def draw_boxes(
    image: Image,
    boxes: Boxes | None = None,
    refined_boxes: Boxes | None = None,
    masks: overlays.AnyMasks | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
    visibilities: Sequence[int] | np.ndarray | None = None,
    title: str = "",
    ax: Axes | np.ndarray | None = None,
    *,
    colors: Sequence[Color] | np.ndarray | None = None,
) -> Figure:
    """Draw boxes before and after refinement, with their masks and captions, without showing the figure.

    Args:
        image: Image of any kind (see `to_rgb`).
        boxes: Boxes [N, (y1, x1, y2, x2)] in pixels, y2 and x2 exclusive; rows of zeros are skipped.
        refined_boxes: Boxes [N, 4] after refinement, always solid; rows of zeros are skipped. A line joins
            the top-left corners of a box and its refined box. One of the two arguments may be None.
        masks: Masks [H, W, N], `MaskCrops` or N run lengths.
        captions: Texts [N], written at the refined box if that is drawn, else at the box.
        visibilities: How to draw each box [N]: 0 gray, faint and dotted, without its refined box; 1 in color
            and dotted (the default); 2 in color and solid.
        title: Title of the figure.
        ax: matplotlib axes to draw on. If None, a new figure is made.
        colors: RGB colors [N, 3]; distinct ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: If both `boxes` and `refined_boxes` are None, or the arguments differ in length.
    """
    masks = None if masks is None else overlays.whole_masks(image, masks)
    boxes, refined_boxes, visibilities = _check_boxes(boxes, refined_boxes, masks, captions, visibilities)
    colors = instance_colors(colors, len(visibilities))
    colors[visibilities == FAINT] = GRAY
    canvas = overlays.to_rgb(image)
    if masks is not None and len(visibilities):
        scale = magnification(image)
        canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
        overlays.draw_masks(canvas, overlays.check_masks(image, masks), colors)
    figure, ax, _ = figures.get_axes(ax, (12, 12))
    figures.show_canvas(ax, canvas, np.shape(image), margin=np.shape(image)[0] // 10, title=title)
    has_box = boxes.any(axis=1)
    has_refined = refined_boxes.any(axis=1) & (visibilities > FAINT)
    opacity = np.where(visibilities == FAINT, 0.5, 1.0)
    styles = np.where(visibilities == SOLID, "solid", "dotted")
    solid = np.full(len(styles), "solid")
    joints = np.stack([boxes[:, [1, 0]], refined_boxes[:, [1, 0]]], axis=1) - 0.5
    for lines, kept, style in (
        (figures.box_lines(boxes), has_box, styles),
        (figures.box_lines(refined_boxes), has_refined, solid),
        (joints, has_box & has_refined, solid),
    ):
        figures.add_lines(ax, lines[kept], colors[kept], opacity[kept], style[kept])
    if captions is not None:
        texts = instance_captions(visibilities, [], captions=captions)
        shown = [text if drawn else "" for text, drawn in zip(texts, has_box | has_refined, strict=True)]
        figures.write_captions(ax, np.where(has_refined[:, np.newaxis], refined_boxes, boxes), shown, colors)
    return figures.finish(figure, show=False)


def draw_rois(
    image: Image,
    rois: Boxes,
    refined_rois: Boxes,
    mask: np.ndarray,
    class_ids: ClassIds,
    class_names: Sequence[str],
    limit: int = 10,
) -> Figure:
    """Draw a random sample of RoIs (NumPy's global generator), and print how many of all are positive.

    Background RoIs are gray. Positive RoIs have their refined box (solid), class and mask.

    Args:
        image: Image of any kind (see `to_rgb`).
        rois: RoIs [N, 4] in pixels.
        refined_rois: RoIs [N, 4] after refinement.
        mask: Masks [N, mask height, mask width] in 0..1, relative to the RoI.
        class_ids: Class ids [N]; 0 is the background.
        class_names: A name for each class id, the background first.
        limit: Largest number of RoIs to draw.

    Returns:
        The figure.
    """
    class_ids = np.asarray(class_ids).reshape(-1)
    chosen = np.random.permutation(len(class_ids))[:limit]
    rois, refined_rois, mask = (np.asarray(values)[chosen] for values in (rois, refined_rois, mask))
    masks = np.zeros([*np.shape(image)[:2], len(chosen)], dtype=bool)
    for i, class_id in enumerate(class_ids[chosen]):
        if class_id > 0:
            masks[..., i] = _place_mask(mask[i], rois[i], masks.shape)
    positive = np.count_nonzero(class_ids > 0)
    negative = np.count_nonzero(class_ids == 0)
    print(f"Positive ROIs: {positive}")
    print(f"Negative ROIs: {negative}")
    print(f"Positive ratio: {positive / max(positive + negative, 1):.2f}")
    return draw_boxes(
        image,
        boxes=rois,
        refined_boxes=refined_rois,
        masks=masks,
        captions=[class_name(i, class_names) if i > 0 else "" for i in class_ids[chosen]],
        visibilities=np.where(class_ids[chosen] > 0, DOTTED, FAINT),
        title=f"{len(chosen)} of {len(class_ids)} RoIs",
    )


def _place_mask(mask: np.ndarray, box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale a small mask to its box in an image of this shape; bool [H, W]. Boxes may exceed the image."""
    y1, x1, y2, x2 = (int(value) for value in np.rint(box))
    full = np.zeros(shape[:2], dtype=bool)
    if y2 > y1 and x2 > x1:
        size = (y2 - y1, x2 - x1)
        scaled = mask_geometry.unmold_mask(mask, np.array([0, 0, *size]), (*size, 3))
        inside = full[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
        top, left = max(-y1, 0), max(-x1, 0)
        inside[...] = scaled[top : top + inside.shape[0], left : left + inside.shape[1]]
    return full


def _check_boxes(
    boxes: Boxes | None,
    refined_boxes: Boxes | None,
    masks: np.ndarray | None,
    captions: Sequence[str] | np.ndarray | None,
    visibilities: Sequence[int] | np.ndarray | None,
) -> tuple[Boxes, Boxes, np.ndarray]:
    """Return both kinds of boxes as float64 [N, 4], zero where missing, and visibilities as int [N]."""
    present = boxes if boxes is not None else refined_boxes
    if present is None:
        raise ValueError("Pass `boxes`, `refined_boxes` or both. Received: None for both")
    count = len(present)
    arguments = {
        "boxes": boxes,
        "refined_boxes": refined_boxes,
        "masks": masks,
        "captions": captions,
        "visibilities": visibilities,
    }
    lengths = {
        name: np.shape(values)[-1] if name == "masks" else len(values)
        for name, values in arguments.items()
        if values is not None
    }
    if any(length != count for length in lengths.values()):
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in lengths)} must have one entry per box. "
            f"Received lengths: {lengths}"
        )
    both = [
        np.zeros([count, 4]) if rows is None else np.asarray(rows, np.float64).reshape(count, 4)
        for rows in (boxes, refined_boxes)
    ]
    styles = np.full(count, DOTTED) if visibilities is None else np.asarray(visibilities).astype(int)
    return both[0], both[1], styles

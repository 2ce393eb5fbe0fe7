"""Draw instances on an image: masks, outlines, boxes and captions; compare predictions with ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.drawing.colors import Color
from mrcnn.evaluation import matching
from mrcnn.typing import Boxes, ClassIds, Image, Masks
from mrcnn.visualize import figures, overlays
from mrcnn.visualize.captions import class_legend, instance_captions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TEXTS = 50  # texts are matplotlib's slowest objects; beyond this, captions are painted as pixels
SCREEN_PIXELS = 800  # smaller images are magnified before lines and letters are painted
GROUND_TRUTH = (0.0, 0.75, 0.5)
PREDICTION = (0.95, 0.25, 0.1)


def magnification(image: Image) -> int:
    """Choose a whole-number factor that brings the longer side of an image to about 800 pixels."""
    return max(1, round(SCREEN_PIXELS / max(1, *np.shape(image)[:2])))


def display_instances(
    image: Image,
    boxes: Boxes,
    masks: overlays.AnyMasks | None,
    class_ids: ClassIds,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Axes | np.ndarray | None = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | np.ndarray | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
    *,
    show_outline: bool = True,
    color_by: str = "instance",
) -> Figure:
    """Show an image with its instances: mask, outline, dashed box, and "name score" or a caption.

    Args:
        image: Image of any kind (see `to_rgb`).
        boxes: Boxes [N, (y1, x1, y2, x2)] in pixels, y2 and x2 exclusive; rows of zeros are skipped.
        masks: Masks [H, W, N], `MaskCrops` or N run lengths, as `detect` returns them; or None.
        class_ids: Class ids [N].
        class_names: A name for each class id, the background first.
        scores: Scores [N] for the captions.
        title: Title of the figure.
        figsize: Width and height of a new figure in inches.
        ax: matplotlib axes to draw on. If None, a new figure is made and shown.
        show_mask: Whether to blend the masks.
        show_bbox: Whether to draw the boxes.
        colors: RGB colors [N, 3]; distinct ones by default.
        captions: Texts [N] to show instead of names and scores.
        show_outline: Whether to draw the outlines of the masks.
        color_by: "instance", or "class" to give a class one color in all images and to add a legend.

    Returns:
        The figure.

    Raises:
        ValueError: If boxes, masks and class_ids differ in length, masks and image differ in size, or there
            are fewer colors, captions or scores than boxes.
    """
    boxes, masks, class_ids = overlays.check_instances(image, boxes, masks, class_ids)
    colors = overlays.choose_colors(colors, class_ids, color_by)
    texts = instance_captions(class_ids, class_names, scores, captions)
    if len(boxes) == 0:
        print("No instances to display")
    is_shown = np.asarray(boxes.any(axis=1))
    has_text_objects = np.count_nonzero(is_shown) <= MAX_TEXTS
    canvas = overlays.overlay_instances(
        image,
        boxes,
        masks,
        class_ids,
        class_names,
        colors=colors,
        captions=texts,
        show_mask=show_mask,
        show_bbox=show_bbox,
        show_outline=show_outline,
        show_caption=not has_text_objects,
        scale=magnification(image),
    )
    figure, ax, is_own = figures.get_axes(ax, figsize)
    figures.show_canvas(ax, canvas, np.shape(image), margin=10, title=title)
    if color_by == "class":
        figures.add_legend(ax, *class_legend(class_ids[is_shown], class_names, colors[is_shown]))
    if has_text_objects:
        visible = [text if shown else "" for text, shown in zip(texts, is_shown, strict=True)]
        figures.write_captions(ax, boxes, visible, colors)
    return figures.finish(figure, show=is_own)


def display_differences(
    image: Image,
    gt_box: Boxes,
    gt_class_id: ClassIds,
    gt_mask: overlays.AnyMasks,
    pred_box: Boxes,
    pred_class_id: ClassIds,
    pred_score: Sequence[float] | np.ndarray,
    pred_mask: overlays.AnyMasks,
    class_names: Sequence[str],
    title: str = "",
    ax: Axes | np.ndarray | None = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Figure:
    """Show ground truth in green and predictions in red, with captions "score / IoU".

    The IoU of a prediction is the one with its matched ground truth, or the best one if nothing matches.

    Args:
        image: Image of any kind (see `to_rgb`).
        gt_box: Ground-truth boxes [G, 4] in pixels; rows of zeros are skipped.
        gt_class_id: Class ids [G].
        gt_mask: Masks [H, W, G], `MaskCrops` or G run lengths.
        pred_box: Predicted boxes [P, 4] in pixels, in any order; rows of zeros are skipped.
        pred_class_id: Class ids [P].
        pred_score: Scores [P].
        pred_mask: Masks [H, W, P], `MaskCrops` or P run lengths, as `detect` returns them.
        class_names: A name for each class id, the background first.
        title: Title of the figure.
        ax: matplotlib axes to draw on. If None, a new figure is made and shown.
        show_mask: Whether to blend the masks.
        show_box: Whether to draw the boxes.
        iou_threshold: Lowest IoU at which a prediction matches; see `compute_matches`.
        score_threshold: As in `compute_matches`, which compares it with the IoU.

    Returns:
        The figure.

    Raises:
        ValueError: If the counts differ within the ground truth or within the predictions.
    """
    gt_box, gt_mask, gt_class_id, _ = _sorted_instances(image, gt_box, gt_mask, gt_class_id)
    pred_box, pred_mask, pred_class_id, pred_score = _sorted_instances(
        image, pred_box, pred_mask, pred_class_id, pred_score
    )
    ious: np.ndarray = np.zeros(len(pred_box))
    if len(gt_box) and len(pred_box):
        # Decreasing ranks replace the sorted scores, so that ties stay in this order.
        ranks = np.arange(len(pred_box), 0, -1)
        predicted = (pred_box, pred_class_id, ranks, pred_mask)
        _, match, overlaps_with_gt = matching.compute_matches(
            gt_box, gt_class_id, gt_mask, *predicted, iou_threshold, score_threshold
        )
        match = np.asarray(match).astype(int)
        with_match = overlaps_with_gt[np.arange(len(match)), match]
        ious = np.where(match >= 0, with_match, overlaps_with_gt.max(axis=1))
    captions = [f"{score:.2f} / {iou:.2f}" for score, iou in zip(pred_score, ious, strict=True)]
    return display_instances(
        image,
        np.concatenate([gt_box, pred_box]),
        np.concatenate([gt_mask, pred_mask], axis=-1),
        np.concatenate([gt_class_id, pred_class_id]),
        class_names,
        title=title or "Ground truth: green, predictions: red, captions: score / IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[GROUND_TRUTH] * len(gt_box) + [PREDICTION] * len(pred_box),
        captions=[""] * len(gt_box) + captions,
    )


def _sorted_instances(
    image: Image,
    boxes: Boxes,
    masks: overlays.AnyMasks | None,
    class_ids: ClassIds,
    scores: Sequence[float] | np.ndarray | None = None,
) -> tuple[Boxes, Masks, ClassIds, np.ndarray]:
    """Return boxes, masks, class ids and scores without padding, the best score first."""
    boxes, masks, class_ids = overlays.check_instances(image, boxes, masks, class_ids)
    scores = np.zeros(len(boxes)) if scores is None else np.asarray(scores, dtype=np.float64)
    if len(scores) != len(boxes):
        raise ValueError(
            "`pred_score` must have one entry per prediction. "
            f"Received: len(pred_box)={len(boxes)}, len(pred_score)={len(scores)}"
        )
    order = np.argsort(-scores, kind="stable")
    order = order[boxes[order].any(axis=1)]
    masks = np.zeros([*np.shape(image)[:2], 0], bool) if masks is None else masks[..., order]
    return boxes[order], masks, class_ids[order], scores[order]

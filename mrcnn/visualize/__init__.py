"""Pictures of images, instances, boxes, scores and weights, with matplotlib.

matplotlib is imported at the first picture, so that importing this module is cheap on a server.
Pixels are painted by `mrcnn.visualize.overlays`; a figure holds one image, whatever the number of instances.

Images are [H, W, 3] RGB (others are converted, see `to_rgb`); boxes are [N, (y1, x1, y2, x2)] in
pixels, y2 and x2 outside; masks are [H, W, N] bool or integers; class id 0 is background.

Every function with a figure returns it, except in a notebook, where the figure is drawn below the
cell anyway and a returned one would be drawn a second time. A window is opened only for figures
made here, and only where there is a display.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.evaluation import matching
from mrcnn.geometry import masks as mask_geometry
from mrcnn.visualize import figures, labels, overlays
from mrcnn.visualize.colors import GREY, Color, instance_colors, random_colors
from mrcnn.visualize.overlays import apply_mask, draw_box, overlay_instances, to_rgb
from mrcnn.visualize.tables import display_table, display_weight_stats

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
    "overlay_instances",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
    "to_rgb",
]

MAX_TEXTS = 50  # texts are matplotlib's slowest objects; beyond this, captions are pixels
MAX_ZEROS = 1000  # in a heat map with more cells, only overlaps above 0 are written
SCREEN_PIXELS = 800  # smaller images are magnified before lines and letters are painted
GROUND_TRUTH = (0.0, 0.75, 0.5)
PREDICTION = (0.95, 0.25, 0.1)


def display_images(
    images: Sequence[np.ndarray] | np.ndarray,
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: Any = None,
    norm: Any = None,
    interpolation: str | None = None,
):
    """Show images in a grid with `cols` columns.

    images: each [H, W, 3] in any range (see `to_rgb`), or [H, W]: a mask, an index image or a
        feature map, whose values from 0 (or its minimum, if that is negative) to its maximum span
        the colour map.
    titles: one an image; missing ones are empty.
    cmap, norm, interpolation: as in matplotlib's `imshow`; cmap is grey by default.

    Returns the figure.
    """
    rows = max(1, math.ceil(len(images) / cols))
    figure = figures.pyplot().figure(figsize=(14, max(1, 14 * rows // cols)), layout="constrained")
    for i, image in enumerate(images):
        ax = figure.add_subplot(rows, cols, i + 1)
        ax.set_title(titles[i] if titles is not None and i < len(titles) else "", fontsize=9)
        ax.axis("off")
        image = np.asarray(image)
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3:
            ax.imshow(to_rgb(image), interpolation=interpolation)
            continue
        image = image.astype(np.float32)
        low, high = (0.0, 0.0) if image.size == 0 else (np.nanmin(image), np.nanmax(image))
        limits = {} if norm is not None else {"vmin": min(low, 0), "vmax": max(high, 0) or 1}
        ax.imshow(image, cmap=cmap or "gray", norm=norm, interpolation=interpolation, **limits)
    return figures.finish(figure, show=True)


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Any = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | np.ndarray | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
    show_outline: bool = True,
    color_by: str = "instance",
):
    """Show an image with its instances: mask, outline, dashed box, and "name score" or a caption.

    boxes: [N, 4]; rows of zeros are skipped. masks: [H, W, N], or None. class_ids: [N].
    class_names: a name for each id. scores: [N] or None; captions: [N] texts instead of names and
    scores. colors: [N] RGB, distinct ones by default.
    color_by: "class" gives a class one colour in all pictures and adds a legend of the classes.
    ax: axes to draw on; without it a figure of `figsize` inches is made and shown.

    Returns the figure.
    Raises ValueError if boxes, masks and class_ids differ in number, masks and image in size, or
    if there are fewer colors, captions or scores than boxes.
    """
    boxes, masks, class_ids = overlays.check_instances(image, boxes, masks, class_ids)
    colors = overlays.choose_colors(colors, class_ids, color_by)
    texts = labels.instance_captions(class_ids, class_names, scores, captions)
    if len(boxes) == 0:
        print("No instances to display")
    is_shown = np.asarray(boxes.any(axis=1))
    has_text_objects = np.count_nonzero(is_shown) <= MAX_TEXTS
    canvas = overlay_instances(
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
        scale=_magnification(image),
    )
    figure, ax, is_own = figures.get_axes(ax, figsize)
    figures.show_canvas(ax, canvas, np.shape(image), margin=10, title=title)
    if color_by == "class":
        figures.add_legend(ax, *labels.class_legend(class_ids[is_shown], class_names, colors[is_shown]))
    if has_text_objects:
        figures.write_captions(
            ax, boxes, [t if s else "" for t, s in zip(texts, is_shown, strict=True)], colors
        )
    return figures.finish(figure, show=is_own)


def display_differences(
    image: np.ndarray,
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    ax: Any = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
):
    """Show ground truth in green and predictions in red, captioned "score / IoU".

    gt_box, gt_class_id, gt_mask: G instances; pred_box, pred_class_id, pred_score, pred_mask: P, in
    any order. The IoU is that with the matched ground truth, or the best one if there is no match.
    iou_threshold, score_threshold: see `compute_matches`, which compares both with IoU.

    Returns the figure.
    Raises ValueError if the counts differ within ground truth or predictions.
    """
    gt_box, gt_mask, gt_class_id, _ = _present(image, gt_box, gt_mask, gt_class_id)
    pred_box, pred_mask, pred_class_id, pred_score = _present(
        image, pred_box, pred_mask, pred_class_id, pred_score
    )
    ious: np.ndarray = np.zeros(len(pred_box))
    if len(gt_box) and len(pred_box):
        # Falling ranks stand in for the sorted scores, so that no tie can be broken otherwise.
        ranks = np.arange(len(pred_box), 0, -1)
        predicted = (pred_box, pred_class_id, ranks, pred_mask)
        _, match, overlaps = matching.compute_matches(
            gt_box, gt_class_id, gt_mask, *predicted, iou_threshold, score_threshold
        )
        match = np.asarray(match).astype(int)
        with_match = overlaps[np.arange(len(match)), match]
        ious = np.where(match >= 0, with_match, overlaps.max(axis=1))
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


def draw_rois(
    image: np.ndarray,
    rois: np.ndarray,
    refined_rois: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 10,
):
    """Draw a random sample of ROIs (numpy's global generator), and print how many are positive.

    rois, refined_rois: [N, 4]; mask: [N, mh, mw] in 0..1, relative to the ROI; class_ids: [N].
    Background ROIs are grey; positive ones have their refined box (solid), class and mask.

    Returns the figure.
    """
    class_ids = np.asarray(class_ids).reshape(-1)
    chosen = np.random.permutation(len(class_ids))[:limit]
    rois, refined_rois, mask = (np.asarray(values)[chosen] for values in (rois, refined_rois, mask))
    pasted = np.zeros([*np.shape(image)[:2], len(chosen)], dtype=bool)
    for i, class_id in enumerate(class_ids[chosen]):
        if class_id > 0:
            pasted[..., i] = _paste(mask[i], rois[i], pasted.shape)
    positive = np.count_nonzero(class_ids > 0)
    negative = np.count_nonzero(class_ids == 0)
    print(f"Positive ROIs: {positive}")
    print(f"Negative ROIs: {negative}")
    print(f"Positive ratio: {positive / max(positive + negative, 1):.2f}")
    return draw_boxes(
        image,
        boxes=rois,
        refined_boxes=refined_rois,
        masks=pasted,
        captions=[labels.class_name(i, class_names) if i > 0 else "" for i in class_ids[chosen]],
        visibilities=(class_ids[chosen] > 0).astype(int),
        title=f"{len(chosen)} of {len(class_ids)} ROIs",
    )


def display_top_masks(
    image: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 4,
):
    """Show the image and, for the `limit` classes with the largest mask area, all their masks.

    mask: [H, W, N]; class_ids: [N]. The j-th instance of a class, counted from 1, adds j to the
    class's picture. Classes that are missing give an empty picture titled "-".

    Returns the figure.
    Raises ValueError if mask and class_ids differ in number.
    """
    mask, class_ids = overlays.to_bool(mask), np.asarray(class_ids).reshape(-1)
    if mask.shape[-1] != len(class_ids):
        raise ValueError(
            f"Every mask has a class id. Received: mask.shape={mask.shape}, class_ids={len(class_ids)}"
        )
    height, width = np.shape(image)[:2]
    areas = np.count_nonzero(mask, axis=(0, 1))
    totals = {i: areas[class_ids == i].sum() for i in np.unique(class_ids)}
    top = sorted((i for i in totals if totals[i] > 0), key=lambda i: -totals[i])[:limit]
    pictures, titles = [to_rgb(image)], [f"H x W={height}x{width}"]
    for class_id in top:
        numbers = np.zeros([height, width], np.int32)
        for j, i in enumerate(np.flatnonzero(class_ids == class_id), start=1):
            numbers[mask[..., i]] += j
        pictures.append(numbers)
        titles.append(labels.class_name(class_id, class_names))
    missing = limit - len(top)
    pictures += [np.zeros([height, width])] * missing
    titles += ["-"] * missing
    return display_images(pictures, titles, cols=limit + 1, cmap="Blues_r")


def plot_precision_recall(AP: float, precisions: np.ndarray, recalls: np.ndarray):
    """Plot the precision-recall curve of `compute_ap`; the title states AP@50.

    Returns the figure; does not show it.
    """
    figure, ax = figures.pyplot().subplots(1)
    ax.set_title(f"Precision-Recall Curve. AP@50 = {AP:.3f}")
    ax.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1.1), ylim=(0, 1.1))
    ax.plot(recalls, precisions)
    return figures.finish(figure, show=False)


def plot_overlaps(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str],
    threshold: float = 0.5,
):
    """Heat map of the IoU of predictions (rows) with ground truth (columns).

    gt_class_ids: [G]; pred_class_ids, pred_scores: [P], in the order of overlaps' rows; zeros are
    padding. overlaps: [P, G]. Cells above `threshold` say whether the classes agree; zeros are not
    written where there are more than 1000 cells.

    Returns the figure; does not show it.
    Raises ValueError if overlaps does not fit the ids.
    """
    gt_class_ids, pred_class_ids = np.asarray(gt_class_ids), np.asarray(pred_class_ids)
    overlaps = np.asarray(overlaps)
    gt_ids, pred_ids = gt_class_ids[gt_class_ids != 0], pred_class_ids[pred_class_ids != 0]
    if overlaps.shape == (len(pred_class_ids), len(gt_class_ids)):
        overlaps = overlaps[pred_class_ids != 0][:, gt_class_ids != 0]
    if overlaps.shape != (len(pred_ids), len(gt_ids)):
        raise ValueError(
            f"overlaps has a row for each of {len(pred_ids)} predictions and a column for each of "
            f"{len(gt_ids)} ground truths. Received: overlaps.shape={overlaps.shape}"
        )
    scores = np.asarray(pred_scores)[: len(pred_class_ids)][pred_class_ids != 0]
    figure, ax = figures.pyplot().subplots(1, figsize=(12, 10))
    if overlaps.size:
        ax.imshow(overlaps, cmap="Blues", vmin=0, aspect="auto")
    names = [labels.class_name(i, class_names) for i in pred_ids]
    row_names = [f"{name} ({score:.2f})" for name, score in zip(names, scores, strict=True)]
    ax.set_yticks(np.arange(len(pred_ids)), row_names)
    gt_names = [labels.class_name(i, class_names) for i in gt_ids]
    ax.set_xticks(np.arange(len(gt_ids)), gt_names, rotation=90)
    ax.set(xlabel="Ground truth", ylabel="Predictions")
    half = overlaps.max(initial=0) / 2
    for (i, j), iou in np.ndenumerate(overlaps):
        if iou == 0 and overlaps.size > MAX_ZEROS:
            continue
        verdict = ""
        if iou > threshold:
            verdict = "\nmatch" if pred_ids[i] == gt_ids[j] else "\nwrong"
        ink = "white" if iou > half else "black" if iou > 0 else "grey"
        ax.text(j, i, f"{iou:.3f}{verdict}", color=ink, ha="center", va="center", fontsize=9)
    figure.tight_layout()
    return figures.finish(figure, show=False)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
    visibilities: Sequence[int] | np.ndarray | None = None,
    title: str = "",
    ax: Any = None,
    colors: Sequence[Color] | np.ndarray | None = None,
):
    """Draw boxes before and after refinement, with their masks and captions.

    boxes, refined_boxes: [N, 4], at least one of them; where both are given, top-left corners are
    joined by a line. Rows of zeros are skipped. masks: [H, W, N].
    captions: [N], shown at the refined box where that is drawn, else at the box.
    visibilities: [N], 1 by default. 0: grey, dotted, faint, without the refined box; 1: coloured,
    dotted; 2: coloured, solid. Refined boxes are solid.
    ax: axes to draw on; without it a figure is made. Does not show it.
    colors: [N] RGB, distinct ones by default.

    Returns the figure.
    Raises ValueError without any boxes, or if the arguments differ in number.
    """
    boxes, refined_boxes, visibilities = _check_boxes(boxes, refined_boxes, masks, captions, visibilities)
    colors = instance_colors(colors, len(visibilities))
    colors[visibilities == 0] = GREY
    canvas = to_rgb(image)
    if masks is not None and len(visibilities):
        scale = _magnification(image)
        canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
        overlays.draw_masks(canvas, overlays.check_masks(image, masks), colors)
    figure, ax, _ = figures.get_axes(ax, (12, 12))
    figures.show_canvas(ax, canvas, np.shape(image), margin=np.shape(image)[0] // 10, title=title)
    has_box = boxes.any(axis=1)
    has_refined = refined_boxes.any(axis=1) & (visibilities > 0)
    opacity = np.where(visibilities == 0, 0.5, 1.0)
    styles = np.where(visibilities == 2, "solid", "dotted")
    solid = np.full(len(styles), "solid")
    joints = np.stack([boxes[:, [1, 0]], refined_boxes[:, [1, 0]]], axis=1) - 0.5
    for lines, kept, style in (
        (figures.box_lines(boxes), has_box, styles),
        (figures.box_lines(refined_boxes), has_refined, solid),
        (joints, has_box & has_refined, solid),
    ):
        figures.add_lines(ax, lines[kept], colors[kept], opacity[kept], style[kept])
    if captions is not None:
        texts = labels.instance_captions(visibilities, [], captions=captions)
        shown = [t if s else "" for t, s in zip(texts, has_box | has_refined, strict=True)]
        figures.write_captions(ax, np.where(has_refined[:, np.newaxis], refined_boxes, boxes), shown, colors)
    return figures.finish(figure, show=False)


def _magnification(image: np.ndarray) -> int:
    return max(1, round(SCREEN_PIXELS / max(1, *np.shape(image)[:2])))


def _present(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
    scores: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, masks, class ids and scores of the rows that are no padding, best score first."""
    boxes, masks, class_ids = overlays.check_instances(image, boxes, masks, class_ids)
    scores = np.zeros(len(boxes)) if scores is None else np.asarray(scores, dtype=np.float64)
    if len(scores) != len(boxes):
        raise ValueError(
            f"One score a prediction is wanted. Received: boxes={len(boxes)}, scores={len(scores)}"
        )
    order = np.argsort(-scores, kind="stable")
    order = order[boxes[order].any(axis=1)]
    masks = np.zeros([*np.shape(image)[:2], 0], bool) if masks is None else masks[..., order]
    return boxes[order], masks, class_ids[order], scores[order]


def _paste(mask: np.ndarray, box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A small mask in its box, as bool of the image's shape; what sticks out is cut off."""
    y1, x1, y2, x2 = (int(value) for value in np.rint(box))
    pasted = np.zeros(shape[:2], dtype=bool)
    if y2 > y1 and x2 > x1:
        size = (y2 - y1, x2 - x1)
        whole = mask_geometry.unmold_mask(mask, np.array([0, 0, *size]), (*size, 3))
        target = pasted[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
        top, left = max(-y1, 0), max(-x1, 0)
        target[...] = whole[top : top + target.shape[0], left : left + target.shape[1]]
    return pasted


def _check_boxes(
    boxes: np.ndarray | None,
    refined_boxes: np.ndarray | None,
    masks: np.ndarray | None,
    captions: Sequence[str] | np.ndarray | None,
    visibilities: Sequence[int] | np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both kinds of boxes as float64 [N, 4], missing ones zero, and visibilities as int [N]."""
    given = boxes if boxes is not None else refined_boxes
    if given is None:
        raise ValueError("Give `boxes`, `refined_boxes` or both. Received: None for both")
    count = len(given)
    lengths = {
        "boxes": boxes if boxes is None else len(boxes),
        "refined_boxes": refined_boxes if refined_boxes is None else len(refined_boxes),
        "masks": masks if masks is None else np.shape(masks)[-1],
        "captions": captions if captions is None else len(captions),
        "visibilities": visibilities if visibilities is None else len(visibilities),
    }
    if any(length not in (None, count) for length in lengths.values()):
        raise ValueError(f"What is drawn at the boxes is one a box. Received: {lengths}")
    both = [
        np.zeros([count, 4]) if rows is None else np.asarray(rows, np.float64).reshape(count, 4)
        for rows in (boxes, refined_boxes)
    ]
    shown = np.ones(count, int) if visibilities is None else np.asarray(visibilities).astype(int)
    return both[0], both[1], shown

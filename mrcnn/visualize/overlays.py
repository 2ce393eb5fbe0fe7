"""Paint masks, outlines, boxes and captions into image arrays with OpenCV.

This module needs neither a display nor matplotlib, so it works on servers, for videos, and for images with
thousands of instances. The other modules of `mrcnn.visualize` put the results into figures.

Images are [H, W, channels], RGB. Boxes are [N, (y1, x1, y2, x2)] in pixels, y2 and x2 exclusive. Masks are
[H, W, N], `MaskCrops` or N run lengths: the three forms in which `detect` returns masks. Colors are RGB
triples in 0..1 unless stated otherwise.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from mrcnn.drawing.colors import Color, class_colors, instance_colors, to_255
from mrcnn.drawing.masks import apply_mask as apply_mask
from mrcnn.drawing.masks import draw_masks, line_width, to_bool, to_rgb
from mrcnn.geometry import rle
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.typing import Boxes, ClassIds, Image, Masks
from mrcnn.visualize.captions import class_legend, draw_captions, draw_legend, instance_captions

COLOR_BY = ("instance", "class")
# Masks [H, W, N] of any type, cropped masks, or N COCO run lengths.
AnyMasks: TypeAlias = np.ndarray | MaskCrops | Sequence[rle.RunLengths]


def whole_masks(image: Image, masks: AnyMasks) -> np.ndarray:
    """Return masks of any form as [H, W, N]. Arrays are returned unchanged.

    Args:
        image: The image of the masks, [H, W] or [H, W, channels].
        masks: The masks.

    Raises:
        InvalidDataError: If run lengths do not have the size of the image. This is a ValueError.
    """
    if isinstance(masks, MaskCrops):
        return masks.whole()
    if isinstance(masks, (list, tuple)) and all(isinstance(code, dict) for code in masks):
        height, width = np.shape(image)[:2]
        whole = np.zeros((len(masks), height, width), dtype=bool)
        for mask, code in zip(whole, masks, strict=True):
            mask[...] = rle.decode(code, (height, width))
        return whole.transpose(1, 2, 0)
    return np.asarray(masks)


def check_instances(
    image: Image,
    boxes: Boxes | Sequence[Sequence[float]],
    masks: AnyMasks | None,
    class_ids: np.ndarray | Sequence[int],
) -> tuple[Boxes, Masks | None, ClassIds]:
    """Convert instances to arrays and check that they agree with each other and with the image.

    Args:
        image: Image [H, W] or [H, W, channels].
        boxes: Boxes [N, 4] of any number type.
        masks: Masks of any form and type, or None.
        class_ids: Class ids [N].

    Returns:
        boxes int64 [N, 4] (rounded), masks bool [H, W, N] or None, and class_ids [N].

    Raises:
        ValueError: If the counts differ, or the masks do not have the size of the image.
    """
    class_ids = np.asarray(class_ids).reshape(-1)
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"`boxes` must have shape (instances, 4). Received: boxes.shape={boxes.shape}")
    count = len(boxes)
    masks = None if masks is None else whole_masks(image, masks)
    mask_count = count if masks is None else masks.shape[-1]
    if not count == mask_count == len(class_ids):
        raise ValueError(
            "`boxes`, `masks` and `class_ids` must have the same number of instances. "
            f"Received: boxes={count}, masks={mask_count}, class_ids={len(class_ids)}"
        )
    boxes = np.rint(boxes).astype(np.int64)
    if masks is None or count == 0:
        return boxes, None, class_ids
    return boxes, check_masks(image, masks), class_ids


def check_masks(image: Image, masks: np.ndarray) -> Masks:
    """Convert masks to bool [H, W, N] and check that they have the size of the image.

    Raises:
        ValueError: If their size differs from the image's.
    """
    masks = to_bool(masks)
    if masks.ndim != 3 or masks.shape[:2] != np.shape(image)[:2]:
        raise ValueError(
            "`masks` must have shape (height, width, instances), with the height and width of the image. "
            "Bring mini-masks to that size with `mrcnn.utils.expand_mask`. "
            f"Received: masks.shape={masks.shape}, image.shape={np.shape(image)}"
        )
    return masks


def draw_box(image: np.ndarray, box: np.ndarray, color: Color) -> np.ndarray:
    """Paint the border of a box, 2 pixels thick, into the image in place.

    The lines take rows y1, y1+1, y2, y2+1 and columns x1, x1+1, x2, x2+1. Parts outside the image are left
    out.

    Args:
        image: [H, W, channels] or [H, W], changed in place.
        box: (y1, x1, y2, x2) in pixels.
        color: One value per channel, in the range of the image.

    Returns:
        The image itself.
    """
    y1, x1, y2, x2 = (int(value) for value in box)
    rows, columns = (slice(max(a, 0), max(b, 0)) for a, b in ((y1, y2), (x1, x2)))
    for y in (y1, y2):
        image[max(y, 0) : max(y + 2, 0), columns] = color
    for x in (x1, x2):
        image[rows, max(x, 0) : max(x + 2, 0)] = color
    return image


def overlay_instances(
    image: Image,
    boxes: Boxes,
    masks: AnyMasks | None,
    class_ids: ClassIds,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    *,
    colors: Sequence[Color] | np.ndarray | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    show_outline: bool = True,
    show_caption: bool = True,
    alpha: float = 0.5,
    scale: int = 1,
    color_by: str = "instance",
) -> np.ndarray:
    """Paint masks, outlines, dashed boxes and captions onto a copy of an image.

    Captions are painted in ASCII: accents are dropped, and other letters become question marks. With more
    than 50 captions, those wider than their box or without a free position are left out.

    Args:
        image: Image of any kind (see `to_rgb`).
        boxes: Boxes [N, 4] in pixels; rows of zeros are skipped.
        masks: Masks in any form that `detect` returns, or None.
        class_ids: Class ids [N].
        class_names: A name for each class id, the background first.
        scores: Scores [N] for the captions.
        colors: Colors [N, 3]; distinct ones by default.
        captions: Texts [N] to show instead of names and scores.
        show_mask: Whether to blend the masks.
        show_bbox: Whether to draw the boxes.
        show_outline: Whether to draw the outlines of the masks.
        show_caption: Whether to write the captions.
        alpha: Opacity of the masks.
        scale: Whole-number magnification, so that lines and letters are thin on small images.
        color_by: "instance", or "class" to give a class one color in all images and to add a legend of the
            classes with their counts. `colors` take precedence.

    Returns:
        An RGB image [H * scale, W * scale, 3], uint8. Any image writer can save it (OpenCV expects BGR).

    Raises:
        ValueError: If the arguments describe different numbers of instances.
    """
    boxes, masks, class_ids = check_instances(image, boxes, masks, class_ids)
    colors = choose_colors(colors, class_ids, color_by)
    texts = instance_captions(class_ids, class_names, scores, captions) if show_caption else []
    canvas = to_rgb(image)
    if scale > 1:
        canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
    is_shown = np.asarray(boxes.any(axis=1))
    if masks is not None:
        shown_masks = masks if is_shown.all() else masks[..., is_shown]
        draw_masks(canvas, shown_masks, colors[is_shown], alpha=alpha, fill=show_mask, outline=show_outline)
    boxes = boxes[is_shown] * scale
    if show_bbox:
        for box, color in zip(boxes, colors[is_shown], strict=True):
            draw_dashed_box(canvas, box, to_255(color))
    shown_texts = [text for text, shown in zip(texts, is_shown, strict=False) if shown]
    draw_captions(canvas, boxes, shown_texts, colors[is_shown])
    if color_by == "class":
        draw_legend(canvas, *class_legend(class_ids[is_shown], class_names, colors[is_shown]))
    return canvas


def choose_colors(
    colors: Sequence[Color] | np.ndarray | None, class_ids: ClassIds, color_by: str
) -> np.ndarray:
    """Choose the colors of instances: the given ones, or else one per instance or class.

    Args:
        colors: Colors [N, 3], or None.
        class_ids: Class ids [N].
        color_by: "instance" or "class".

    Returns:
        RGB colors [N, 3], float64 in 0..1.

    Raises:
        ValueError: If `color_by` is not valid, or there are fewer colors than instances.
    """
    if color_by not in COLOR_BY:
        raise ValueError(f"`color_by` must be one of {COLOR_BY}. Received: color_by={color_by!r}")
    if colors is None and color_by == "class":
        return class_colors(class_ids)
    return instance_colors(colors, len(class_ids))


def draw_dashed_box(canvas: np.ndarray, box: np.ndarray, color: Color) -> None:
    """Paint the dashed border of a box just inside its edges, in place; parts outside are left out.

    Args:
        canvas: uint8 image [H, W, 3], changed in place.
        box: (y1, x1, y2, x2) in pixels of the canvas.
        color: One value per channel, 0..255.
    """
    y1, x1, y2, x2 = box
    width = line_width(canvas)
    dash = 4 * width
    rows = np.arange(max(y1, 0), min(y2, canvas.shape[0]))
    columns = np.arange(max(x1, 0), min(x2, canvas.shape[1]))
    rows = rows[(rows - y1) // dash % 2 == 0]
    columns = columns[(columns - x1) // dash % 2 == 0]
    for y in (y1, y2 - width):
        canvas[max(y, 0) : max(y + width, 0), columns] = color
    for x in (x1, x2 - width):
        canvas[rows, max(x, 0) : max(x + width, 0)] = color

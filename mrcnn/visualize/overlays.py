"""Masks, outlines, boxes and captions painted into image arrays with OpenCV: arrays in, arrays out.

Nothing here needs a display or matplotlib, so it works on servers, for videos and for images with thousands
of instances. The other files of `mrcnn.visualize` put the results into figures.

Images are [H, W, channels], RGB. Boxes are [N, (y1, x1, y2, x2)] in pixels, y2 and x2 exclusive. Masks are
[H, W, N]. Colors are RGB triples in 0..1 unless a function says otherwise.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.geometry import masks as mask_geometry
from mrcnn.typing import Boxes, ClassIds, Image, Masks
from mrcnn.visualize.captions import class_legend, draw_captions, draw_legend, instance_captions
from mrcnn.visualize.colors import Color, class_colors, instance_colors, to_255

COLOR_BY = ("instance", "class")


def to_rgb(image: Image) -> np.ndarray:
    """Convert an image of any kind to the uint8 RGB image that a person expects to see.

    Args:
        image: [H, W] or [H, W, channels]. Images of one or two channels are shown in gray (the first
            channel), of more than three channels the first three are shown (alpha is dropped). uint8 is
            kept. Bool and floats up to 1 (with 50 % tolerance for overshoot) span 0..1, other numbers up
            to 255 span 0..255, larger ones (uint16) 0..maximum. Clearly negative values, as in an image
            whose mean is subtracted, make the range minimum..maximum. NaN becomes black.

    Returns:
        A new array [H, W, 3], uint8.

    Raises:
        ValueError: If the array has another number of axes or no channel.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[2] == 0:
        raise ValueError(
            "`image` must have shape (height, width) or (height, width, channels). "
            f"Received: image.shape={image.shape}"
        )
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if image.dtype == np.uint8 or image.size == 0:
        return np.array(image, dtype=np.uint8, order="C")
    values = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    is_unit = image.dtype == bool or (image.dtype.kind == "f" and high <= 1.5)
    limit = 1.0 if is_unit else max(255.0, high)
    if low < -0.05 * limit:
        span = max(high - low, float(np.finfo(np.float32).tiny))
        values = (values - low) * (255.0 / span)
    else:
        values = values * (255.0 / limit)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def to_bool(mask: np.ndarray) -> np.ndarray:
    """Convert a mask of any type to bool: nonzero is inside; floats are probabilities, inside from 0.5."""
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    return mask >= 0.5 if mask.dtype.kind == "f" else mask != 0


def check_instances(
    image: Image,
    boxes: Boxes | Sequence[Sequence[float]],
    masks: np.ndarray | None,
    class_ids: np.ndarray | Sequence[int],
) -> tuple[Boxes, Masks | None, ClassIds]:
    """Convert instances to arrays and check that they agree with each other and with the image.

    Args:
        image: Image [H, W] or [H, W, channels].
        boxes: Boxes [N, 4] of any number type.
        masks: Masks [H, W, N] of any type, or None.
        class_ids: Class ids [N].

    Returns:
        boxes int64 [N, 4] (rounded), masks bool [H, W, N] or None, and class_ids [N].

    Raises:
        ValueError: If the counts differ, or the masks have another size than the image.
    """
    class_ids = np.asarray(class_ids).reshape(-1)
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"`boxes` must have shape (instances, 4). Received: boxes.shape={boxes.shape}")
    count = len(boxes)
    mask_count = count if masks is None else np.shape(masks)[-1]
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


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a color into the image inside a mask, in place.

    Each channel becomes `channel * (1 - alpha) + alpha * color * 255`, truncated for integers.

    Args:
        image: [H, W, 3 or more], values 0..255 of any type, changed in place. The first three channels
            are blended.
        mask: [H, W], bool, integers or probabilities (see `to_bool`).
        color: RGB in 0..1.
        alpha: Opacity of the color.

    Returns:
        The image itself.

    Raises:
        ValueError: If the image has fewer than three channels, or the mask another size.
    """
    inside = to_bool(mask)
    if image.ndim != 3 or image.shape[2] < 3 or inside.shape != image.shape[:2]:
        raise ValueError(
            "`image` must have shape (height, width, 3) and `mask` the same height and width. "
            f"Received: image.shape={image.shape}, mask.shape={inside.shape}"
        )
    rgb = image[..., :3]
    tint = alpha * np.asarray(color, dtype=np.float64)[:3] * 255
    rgb[inside] = (rgb[inside] * (1.0 - alpha) + tint).astype(image.dtype)
    return image


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


def draw_masks(
    canvas: np.ndarray,
    masks: Masks,
    colors: np.ndarray,
    *,
    alpha: float = 0.5,
    fill: bool = True,
    outline: bool = True,
) -> None:
    """Blend masks into the canvas and draw their outlines, in place; small masks end up on top.

    Args:
        canvas: uint8 image [H * scale, W * scale, 3], changed in place; scale is a whole number.
        masks: Masks [H, W, N].
        colors: Colors [N, 3].
        alpha: Opacity of the masks.
        fill: Whether to blend the masks.
        outline: Whether to draw the outlines.
    """
    scale = canvas.shape[0] // masks.shape[0]
    extents = mask_geometry.extract_bboxes(masks)
    areas = (extents[:, 2] - extents[:, 0]) * (extents[:, 3] - extents[:, 1])
    pieces = []
    for i in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]:
        y1, x1, y2, x2 = extents[i]
        piece = masks[y1:y2, x1:x2, i].repeat(scale, axis=0).repeat(scale, axis=1)
        pieces.append((y1 * scale, x1 * scale, piece, colors[i]))
    if fill:
        for y, x, piece, color in pieces:
            apply_mask(canvas[y : y + len(piece), x : x + piece.shape[1]], piece, color, alpha)
    if outline:
        width = line_width(canvas)
        for y, x, piece, color in pieces:
            # CCOMP also finds the borders of holes; OpenCV counts (x, y).
            contours, _ = cv2.findContours(piece.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            offset = (int(x), int(y))
            cv2.drawContours(canvas, contours, -1, to_255(color), width, offset=offset)


def line_width(canvas: np.ndarray) -> int:
    """Choose a line width, in pixels, that stays visible when the whole canvas is on a screen."""
    return max(1, round(int(max(canvas.shape[:2])) / 500))


def overlay_instances(
    image: Image,
    boxes: Boxes,
    masks: np.ndarray | None,
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

    Captions are painted in ASCII: accents are dropped, other letters become question marks. With more than
    50 captions, those wider than their box or without a free position are left out.

    Args:
        image: Image of any kind (see `to_rgb`).
        boxes: Boxes [N, 4] in pixels; rows of zeros are skipped.
        masks: Masks [H, W, N], or None.
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
        scale: Whole-number magnification, so that lines and letters are fine on small images.
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
    """Choose the colors of instances: those of the caller, else one per instance or one per class.

    Args:
        colors: Colors [N, 3], or None.
        class_ids: Class ids [N].
        color_by: "instance" or "class".

    Returns:
        RGB colors [N, 3], float64 in 0..1.

    Raises:
        ValueError: If `color_by` is another word, or there are fewer colors than instances.
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

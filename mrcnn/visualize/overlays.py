"""Masks, outlines, boxes and labels painted into image arrays with OpenCV: arrays in, arrays out.

Nothing here needs a display or matplotlib, so it serves servers, videos and pictures with thousands
of instances; `mrcnn.visualize` puts the results into figures.

Images are [H, W, channels], RGB; boxes are [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside;
masks are [H, W, N]; colours are RGB triples in 0..1 unless a function says otherwise.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.geometry import masks as mask_geometry
from mrcnn.visualize.colors import Color, class_colors, instance_colors, to_255
from mrcnn.visualize.labels import class_legend, draw_labels, draw_legend, instance_captions

COLOR_BY = ("instance", "class")


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Any image as the uint8 RGB picture a person expects to see; always a new array.

    image: [H, W] or [H, W, channels]; one or two channels are shown as grey (the first), of more
        than three the first three are shown (alpha is dropped).
        uint8 is kept. Bool and floats up to 1 (with 50 % tolerance for overshoot) span 0..1, other
        numbers up to 255 span 0..255, larger ones (uint16) 0..maximum. Clearly negative values,
        as in an image without its mean, make the range minimum..maximum. NaN becomes black.

    Returns [H, W, 3] uint8.
    Raises ValueError if the array is no image.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[2] == 0:
        raise ValueError(f"An image has the shape [H, W] or [H, W, channels]. Received: shape={image.shape}")
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
    """A mask of any type as bool: non-zero is inside; floats are probabilities, inside from 0.5."""
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    return mask >= 0.5 if mask.dtype.kind == "f" else mask != 0


def check_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Instances as arrays that agree with each other and with the image.

    boxes: [N, 4] of any number type. masks: [H, W, N] of any type, or None for boxes alone.
    class_ids: [N].

    Returns boxes [N, 4] int64 (rounded), masks [H, W, N] bool or None, class_ids [N].
    Raises ValueError if the counts differ or the masks have another size than the image.
    """
    class_ids = np.asarray(class_ids).reshape(-1)
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"Boxes have the shape [N, 4]. Received: boxes.shape={boxes.shape}")
    count = len(boxes)
    mask_count = count if masks is None else np.shape(masks)[-1]
    if not count == mask_count == len(class_ids):
        raise ValueError(
            "Boxes, masks and class ids describe the same instances, so their counts are equal. "
            f"Received: boxes={count}, masks={mask_count}, class_ids={len(class_ids)}"
        )
    boxes = np.rint(boxes).astype(np.int64)
    if masks is None or count == 0:
        return boxes, None, class_ids
    masks = check_masks(image, masks)
    return boxes, masks, class_ids


def check_masks(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Masks as bool [H, W, N].

    Raises ValueError if their size differs from the image's.
    """
    masks = to_bool(masks)
    if masks.ndim != 3 or masks.shape[:2] != np.shape(image)[:2]:
        raise ValueError(
            "Masks have the shape [H, W, N] with the image's height and width; mini masks are "
            f"brought to it by utils.expand_mask. Received: masks.shape={masks.shape}, "
            f"image.shape={np.shape(image)}"
        )
    return masks


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a colour into the image where the mask is; the image is changed in place.

    image: [H, W, 3 or more], values 0..255 of any type; the first three channels are blended.
    mask: [H, W], see `to_bool`. color: RGB in 0..1. alpha: share of the colour.

    Returns the image itself: channel * (1 - alpha) + alpha * color * 255, truncated for integers.
    Raises ValueError if the image has no three channels or the mask another size.
    """
    inside = to_bool(mask)
    if image.ndim != 3 or image.shape[2] < 3 or inside.shape != image.shape[:2]:
        raise ValueError(
            "A colour is blended into [H, W, 3] images with a mask [H, W]. "
            f"Received: image.shape={image.shape}, mask.shape={inside.shape}"
        )
    rgb = image[..., :3]
    tint = alpha * np.asarray(color, dtype=np.float64)[:3] * 255
    rgb[inside] = (rgb[inside] * (1.0 - alpha) + tint).astype(image.dtype)
    return image


def draw_box(image: np.ndarray, box: np.ndarray, color: Color) -> np.ndarray:
    """Paint the border of a box, 2 pixels thick, into the image in place.

    The lines take rows y1, y1+1, y2, y2+1 and columns x1, x1+1, x2, x2+1; what lies outside the
    image is left out. color: one value a channel, in the image's own range.

    Returns the image itself.
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
    masks: np.ndarray,
    colors: np.ndarray,
    alpha: float = 0.5,
    fill: bool = True,
    outline: bool = True,
) -> None:
    """Blend masks into the canvas and draw their outlines, in place; small masks end up on top.

    canvas: [H * s, W * s, 3] uint8 for masks [H, W, N] bool, s a whole number. colors: [N, 3].
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
    """The width of lines, in pixels, that stays visible when the whole canvas is on a screen."""
    return max(1, round(max(canvas.shape[:2]) / 500))


def overlay_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
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
    """A copy of the image with masks, outlines, dashed boxes and labels painted onto its pixels.

    image: see `to_rgb`. boxes: [N, 4], rows of zeros are skipped. masks: [H, W, N] or None.
    class_ids: [N]. class_names: a name for each id, background first. scores, captions: see
    `instance_captions`. colors: see `instance_colors`. alpha: opacity of the masks.
    scale: whole-number magnification, so that lines and letters are fine on small images.
    color_by: "class" gives a class one colour in all pictures, and adds a legend of the classes and
    their counts; without effect on colours that are given.
    Labels know ASCII only: accents are dropped, other letters become question marks. Of more than
    50 labels, those wider than their box or without a free place are left out.

    Returns [H * scale, W * scale, 3] uint8; save it with any image writer (OpenCV wants BGR).
    Raises ValueError if the arguments describe different numbers of instances.
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
        draw_masks(canvas, shown_masks, colors[is_shown], alpha, show_mask, show_outline)
    boxes = boxes[is_shown] * scale
    if show_bbox:
        for box, color in zip(boxes, colors[is_shown], strict=True):
            draw_dashed_box(canvas, box, to_255(color))
    shown_texts = [text for text, shown in zip(texts, is_shown, strict=False) if shown]
    draw_labels(canvas, boxes, shown_texts, colors[is_shown])
    if color_by == "class":
        draw_legend(canvas, *class_legend(class_ids[is_shown], class_names, colors[is_shown]))
    return canvas


def choose_colors(
    colors: Sequence[Color] | np.ndarray | None, class_ids: np.ndarray, color_by: str
) -> np.ndarray:
    """The colours [N, 3] of instances: those given, else one an instance or one a class.

    Raises ValueError for another `color_by`, or fewer colours than instances.
    """
    if color_by not in COLOR_BY:
        raise ValueError(f"color_by must be one of {COLOR_BY}. Received: color_by={color_by!r}")
    if colors is None and color_by == "class":
        return class_colors(class_ids)
    return instance_colors(colors, len(class_ids))


def draw_dashed_box(canvas: np.ndarray, box: np.ndarray, color: Color) -> None:
    """Paint the dashed border of a box just inside its edges, in place.

    canvas: [H, W, 3] uint8. color: one value a channel, 0..255. Parts outside are left out.
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

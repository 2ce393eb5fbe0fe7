"""Masks and their outlines, painted into image arrays with OpenCV.

Images are [H, W, channels], RGB. Masks are [H, W, N]. Colors are RGB triples in 0..1.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.drawing.colors import Color, to_255
from mrcnn.geometry import masks as mask_geometry
from mrcnn.typing import Box, Image, Masks


def to_rgb(image: Image) -> np.ndarray:
    """Convert an image of any kind to a uint8 RGB image as a person expects to see it.

    Args:
        image: [H, W] or [H, W, channels]. Images of one or two channels are shown in gray (the first
            channel), of more than three channels the first three are shown (alpha is dropped). uint8 is
            kept. Bool and floats up to 1 (with 50% tolerance for overshoot) span 0..1, other numbers up
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


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a color into an image inside a mask, in place.

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
    extents = mask_geometry.extract_bboxes(masks).tolist()
    pieces = [((y1, x1, y2, x2), masks[y1:y2, x1:x2, i]) for i, (y1, x1, y2, x2) in enumerate(extents)]
    scale = canvas.shape[0] // masks.shape[0]
    draw_crops(canvas, pieces, colors, scale=scale, alpha=alpha, fill=fill, outline=outline)


def draw_crops(
    canvas: np.ndarray,
    crops: Sequence[tuple[Box, np.ndarray]],
    colors: np.ndarray,
    *,
    scale: int = 1,
    alpha: float = 0.5,
    fill: bool = True,
    outline: bool = True,
) -> None:
    """Draw cropped masks as `draw_masks` does, without whole masks.

    Args:
        canvas: uint8 image [H * scale, W * scale, 3], changed in place.
        crops: For each mask its box (y1, x1, y2, x2) and the bool pixels [y2 - y1, x2 - x1].
        colors: Colors [N, 3].
        scale: Pixels of the canvas for each pixel of a mask.
        alpha: Opacity of the masks.
        fill: Whether to blend the masks.
        outline: Whether to draw the outlines.
    """
    areas = np.array([crop.size for _, crop in crops], dtype=np.int64)
    pieces = []
    for i in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]:
        (y, x, _, _), crop = crops[i]
        piece = crop.repeat(scale, axis=0).repeat(scale, axis=1)
        pieces.append((y * scale, x * scale, piece, colors[i]))
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
    """Choose a line width, in pixels, that is visible when the whole canvas fits on a screen."""
    return max(1, round(int(max(canvas.shape[:2])) / 500))

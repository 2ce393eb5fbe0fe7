"""Instance masks: their boxes, their overlap, and their small copies.

Full masks are bool [H, W, instances]. A mini-mask is the part of a mask inside its box at a fixed
small size; it saves memory at the price of a coarser outline.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.geometry import images, interpolation

# Pixels counted at a time by `compute_overlaps_masks`; bounds its memory.
PIXELS_AT_A_TIME = 1 << 15

COLUMNS_AT_A_TIME = 16


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """The tight box around each mask.

    mask: [H, W, N], any dtype; what is not zero is inside.

    Returns int32 [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside; zeros for an empty mask.
    Raises ValueError if `mask` has not three axes.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(
            "extract_bboxes wants masks [height, width, instances]. "
            f"Received: mask of shape {mask.shape}. Add the axis of instances."
        )
    inside = mask if mask.dtype == bool else mask != 0
    y1, y2 = _extent(_any_in_row(inside))
    x1, x2 = _extent(np.any(inside, axis=0))
    return np.stack([y1, x1, y2, x2], axis=1).astype(np.int32)


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask of one set with every mask of another.

    masks1: [H, W, N1], masks2: [H, W, N2]; a pixel is inside where its value is above 0.5.

    Returns [N1, N2] float32; NaN for two empty masks. If either set has no mask, float64 zeros.
    Raises ValueError if the masks belong to images of different shape.
    """
    masks1, masks2 = np.asarray(masks1), np.asarray(masks2)
    if masks1.shape[-1] == 0 or masks2.shape[-1] == 0:
        return np.zeros((masks1.shape[-1], masks2.shape[-1]))
    if masks1.shape[:-1] != masks2.shape[:-1]:
        raise ValueError(
            "The overlap of masks wants masks of one image shape. Received: "
            f"masks1 of shape {masks1.shape}, masks2 of shape {masks2.shape}."
        )
    # Counts of a part are exact in float32, their sum over a large image only in float64.
    intersection = np.zeros((masks1.shape[-1], masks2.shape[-1]))
    area1, area2 = np.zeros(masks1.shape[-1]), np.zeros(masks2.shape[-1])
    rows = max(1, PIXELS_AT_A_TIME // max(1, masks1.shape[1]))
    for start in range(0, len(masks1), rows):
        part1, part2 = (_inside(masks[start : start + rows]) for masks in (masks1, masks2))
        intersection += part1.T @ part2
        ones = np.ones(len(part1), dtype=np.float32)  # a product sums over this axis the fastest
        area1 += ones @ part1
        area2 += ones @ part2
    union = area1[:, None] + area2[None, :] - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        return (intersection / union).astype(np.float32)


def label_image(masks: np.ndarray, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """One image in which every pixel names its instance.

    masks: bool [H, W, N]; scores: [N]. A pixel of several masks goes to the best-scored; of equal scores to
    the first.

    Returns int32 [H, W]: 0 outside, i + 1 on mask i. A mask wholly under better ones leaves no pixel.
    """
    labels = np.zeros(masks.shape[:2], dtype=np.int32)
    for index in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        labels[masks[..., index].astype(bool)] = index + 1
    return labels


def non_max_suppression_masks(
    masks: np.ndarray, bbox: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float
) -> np.ndarray:
    """Greedy suppression of instances by the overlap of their masks, class by class.

    masks: bool [H, W, N]; bbox: int [N, (y1, x1, y2, x2)] in pixels, which hold the masks; scores, class_ids:
    [N]; threshold: mask IoU with a better instance of the class above which one is dropped.

    Returns the indices of those kept, best score first; of equal scores the first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    areas = np.count_nonzero(masks, axis=(0, 1))
    kept: list[int] = []
    for index in order:
        y1, x1, y2, x2 = bbox[index]
        own = masks[y1:y2, x1:x2, index]
        others = [
            other
            for other in kept
            if class_ids[other] == class_ids[index]
            and max(y1, bbox[other][0]) < min(y2, bbox[other][2])
            and max(x1, bbox[other][1]) < min(x2, bbox[other][3])
        ]
        common = [np.count_nonzero(own & masks[y1:y2, x1:x2, other]) for other in others]
        if all(
            part <= threshold * (areas[index] + areas[other] - part)
            for part, other in zip(common, others, strict=True)
        ):
            kept.append(int(index))
    return np.array(kept, dtype=int)


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Cut each mask to its box and resize it to a small fixed size.

    bbox: int [N, (y1, x1, y2, x2), ...] in pixels, y2 and x2 outside; further columns are ignored.
    mask: [H, W, N]; what is not zero is inside. mini_shape: (height, width).

    Returns bool [mini height, mini width, N]: the bilinear value is above 0.5.
    Raises ValueError if the numbers of boxes and masks differ or a box contains no pixel.
    """
    bbox, mask = np.asarray(bbox), np.asarray(mask)
    _check_counts(bbox, mask)
    mini_mask = np.zeros((*mini_shape, mask.shape[-1]), dtype=bool)
    for i, (y1, x1, y2, x2) in enumerate(bbox[:, :4]):
        cut = mask[y1:y2, x1:x2, i]
        if cut.size == 0:
            raise ValueError(
                "minimize_mask wants boxes that contain pixels of the mask. Received: instance "
                f"{i} with box {[int(v) for v in bbox[i, :4]]} in a mask of {mask.shape[:2]}. "
                "Drop instances without a mask first."
            )
        mini_mask[..., i] = resize_cut(cut.astype(bool), mini_shape)
    return mini_mask


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Resize mini-masks to their boxes and place them in the image; inverse of `minimize_mask`.

    bbox: int [N, (y1, x1, y2, x2), ...] in pixels, y2 and x2 outside. mini_mask: [h, w, N], bool or
    0..1. image_shape: (height, width, ...).

    Returns bool [height, width, N]: the bilinear value is above 0.5.
    Raises ValueError if the numbers of boxes and masks differ, or a box contains no pixel or is
    partly outside the image.
    """
    bbox, mini_mask = np.asarray(bbox), np.asarray(mini_mask)
    _check_counts(bbox, mini_mask)
    mask = np.zeros((*image_shape[:2], mini_mask.shape[-1]), dtype=bool)
    for i, box in enumerate(bbox[:, :4]):
        (rows, columns), size = _window(box, image_shape, f"instance {i}")
        mask[rows, columns, i] = resize_cut(mini_mask[..., i], size)
    return mask


def mold_mask(mask: np.ndarray, config: Any) -> None:
    """Kept for old callers, a placeholder in the original too: does nothing and returns None.

    mask, config: ignored.
    """


def unmold_mask(mask: np.ndarray, bbox: Sequence[int] | np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Turn the network's small mask into a mask of the whole image.

    mask: float [h, w], probabilities. bbox: int (y1, x1, y2, x2) in pixels, y2 and x2 outside.
    image_shape: (height, width, ...).

    Returns bool [height, width]: resized to the box first, then inside where the value is >= 0.5;
    False outside the box.
    Raises ValueError if the box contains no pixel or is partly outside the image.
    """
    full_mask = np.zeros(image_shape[:2], dtype=bool)
    window, _ = _window(bbox, image_shape, "the detection")
    full_mask[window] = unmold_crop(mask, bbox)
    return full_mask


def unmold_crop(mask: np.ndarray, bbox: Sequence[int] | np.ndarray) -> np.ndarray:
    """The part of `unmold_mask` that lies in the box: bool [y2 - y1, x2 - x1]."""
    y1, x1, y2, x2 = (int(value) for value in bbox)
    return images.resize(mask, (y2 - y1, x2 - x1)) >= 0.5


def _any_in_row(mask: np.ndarray) -> np.ndarray:
    """The same as mask.any(axis=1). Where instances lie side by side in memory, numpy loops over that short
    axis; taking COLUMNS_AT_A_TIME columns for one makes the loops longer and all of it several times faster.
    """
    if not mask.flags.c_contiguous:
        return np.any(mask, axis=1)
    height, width, count = mask.shape
    whole = width - width % COLUMNS_AT_A_TIME
    shape = (height, whole // COLUMNS_AT_A_TIME, COLUMNS_AT_A_TIME * count)
    in_groups = np.any(mask[:, :whole].reshape(shape), axis=1)
    in_groups = in_groups.reshape(height, COLUMNS_AT_A_TIME, count)
    return np.any(in_groups, axis=1) | np.any(mask[:, whole:], axis=1)


def _inside(masks: np.ndarray) -> np.ndarray:
    """Rows of masks [h, W, N] as [h * W, N] float32, 1 inside."""
    inside = masks if masks.dtype == bool else masks > 0.5
    return inside.reshape(-1, masks.shape[-1]).astype(np.float32)


def resize_cut(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """One mask, bool [h, w], at a size (height, width): where the bilinear value is above 0.5."""
    values = np.empty(size)
    interpolation.bilinear_into(mask, values, break_ties=True)
    return values > 0.5


def _extent(occupied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First occupied index and last + 1 along axis 0, both 0 where nothing is occupied."""
    if occupied.shape[0] == 0:
        nothing = np.zeros(occupied.shape[1], dtype=np.intp)
        return nothing, nothing
    first = occupied.argmax(axis=0)
    end = occupied.shape[0] - occupied[::-1].argmax(axis=0)
    return first, np.where(occupied.any(axis=0), end, 0)


def _check_counts(bbox: np.ndarray, mask: np.ndarray) -> None:
    if mask.ndim != 3 or bbox.ndim != 2 or len(bbox) != mask.shape[-1]:
        raise ValueError(
            "Wanted one box per mask, boxes [N, 4] and masks [height, width, N]. "
            f"Received: boxes of shape {bbox.shape}, masks of shape {mask.shape}."
        )


def _window(
    box: Sequence[int] | np.ndarray, image_shape: Sequence[int], owner: str
) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """The box as slices of the image, and its height and width."""
    y1, x1, y2, x2 = (int(value) for value in box)
    height, width = image_shape[:2]
    if not (0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width):
        raise ValueError(
            "A mask is pasted into a box that contains pixels and lies inside the image. Received: "
            f"{owner} with box {[y1, x1, y2, x2]} in an image of {height} x {width}. "
            "Clip boxes to the image first and drop empty ones."
        )
    return (slice(y1, y2), slice(x1, x2)), (y2 - y1, x2 - x1)

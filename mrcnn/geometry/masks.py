"""Operations on instance masks: boxes, overlap, and mini-masks.

Axes: H, W image; h, w mini-mask; N instances.

A mini-mask is the part of a mask inside its box, resized to a small fixed size. It takes less memory, but its
outline is coarser.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry import images, interpolation
from mrcnn.typing import Boxes

if TYPE_CHECKING:
    from mrcnn.config import Config

# Number of pixels that `compute_overlaps_masks` counts at a time, which bounds its memory.
PIXELS_AT_A_TIME = 1 << 15
# Number of columns that `_any_in_row` treats as one.
COLUMNS_AT_A_TIME = 16


def extract_bboxes(mask: np.ndarray) -> Boxes:
    """Return the tight box around each mask.

    Args:
        mask: [H, W, N], any dtype; pixels that are not zero are inside.

    Returns:
        int32 [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside; zeros for an empty mask.

    Raises:
        ValueError: If `mask` does not have three axes.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(
            f"`mask` must have shape (height, width, instances). Received: mask.shape={mask.shape}. Add the "
            "axis of instances."
        )
    inside = mask if mask.dtype == bool else mask != 0
    y1, y2 = _extent(_any_in_row(inside))
    x1, x2 = _extent(np.any(inside, axis=0))
    return np.stack([y1, x1, y2, x2], axis=1).astype(np.int32)


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every mask of one set with every mask of another.

    Args:
        masks1: [H, W, N1]; a pixel is inside if its value is above 0.5.
        masks2: [H, W, N2].

    Returns:
        float32 [N1, N2]; NaN for two empty masks. float64 zeros if either set has no mask.

    Raises:
        ValueError: If the masks belong to images of different shapes.
    """
    masks1, masks2 = np.asarray(masks1), np.asarray(masks2)
    if masks1.shape[-1] == 0 or masks2.shape[-1] == 0:
        return np.zeros((masks1.shape[-1], masks2.shape[-1]))
    if masks1.shape[:-1] != masks2.shape[:-1]:
        raise ValueError(
            "`masks1` and `masks2` must have the same height and width. Received: "
            f"masks1.shape={masks1.shape}, masks2.shape={masks2.shape}"
        )
    # Counts within a part are exact in float32; their sum over a large image needs float64.
    intersection = np.zeros((masks1.shape[-1], masks2.shape[-1]))
    area1, area2 = np.zeros(masks1.shape[-1]), np.zeros(masks2.shape[-1])
    rows = max(1, PIXELS_AT_A_TIME // max(1, masks1.shape[1]))
    for start in range(0, len(masks1), rows):
        part1, part2 = (_inside(masks[start : start + rows]) for masks in (masks1, masks2))
        intersection += part1.T @ part2
        ones = np.ones(len(part1), dtype=np.float32)  # a matrix product is the fastest sum over this axis
        area1 += ones @ part1
        area2 += ones @ part2
    union = area1[:, None] + area2[None, :] - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        return (intersection / union).astype(np.float32)


def label_image(masks: np.ndarray, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the label image of masks; see `paint_labels`.

    Args:
        masks: bool [H, W, N].
        scores: [N].
    """
    height, width, count = masks.shape
    pixels = masks.astype(bool, copy=False)
    pieces = [((0, 0, height, width), pixels[..., index]) for index in range(count)]
    return paint_labels((height, width), pieces, scores)


def paint_labels(
    shape: Sequence[int],
    pieces: Sequence[tuple[Sequence[int] | np.ndarray, np.ndarray]],
    scores: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Return a label image: each pixel holds the number of its instance.

    Args:
        shape: (height, width) of the image.
        pieces: For each instance a box (y1, x1, y2, x2) in pixels, y2 and x2 outside, and the pixels of its
            mask in it, bool [y2 - y1, x2 - x1].
        scores: [N]. A pixel of several masks belongs to the mask with the best score, and to the first of
            them if scores are equal.

    Returns:
        int32 [H, W]: 0 is background, i + 1 is instance i. An instance that better ones cover completely has
        no pixels.
    """
    labels = np.zeros((shape[0], shape[1]), dtype=np.int32)
    for index in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        (y1, x1, y2, x2), crop = pieces[index]
        labels[y1:y2, x1:x2][crop] = index + 1
    return labels


def non_max_suppression_masks(
    masks: np.ndarray, bbox: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float
) -> np.ndarray:
    """Suppress instances whose masks overlap the mask of a better instance of the same class.

    Args:
        masks: bool [H, W, N].
        bbox: int [N, (y1, x1, y2, x2)] in pixels; each box contains its mask.
        scores: [N]. If scores are equal, the first instance is the better one.
        class_ids: int [N].
        threshold: An instance is dropped if its mask IoU with a kept one is greater than this.

    Returns:
        Indices of the kept instances, best score first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    areas = np.count_nonzero(masks, axis=(0, 1))
    kept: list[int] = []
    for index in order:
        y1, x1, y2, x2 = bbox[index]
        crop = masks[y1:y2, x1:x2, index]
        neighbors = [
            other
            for other in kept
            if class_ids[other] == class_ids[index]
            and max(y1, bbox[other][0]) < min(y2, bbox[other][2])
            and max(x1, bbox[other][1]) < min(x2, bbox[other][3])
        ]
        intersections = [np.count_nonzero(crop & masks[y1:y2, x1:x2, other]) for other in neighbors]
        if all(
            intersection <= threshold * (areas[index] + areas[other] - intersection)
            for intersection, other in zip(intersections, neighbors, strict=True)
        ):
            kept.append(int(index))
    return np.array(kept, dtype=int)


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Crop each mask to its box and resize it to a small fixed size.

    Args:
        bbox: int [N, (y1, x1, y2, x2), ...] in pixels, y2 and x2 outside; further columns are ignored.
        mask: [H, W, N]; pixels that are not zero are inside.
        mini_shape: (h, w).

    Returns:
        bool [h, w, N]: whether the bilinear value is above 0.5.

    Raises:
        ValueError: If the numbers of boxes and masks differ, or a box contains no pixel.
    """
    bbox, mask = np.asarray(bbox), np.asarray(mask)
    _check_counts(bbox, mask)
    mini_mask = np.zeros((*mini_shape, mask.shape[-1]), dtype=bool)
    for i, (y1, x1, y2, x2) in enumerate(bbox[:, :4]):
        crop = mask[y1:y2, x1:x2, i]
        if crop.size == 0:
            raise ValueError(
                f"Each box of `bbox` must contain pixels of its mask. Received: instance {i} with box "
                f"{[int(v) for v in bbox[i, :4]]} in a mask of {mask.shape[:2]}. Drop instances without "
                "mask pixels first."
            )
        mini_mask[..., i] = resize_crop(crop.astype(bool), mini_shape)
    return mini_mask


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Resize mini-masks to their boxes and paste them into the image; the inverse of `minimize_mask`.

    Args:
        bbox: int [N, (y1, x1, y2, x2), ...] in pixels, y2 and x2 outside; further columns are ignored.
        mini_mask: [h, w, N], bool or probabilities 0..1.
        image_shape: (height, width, ...) of the image.

    Returns:
        bool [height, width, N]: whether the bilinear value is above 0.5.

    Raises:
        ValueError: If the numbers of boxes and masks differ, or a box contains no pixel or leaves the image.
    """
    bbox, mini_mask = np.asarray(bbox), np.asarray(mini_mask)
    _check_counts(bbox, mini_mask)
    mask = np.zeros((*image_shape[:2], mini_mask.shape[-1]), dtype=bool)
    for i, box in enumerate(bbox[:, :4]):
        (rows, columns), size = _window(box, image_shape, f"instance {i}")
        mask[rows, columns, i] = resize_crop(mini_mask[..., i], size)
    return mask


def mold_mask(mask: np.ndarray, config: "Config") -> None:
    """Do nothing. This placeholder of the Keras 2 library only exists so that it can be imported.

    Args:
        mask: Ignored.
        config: Ignored.
    """


def unmold_mask(mask: np.ndarray, bbox: Sequence[int] | np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Resize the predicted mask of one box and paste it into the image.

    Args:
        mask: float [h, w], probabilities.
        bbox: int (y1, x1, y2, x2) in pixels, y2 and x2 outside.
        image_shape: (height, width, ...) of the image.

    Returns:
        bool [height, width]: whether the resized value is at least 0.5; False outside the box.

    Raises:
        ValueError: If the box contains no pixel or leaves the image.
    """
    full_mask = np.zeros(image_shape[:2], dtype=bool)
    window, _ = _window(bbox, image_shape, "the detection")
    full_mask[window] = unmold_crop(mask, bbox)
    return full_mask


def unmold_crop(mask: np.ndarray, bbox: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the part of `unmold_mask` inside the box, bool [y2 - y1, x2 - x1].

    Args:
        mask: float [h, w], probabilities.
        bbox: int (y1, x1, y2, x2) in pixels, y2 and x2 outside.
    """
    y1, x1, y2, x2 = (int(value) for value in bbox)
    return images.resize(mask, (y2 - y1, x2 - x1)) >= 0.5


def _any_in_row(mask: np.ndarray) -> np.ndarray:
    """Compute mask.any(axis=1), several times faster if instances are the innermost axis in memory.

    NumPy would loop over that short axis. Treating several columns as one makes the inner loop longer.
    """
    result: np.ndarray
    if not mask.flags.c_contiguous:
        result = np.any(mask, axis=1)
        return result
    height, width, count = mask.shape
    whole = width - width % COLUMNS_AT_A_TIME
    shape = (height, whole // COLUMNS_AT_A_TIME, COLUMNS_AT_A_TIME * count)
    in_groups = np.any(mask[:, :whole].reshape(shape), axis=1)
    in_groups = in_groups.reshape(height, COLUMNS_AT_A_TIME, count)
    result = np.any(in_groups, axis=1) | np.any(mask[:, whole:], axis=1)
    return result


def _inside(masks: np.ndarray) -> np.ndarray:
    """Return rows of masks [rows, W, N] as float32 [rows * W, N], 1 inside."""
    inside = masks if masks.dtype == bool else masks > 0.5
    return inside.reshape(-1, masks.shape[-1]).astype(np.float32)


def resize_crop(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize one mask, bool [h, w], to (height, width): True where the bilinear value is above 0.5."""
    values = np.empty(size)
    interpolation.bilinear_into(mask, values, break_ties=True)
    return values > 0.5


def _extent(occupied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first occupied index and the last + 1 along axis 0; both are 0 if none is occupied."""
    if occupied.shape[0] == 0:
        nothing = np.zeros(occupied.shape[1], dtype=np.intp)
        return nothing, nothing
    first = occupied.argmax(axis=0)
    end = occupied.shape[0] - occupied[::-1].argmax(axis=0)
    return first, np.where(occupied.any(axis=0), end, 0)


def _check_counts(bbox: np.ndarray, mask: np.ndarray) -> None:
    if mask.ndim != 3 or bbox.ndim != 2 or len(bbox) != mask.shape[-1]:
        raise ValueError(
            "Boxes must have shape (instances, 4) and masks (height, width, instances), one box per mask. "
            f"Received: shapes {bbox.shape} and {mask.shape}"
        )


def _window(
    box: Sequence[int] | np.ndarray, image_shape: Sequence[int], owner: str
) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Return the box as slices of the image, and its height and width."""
    y1, x1, y2, x2 = (int(value) for value in box)
    height, width = image_shape[:2]
    if not (0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width):
        raise ValueError(
            "A box must contain pixels and lie inside the image. Received: "
            f"{owner} with box {[y1, x1, y2, x2]} in an image of {height} x {width}. "
            "Clip boxes to the image first and drop empty ones."
        )
    return (slice(y1, y2), slice(x1, x2)), (y2 - y1, x2 - x1)

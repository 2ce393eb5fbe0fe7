"""Run-length encodings (RLE) of masks: COCO's format, and that of the 2018 Data Science Bowl.

Both traverse a mask column by column. COCO lists the lengths of all runs, alternately outside and inside,
starting outside: {"size": [height, width], "counts": [6, 2, 40]}. `counts` may also be a string, which COCO
calls compressed. The Data Science Bowl lists the "start length" of each run inside, counting pixels from 1.

Axes: H, W image; N instances; R runs.

This module decodes run lengths from files itself, because pycocotools does not check that they fill their
mask, and compresses counts itself, because exported models run without pycocotools.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrcnn.errors import InvalidDataError
from mrcnn.geometry import polygons
from mrcnn.typing import Boxes, Masks

RunLengths: TypeAlias = dict[str, Any]
Counts: TypeAlias = NDArray[np.int64]

# Number of masks to encode together, which bounds the memory of their copy in column order.
MASKS_AT_A_TIME = 32
# Largest number of characters of a compressed number: 5 bits each, enough for 32 bits and a sign.
MAX_CHARACTERS = 7
# The smallest numbers that need 2, 3, ... characters.
LONGER_FROM = np.int64(16) << 5 * np.arange(12)


def encode_masks(masks: Masks) -> list[RunLengths]:
    """Return the COCO run lengths of masks.

    Args:
        masks: bool [H, W, N].

    Returns:
        N dicts of `size` [H, W] and compressed `counts` as a string, ready for JSON.
    """
    from pycocotools import mask as run_lengths

    encoded: list[RunLengths] = []
    for start in range(0, masks.shape[-1], MASKS_AT_A_TIME):
        part = masks[..., start : start + MASKS_AT_A_TIME]
        encoded += run_lengths.encode(np.asfortranarray(part, dtype=np.uint8))
    return [_with_text(code) for code in encoded]


def encode_labels(labels: np.ndarray, count: int) -> list[RunLengths]:
    """Return the COCO run lengths of the instances 1 to `count`, even empty ones, of a label image [H, W]."""
    encoded: list[RunLengths] = []
    for start in range(1, count + 1, MASKS_AT_A_TIME):
        numbers = np.arange(start, min(start + MASKS_AT_A_TIME, count + 1))
        encoded += encode_masks(labels[..., np.newaxis] == numbers)
    return encoded


def encode_crops(size: tuple[int, int], boxes: Boxes, crops: Iterable[np.ndarray]) -> list[RunLengths]:
    """Return the COCO run lengths of cropped masks, without building whole masks.

    Args:
        size: (height, width) of the image.
        boxes: int [N, (y1, x1, y2, x2)] in pixels of the image, y2 and x2 outside.
        crops: For each box the bool pixels [y2 - y1, x2 - x1].

    Returns:
        N dicts of `size` and compressed `counts` as a string.
    """
    return compress([crop_counts(size, box, crop) for box, crop in zip(boxes, crops, strict=True)], size)


def compress(counts: Sequence[Counts], size: tuple[int, int]) -> list[RunLengths]:
    """Return COCO run lengths with compressed counts.

    Args:
        counts: For each mask the int lengths [R] of its runs, starting outside. They must fill the mask.
        size: (height, width) of the masks.

    Returns:
        A dict of `size` and `counts`, as a string, for each mask.
    """
    height, width = (int(side) for side in size)
    return [{"size": [height, width], "counts": _text_of(runs)} for runs in counts]


def crop_counts(size: tuple[int, int], box: Sequence[int] | np.ndarray, crop: np.ndarray) -> Counts:
    """Return the lengths int64 [R] of the runs of one cropped mask; see `encode_crops`."""
    height, width = size
    y1, x1 = int(box[0]), int(box[1])
    columns = np.pad(crop.T, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(columns, axis=1)
    starts, ends = (
        (x1 + column) * np.int64(height) + y1 + row
        for column, row in (np.nonzero(change == 1), np.nonzero(change == -1))
    )
    # A run to the bottom of a column and one from the top of the next are one: no edge between.
    edges = np.setxor1d(starts, ends, assume_unique=True)
    runs = np.diff(np.concatenate([[0], edges, [height * width]]))
    return runs if runs[-1] else runs[:-1]


def from_segmentation(segmentation: Any, image_shape: Sequence[int]) -> RunLengths:
    """Return the compressed run lengths of a segmentation from a COCO file.

    Args:
        segmentation: A list of polygons; see `polygons.parse`, or run lengths with counts of either kind.
        image_shape: (height, width, ...) of the image.

    Returns:
        Dict of `size` and `counts`, compressed; an input for pycocotools.

    Raises:
        InvalidDataError: If the segmentation is none of these, or run lengths do not fill the image.
    """
    size = int(image_shape[0]), int(image_shape[1])
    if isinstance(segmentation, dict):
        return compress([counts_of(segmentation, size)], size)[0]
    return _with_text(polygons.encode(polygons.parse(segmentation), size))


def decode(run_lengths: RunLengths, size: Sequence[int]) -> Masks:
    """Return the mask of COCO run lengths, bool [H, W].

    Args:
        run_lengths: Dict of `size` and `counts`, of either kind.
        size: (height, width) of the image.

    Raises:
        InvalidDataError: If the run lengths do not fill the image.
    """
    mask = np.zeros((size[0], size[1]), dtype=bool)
    crop, x1 = decode_columns(counts_of(run_lengths, size), size)
    mask[:, x1 : x1 + crop.shape[1]] = crop
    return mask


def decode_columns(counts: Counts, size: Sequence[int]) -> tuple[Masks, int]:
    """Return the columns of a mask that have pixels inside, bool [H, w], and the index of the first of them.

    Args:
        counts: int64 [R], lengths of runs, beginning outside, that fill the mask.
        size: (height, width) of the mask.
    """
    height = int(size[0])
    ends = np.cumsum(counts)
    is_inside = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    inside = np.flatnonzero(is_inside)
    if len(inside) == 0:
        return np.zeros((height, 0), dtype=bool), 0
    first, last = inside[0], inside[-1]
    x1, x2 = int(ends[first - 1]) // height, (int(ends[last]) - 1) // height + 1
    lengths = counts[first : last + 1].copy()
    before, after = int(ends[first - 1]) - x1 * height, x2 * height - int(ends[last])
    values = np.repeat(
        np.concatenate([[False], is_inside[first : last + 1], [False]]),
        np.concatenate([[before], lengths, [after]]),
    )
    return values.reshape(x2 - x1, height).T, x1


def counts_of(run_lengths: RunLengths, size: Sequence[int]) -> Counts:
    """Return the checked counts of COCO run lengths.

    Args:
        run_lengths: Dict of `size` and `counts`, of either kind, as read from a file.
        size: (height, width) that the run lengths must have.

    Returns:
        int64 [R], not negative, with the sum height * width.

    Raises:
        InvalidDataError: If `size` differs, or `counts` do not fill the mask.
    """
    height, width = int(size[0]), int(size[1])
    stated = stated_size(run_lengths)
    if stated != (height, width):
        raise InvalidDataError(
            f"`size` must be the size of the image, {[height, width]}. Received: size={list(stated)}",
            field="size",
        )
    counts = run_lengths.get("counts")
    lengths = _parse_text(counts) if isinstance(counts, (str, bytes)) else _parse_numbers(counts)
    pixels = height * width
    is_bounded = lengths.min(initial=0) >= 0 and lengths.max(initial=0) <= pixels
    if not is_bounded or lengths.sum() != pixels:
        raise InvalidDataError(
            f"The run lengths `counts` must not be negative and must add up to {pixels} pixels. "
            f"Received: lengths from {lengths.min(initial=0)} to {lengths.max(initial=0)}, in all "
            f"{lengths.sum()}.",
            field="counts",
        )
    return lengths


def stated_size(run_lengths: Any) -> tuple[int, int]:
    """Return the (height, width) in COCO run lengths.

    Raises:
        InvalidDataError: If `size` is not a pair of whole numbers.
    """
    size = run_lengths.get("size") if isinstance(run_lengths, dict) else None
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(map(_is_whole, size))  # some tools write 480.0
    ):
        raise InvalidDataError(f"`size` must be [height, width]. Received: size={size!r:.60}", field="size")
    return int(size[0]), int(size[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) or (isinstance(value, float) and value.is_integer())


def _parse_numbers(counts: Any) -> Counts:
    try:
        values = np.array(counts)
    except (ValueError, OverflowError):
        values = np.array(None)
    # Some tools write whole numbers as 4.0.
    is_whole = values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool((np.abs(values) < 2**53).all() and (values % 1 == 0).all())
    )
    if not isinstance(counts, (list, tuple, np.ndarray)) or values.ndim != 1 or not is_whole:
        raise InvalidDataError(
            f"`counts` must be a list of integers or a string. Received: {str(counts)[:60]}", field="counts"
        )
    if values.size and abs(values).max() >= 2**40:
        raise InvalidDataError(f"`counts` holds a length of {values.max()} pixels.", field="counts")
    return values.astype(np.int64)


def _parse_text(text: str | bytes) -> Counts:
    """Decode compressed counts.

    A number is written as groups of 5 bits, lowest first. Each group is one character: 48 plus the bits, plus
    32 if another group follows. The highest bit of the last group is the sign. From the fourth number on, the
    difference from the number two places before is written.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    groups = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise InvalidDataError(
            f"`counts` must be run lengths in COCO's compressed form. Received: {text[:60]!r}", field="counts"
        )
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_CHARACTERS:
        raise InvalidDataError(
            f"`counts` holds a number of more than {MAX_CHARACTERS} characters: {text[:60]!r}", field="counts"
        )
    shift = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 31) << shift, starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _text_of(counts: Counts) -> str:
    """Return compressed counts; see `_parse_text`."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    lengths = np.searchsorted(LONGER_FROM, np.where(numbers < 0, ~numbers, numbers), side="right") + 1
    length = np.repeat(lengths, lengths)  # of the number to which each character belongs
    place = np.arange(len(length)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    groups = (np.repeat(numbers, lengths) >> 5 * place) & 31
    groups += np.where(place + 1 < length, 32, 0) + 48
    return groups.astype(np.uint8).tobytes().decode("ascii")


def _with_text(code: RunLengths) -> RunLengths:
    counts = code["counts"]
    return {"size": [int(side) for side in code["size"]], "counts": counts.decode("ascii")}


def rle_encode(mask: np.ndarray) -> str:
    """Return the runs of a mask [H, W] as "start length start length ...", as in the Data Science Bowl.

    Raises:
        ValueError: If `mask` does not have two axes.
    """
    if mask.ndim != 2:
        raise ValueError(f"`mask` must have shape (height, width). Received: mask.shape={mask.shape}")
    counts = crop_counts(mask.shape, (0, 0), mask.astype(bool))
    starts = np.cumsum(counts)[:-1:2] + 1
    lengths = counts[1::2]
    return " ".join(f"{start} {length}" for start, length in zip(starts, lengths, strict=True))


def rle_decode(rle: str, shape: tuple[int, int]) -> Masks:
    """Return the mask, bool [H, W], of a string from `rle_encode`.

    Args:
        rle: The runs, "start length start length ...".
        shape: (height, width) of the mask.

    Raises:
        InvalidDataError: If the text is not pairs of integers, or a run leaves the image.
    """
    words = rle.split()
    if len(words) % 2 or not all(re.fullmatch(r"\d{1,18}", word) for word in words):
        raise InvalidDataError(f"Run lengths must be pairs of integers. Received: {rle[:60]!r}")
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    for start, length in np.array(words, dtype=np.int64).reshape(-1, 2):
        if start < 1 or start - 1 + length > mask.size:
            raise InvalidDataError(f"The run {start} {length} leaves an image of shape {tuple(shape)}.")
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(shape[1], shape[0]).T


def mask_to_rle(image_id: str, mask: Masks, scores: np.ndarray) -> str:
    """Return the lines of a submission to the Data Science Bowl for the masks of one image.

    Args:
        image_id: Name of the image; each line begins with it.
        mask: bool [H, W, N]. A pixel of several masks belongs to the one with the best score.
        scores: Float [N].

    Raises:
        ValueError: If `mask` does not have three axes.
    """
    if mask.ndim != 3:
        raise ValueError(
            f"`mask` must have shape (height, width, instances). Received: mask.shape={mask.shape}"
        )
    lines = []
    is_free = np.ones(mask.shape[:2], dtype=bool)
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        own = mask[:, :, index].astype(bool) & is_free
        is_free &= ~own
        if own.any():
            lines.append(f"{image_id}, {rle_encode(own)}")
    return "\n".join(lines) if lines else f"{image_id},"

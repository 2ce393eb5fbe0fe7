"""Captions of instances: their text, positions that do not overlap, and painting with OpenCV.

Boxes are [N, (y1, x1, y2, x2)] in pixels, y2 and x2 exclusive. Colors are RGB triples in 0..1.
"""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.drawing.colors import Color, text_color, to_255
from mrcnn.typing import Boxes

CROWDED = 50  # with more captions than this, captions that would hide much are left out
FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_name(class_id: int, class_names: Sequence[str]) -> str:
    """Look up the name of a class. A negative id is a crowd of the class with the positive id.

    Raises:
        ValueError: If `class_names` has no entry for the id.
    """
    try:
        name = class_names[abs(int(class_id))]
    except (IndexError, KeyError, TypeError) as error:
        length = "None" if class_names is None else f"{len(class_names)} names"
        raise ValueError(
            "`class_names` must have a name for every class id, the background first. "
            f"Received: class_id={class_id}, class_names={length}"
        ) from error
    return f"{name} (crowd)" if class_id < 0 else str(name)


def instance_captions(
    class_ids: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    scores: Sequence[float | None] | np.ndarray | None = None,
    captions: Sequence[str | None] | np.ndarray | None = None,
) -> list[str]:
    """Compose the caption of each instance, such as "dog 0.987".

    Args:
        class_ids: Class ids [N].
        class_names: A name for each class id, the background first.
        scores: Scores [N]. A score of None or NaN is left out of the caption.
        captions: Texts [N] to use instead of names and scores. None and "" leave the caption empty.

    Returns:
        A list of N strings.

    Raises:
        ValueError: If there are fewer captions or scores than instances, or a class has no name.
    """
    for name, values in (("captions", captions), ("scores", scores)):
        if values is not None and len(values) < len(class_ids):
            raise ValueError(
                f"`{name}` must have one entry per instance. "
                f"Received: len({name})={len(values)} for {len(class_ids)} instances"
            )
    if captions is not None:
        return ["" if text is None else str(text) for text in captions[: len(class_ids)]]
    texts = [class_name(class_id, class_names) for class_id in class_ids]
    if scores is None:
        return texts
    has_score = [score is not None and not np.isnan(score) for score in scores[: len(texts)]]
    return [
        f"{text} {score:.3f}" if known else text
        for text, score, known in zip(texts, scores, has_score, strict=False)
    ]


def class_legend(
    class_ids: np.ndarray, class_names: Sequence[str], colors: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Compose a legend of the classes of an image, the most frequent class first.

    Args:
        class_ids: Class ids [N].
        class_names: A name for each class id, the background first.
        colors: Colors [N, 3] of the instances. A class gets the color of its first instance.

    Returns:
        Texts "name (count)" of the K classes that occur, and their colors [K, 3].
    """
    present, first, counts = np.unique(class_ids, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    texts = [f"{class_name(present[i], class_names)} ({counts[i]})" for i in order]
    return texts, colors[first[order]]


def draw_captions(canvas: np.ndarray, boxes: Boxes, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write a caption on a patch of the instance's color at each box, in place.

    `caption_positions` determines where a caption is placed and which captions are left out.

    Args:
        canvas: uint8 image [H, W, 3], changed in place.
        boxes: Boxes [N, 4] in pixels of the canvas.
        texts: Captions [N]; empty ones are skipped. An empty list draws nothing.
        colors: Colors [N, 3] of the patches.
    """
    size, stroke = _letter_size(canvas)
    texts = [_to_ascii(text) for text in texts]
    sizes, descents = np.zeros([len(texts), 2]), np.zeros(len(texts), int)
    for i, text in enumerate(texts):
        if text:
            (width, height), descents[i] = cv2.getTextSize(text, FONT, size, stroke)
            sizes[i] = height + descents[i] + 2, width + 4
    positions = caption_positions(boxes, sizes, canvas.shape)
    for position, text, descent, color in zip(positions, texts, descents, colors, strict=False):
        if position is not None:
            _write(canvas, position.astype(int), text, descent, color)


def caption_positions(boxes: Boxes, sizes: np.ndarray, shape: Sequence[float]) -> list[np.ndarray | None]:
    """Find positions for captions at their boxes so that they do not cover each other.

    A caption is placed above, inside or below its box, at the left or right side: at the first of these
    positions that no earlier caption covers, or above the box if all are covered. With more than `CROWDED`
    captions, those without a free position and those wider than their box are left out.

    Args:
        boxes: Boxes [N, 4].
        sizes: Heights and widths [N, 2] of the captions, in the unit of the boxes; zero for no caption.
        shape: (height, width, ...) of the canvas in the same unit.

    Returns:
        A list of N positions (y1, x1, y2, x2); None for a caption that is left out.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    is_crowded = np.count_nonzero(sizes[:, 1]) > CROWDED
    taken: list[np.ndarray] = []
    positions: list[np.ndarray | None] = []
    for box, (height, width) in zip(boxes, sizes, strict=False):
        positions.append(None)
        if width == 0 or (is_crowded and width > box[3] - box[1]):
            continue
        candidates = _candidate_positions(box, height, width, shape)
        free = [position for position in candidates if not _overlaps_any(position, taken)]
        if free or not is_crowded:
            taken.append(free[0] if free else candidates[0])
            positions[-1] = taken[-1]
    return positions


def draw_legend(canvas: np.ndarray, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write a legend in the top-left corner, in place, on a darkened background.

    Args:
        canvas: uint8 image [H, W, 3], changed in place. Lines that do not fit into its height are left out.
        texts: Texts [N], one per line.
        colors: Colors [N, 3] of the patches beside the texts.
    """
    size, stroke = _letter_size(canvas)
    texts = [_to_ascii(text) for text in texts]
    extents = [cv2.getTextSize(text, FONT, size, stroke) for text in texts]
    line = max((height + descent for (_, height), descent in extents), default=0) + 6
    count = min(len(texts), (canvas.shape[0] - 8) // max(line, 1))
    if count < 1:
        return
    width = max(width for (width, _), _ in extents[:count]) + line + 16
    corner = canvas[: count * line + 8, :width]
    corner[...] = corner // 3
    for i in range(count):
        top, descent = 4 + i * line, extents[i][1]
        canvas[top + 3 : top + line - 3, 6 : line - 2] = to_255(colors[i])
        origin = (line + 6, top + line - 3 - descent)
        cv2.putText(canvas, texts[i], origin, FONT, size, (255, 255, 255), stroke, cv2.LINE_AA)


def with_heading(image: np.ndarray, text: str) -> np.ndarray:
    """Put a white strip with a text above an image: uint8 [H, W, 3] becomes a taller [H', W, 3]."""
    size, stroke = _letter_size(image)
    text = _to_ascii(text)
    (_, height), descent = cv2.getTextSize(text, FONT, size, stroke)
    strip = np.full((height + descent + 8, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, height + 4), FONT, size, (0, 0, 0), stroke, cv2.LINE_AA)
    return np.concatenate([strip, image])


def _letter_size(canvas: np.ndarray) -> tuple[float, int]:
    """Return a font scale and stroke that are legible when the whole canvas fits on a screen."""
    size = max(0.4, max(canvas.shape[:2]) / 2400)
    return size, max(1, round(size * 1.5))


def _write(canvas: np.ndarray, position: np.ndarray, text: str, descent: int, color: Color) -> None:
    """Write a caption at its position (y1, x1, y2, x2), on a patch of its color."""
    size, stroke = _letter_size(canvas)
    y1, x1, y2, x2 = (int(value) for value in position)
    canvas[y1:y2, x1:x2] = to_255(color)
    origin = (x1 + 2, y2 - int(descent) - 1)
    cv2.putText(canvas, text, origin, FONT, size, to_255(text_color(color)), stroke, cv2.LINE_AA)


def _candidate_positions(
    box: np.ndarray, height: float, width: float, shape: Sequence[float]
) -> list[np.ndarray]:
    """Return positions for a caption above, inside and below its box, left then right, within the canvas."""
    lefts = [max(0, min(x, shape[1] - width)) for x in (box[1], box[3] - width)]
    tops = [max(0, min(y, shape[0] - height)) for y in (box[0] - height, box[0], box[2], box[2] - height)]
    return [np.array([y, x, y + height, x + width]) for x in lefts for y in tops]


def _overlaps_any(box: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Return whether a box overlaps any of the others."""
    if not others:
        return False
    y1, x1, y2, x2 = np.stack(others, axis=1)
    return bool(((y1 < box[2]) & (y2 > box[0]) & (x1 < box[3]) & (x2 > box[1])).any())


def _to_ascii(text: str) -> str:
    """Drop accents and replace other letters by question marks, because OpenCV only draws ASCII."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(plain.encode("ascii", "replace").decode().split())

"""Texts on pictures: what an instance is called, where its label can stand, letters painted with OpenCV.

Boxes are [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside; colours are RGB triples in 0..1.
"""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.visualize.colors import Color, text_color, to_255

CROWDED = 50  # of more labels than this, those that would hide much are left out
FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_name(class_id: int, class_names: Sequence[str]) -> str:
    """The name of a class; a negative id is a crowd of the class with the positive id.

    Raises ValueError if there is no such name.
    """
    try:
        name = class_names[abs(int(class_id))]
    except (IndexError, KeyError, TypeError) as error:
        count = "None" if class_names is None else f"{len(class_names)} names"
        raise ValueError(
            f"Every class id needs a name (background is 0). Received: class_id={class_id}, "
            f"class_names={count}"
        ) from error
    return f"{name} (crowd)" if class_id < 0 else str(name)


def instance_captions(
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    captions: Sequence[str] | np.ndarray | None = None,
) -> list[str]:
    """The text of each instance: its caption if captions are given, else "name 0.987".

    A caption of None or "" stays empty; a score of None or NaN is left out, a score of 0 is not.

    Returns a list of len(class_ids) strings.
    Raises ValueError if there are fewer captions or scores than instances.
    """
    for name, values in (("captions", captions), ("scores", scores)):
        if values is not None and len(values) < len(class_ids):
            raise ValueError(
                f"One of `{name}` an instance is wanted, {len(class_ids)}. Received: {len(values)}"
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
    """Texts "name (count)" and colours [K, 3] of the K classes that are there, most frequent first.

    class_ids: [N]; colors: [N, 3] of the instances, of which a class shows its first one's.
    """
    present, first, counts = np.unique(class_ids, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    texts = [f"{class_name(present[i], class_names)} ({counts[i]})" for i in order]
    return texts, colors[first[order]]


def draw_labels(canvas: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write a text on a patch of the instance's colour at each box, in place.

    canvas: [H, W, 3] uint8. boxes: [N, 4] in its pixels. texts: [N], empty ones are skipped, or
    none at all. See `place_labels` for where a label stands, and which are left out.
    """
    size, stroke = _letters(canvas)
    texts = [_to_ascii(text) for text in texts]
    sizes, descents = np.zeros([len(texts), 2]), np.zeros(len(texts), int)
    for i, text in enumerate(texts):
        if text:
            (width, height), descents[i] = cv2.getTextSize(text, FONT, size, stroke)
            sizes[i] = height + descents[i] + 2, width + 4
    places = place_labels(boxes, sizes, canvas.shape)
    for place, text, descent, color in zip(places, texts, descents, colors, strict=False):
        if place is not None:
            _write(canvas, place.astype(int), text, descent, color)


def place_labels(boxes: np.ndarray, sizes: np.ndarray, shape: Sequence[float]) -> list[np.ndarray | None]:
    """Where labels can stand at their boxes without covering each other.

    boxes: [N, 4]; sizes: [N, (height, width)] of the labels, zero for none; shape: (height, width,
    ...) of the canvas, all in one unit. A label stands above its box, else inside, else below, at its
    left or right side, where it covers no earlier label; if all places are taken it stands above. Of more
    than 50 labels, those without a free place and those wider than their box are left out.

    Returns a list of N places (y1, x1, y2, x2), None for a label that is left out.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    is_crowded = np.count_nonzero(sizes[:, 1]) > CROWDED
    taken: list[np.ndarray] = []
    places: list[np.ndarray | None] = []
    for box, (height, width) in zip(boxes, sizes, strict=False):
        places.append(None)
        if width == 0 or (is_crowded and width > box[3] - box[1]):
            continue
        near = _label_places(box, height, width, shape)
        free = [place for place in near if not _overlaps_any(place, taken)]
        if free or not is_crowded:
            taken.append(free[0] if free else near[0])
            places[-1] = taken[-1]
    return places


def draw_legend(canvas: np.ndarray, texts: Sequence[str], colors: np.ndarray) -> None:
    """Write a list of texts beside patches of their colours into the top-left corner, in place.

    canvas: [H, W, 3] uint8; it is darkened below the list. texts: [N]; colors: [N, 3]. Lines that
    the canvas is too low for are left out.
    """
    size, stroke = _letters(canvas)
    texts = [_to_ascii(text) for text in texts]
    extents = [cv2.getTextSize(text, FONT, size, stroke) for text in texts]
    line = max((height + descent for (_, height), descent in extents), default=0) + 6
    shown = min(len(texts), (canvas.shape[0] - 8) // max(line, 1))
    if shown < 1:
        return
    width = max(width for (width, _), _ in extents[:shown]) + line + 16
    corner = canvas[: shown * line + 8, :width]
    corner[...] = corner // 3
    for i in range(shown):
        top, descent = 4 + i * line, extents[i][1]
        canvas[top + 3 : top + line - 3, 6 : line - 2] = to_255(colors[i])
        origin = (line + 6, top + line - 3 - descent)
        cv2.putText(canvas, texts[i], origin, FONT, size, (255, 255, 255), stroke, cv2.LINE_AA)


def with_heading(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture [H, W, 3] uint8 below a white strip with a text, [more than H, W, 3]."""
    size, stroke = _letters(picture)
    text = _to_ascii(text)
    (_, height), descent = cv2.getTextSize(text, FONT, size, stroke)
    strip = np.full((height + descent + 8, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, height + 4), FONT, size, (0, 0, 0), stroke, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def _letters(canvas: np.ndarray) -> tuple[float, int]:
    """Scale and stroke of letters that are legible when the whole canvas is on a screen."""
    size = max(0.4, max(canvas.shape[:2]) / 2400)
    return size, max(1, round(size * 1.5))


def _write(canvas: np.ndarray, place: np.ndarray, text: str, descent: int, color: Color) -> None:
    """A label at its place (y1, x1, y2, x2), on a patch of its colour."""
    size, stroke = _letters(canvas)
    y1, x1, y2, x2 = (int(value) for value in place)
    canvas[y1:y2, x1:x2] = to_255(color)
    origin = (x1 + 2, y2 - int(descent) - 1)
    cv2.putText(canvas, text, origin, FONT, size, to_255(text_color(color)), stroke, cv2.LINE_AA)


def _label_places(box: np.ndarray, height: float, width: float, shape: Sequence[float]) -> list[np.ndarray]:
    """Boxes for an instance's label above, inside and below its box, left then right, in the canvas."""
    lefts = [max(0, min(x, shape[1] - width)) for x in (box[1], box[3] - width)]
    tops = [max(0, min(y, shape[0] - height)) for y in (box[0] - height, box[0], box[2], box[2] - height)]
    return [np.array([y, x, y + height, x + width]) for x in lefts for y in tops]


def _overlaps_any(box: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    if not others:
        return False
    y1, x1, y2, x2 = np.stack(others, axis=1)
    return bool(((y1 < box[2]) & (y2 > box[0]) & (x1 < box[3]) & (x2 > box[1])).any())


def _to_ascii(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(plain.encode("ascii", "replace").decode().split())

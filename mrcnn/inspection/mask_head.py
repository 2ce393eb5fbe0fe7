"""Step 3, the mask head: small soft masks, scaled to their boxes, placed on the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import visualize
from mrcnn.geometry import boxes, images, masks
from mrcnn.inspection import tensors
from mrcnn.visualize import captions, figures

LAYERS = {"detections": "mrcnn_detection", "masks": "mrcnn_mask"}


@dataclass(frozen=True)
class GeneratedMasks:
    """The masks of the detections of one picture, in order of score.

    seen: the picture. boxes: int32 [N, 4] in its pixels, y2 and x2 outside. class_ids, scores: [N].
    raw: float32 [N, 28, 28], probabilities of each detection's own class. scaled: N float arrays of the size
    of their boxes. placed: bool [H, W, N], where the scaled ones are at least 0.5.
    """

    seen: tensors.Seen
    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    raw: np.ndarray
    scaled: list[np.ndarray]
    placed: np.ndarray


def generate_masks(model: Any, image: np.ndarray, image_meta: np.ndarray | None = None) -> GeneratedMasks:
    """Fetch the mask head's output and bring it onto the picture (Mask R-CNN, section 3.1).

    model, image, image_meta: see `tensors.fetch`. Detections without area have no mask and are left out.
    """
    seen, values = tensors.fetch(model, image, tensors.layer_outputs(model, LAYERS), image_meta)
    shape = seen.picture.shape
    rows = np.flatnonzero(values["detections"][:, 4] > 0)
    pixels = boxes.denorm_boxes(values["detections"][rows, :4], shape[:2])
    has_area = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
    rows, pixels = rows[has_area], pixels[has_area]
    class_ids = values["detections"][rows, 4].astype(np.int32)
    raw = values["masks"][rows, :, :, class_ids]
    placed = np.zeros((*shape[:2], len(rows)), dtype=bool)
    scaled = []
    for i, box in enumerate(pixels):
        scaled.append(images.resize(raw[i], (box[2] - box[0], box[3] - box[1])))
        placed[:, :, i] = masks.unmold_mask(raw[i], box, shape)
    return GeneratedMasks(
        seen=seen,
        boxes=pixels,
        class_ids=class_ids,
        scores=values["detections"][rows, 5],
        raw=raw,
        scaled=scaled,
        placed=placed,
    )


def draw_masks(found: GeneratedMasks, class_names: Sequence[str], limit: int = 4) -> Any:
    """Draw the best detections' masks in three columns: raw, scaled to the box, placed on the image.

    Returns the figure, a row for each of at most `limit` detections.
    """
    count = min(limit, len(found.boxes))
    wide = found.seen.picture.shape[1] / found.seen.picture.shape[0]
    figure, axes = figures.panels((1, 1), max(count, 1), 3, side=2.2, widths=(1, 1, wide))
    names = captions.instance_captions(found.class_ids, class_names, found.scores)
    height, width = found.raw.shape[1:3]
    for row in range(count):
        raw, scaled, placed = axes[row]
        raw.imshow(found.raw[row], cmap="gray", vmin=0, vmax=1)
        raw.set_title(f"{names[row]}: {height} x {width}")
        scaled.imshow(found.scaled[row], cmap="gray", vmin=0, vmax=1)
        if min(found.scaled[row].shape) > 1:  # a line needs two pixels
            scaled.contour(found.scaled[row], [0.5], colors="orange")
        scaled.set_title("{} x {}, border at 0.5".format(*found.scaled[row].shape))
        visualize.display_instances(
            found.seen.picture,
            found.boxes[row : row + 1],
            found.placed[:, :, row : row + 1],
            found.class_ids[row : row + 1],
            class_names,
            captions=[""],
            title="placed on the image",
            ax=placed,
        )
    return figures.finish(figure, show=False)

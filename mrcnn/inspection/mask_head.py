"""The mask head: small masks of probabilities, scaled to their boxes, on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import visualize
from mrcnn.geometry import images, mask_pasting
from mrcnn.inspection import tensors
from mrcnn.typing import Boxes, ClassIds, Image, Masks
from mrcnn.visualize import figures
from mrcnn.visualize.captions import instance_captions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN

LAYERS = {"detections": "mrcnn_detection", "masks": "mrcnn_mask"}


@dataclass(frozen=True)
class GeneratedMasks:
    """The masks of the detections of one image, best detection first.

    Attributes:
        input: The image as the network received it.
        boxes: Boxes [N, 4], int32 in its pixels, y2 and x2 exclusive.
        class_ids: Class ids [N].
        scores: Scores [N].
        raw: Probabilities of each detection's own class, float32 [N, 28, 28].
        scaled: The raw masks scaled to their boxes: N float arrays of the sizes of the boxes.
        masks: Masks bool [H, W, N]: inside are the pixels whose scaled mask is at least 0.5. With CONVENTIONS
            other than "keras2", the network scales the mask to the box with its fractions of pixels; see
            `mrcnn.geometry.mask_pasting`.
    """

    input: tensors.NetworkInput
    boxes: Boxes
    class_ids: ClassIds
    scores: np.ndarray
    raw: np.ndarray
    scaled: list[np.ndarray]
    masks: Masks


def generate_masks(model: MaskRCNN, image: Image, image_meta: np.ndarray | None = None) -> GeneratedMasks:
    """Fetch the output of the mask head and scale it to the image (Mask R-CNN, section 3.1).

    Detections whose box has no area have no mask and are left out.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image, or one from `load_image_gt` with `image_meta`; see `tensors.fetch`.
        image_meta: The image meta of an image from `load_image_gt`.
    """
    outputs = tensors.layer_outputs(model, LAYERS)
    network_input, values = tensors.fetch(model, image, outputs, image_meta)
    shape = network_input.image.shape
    rows = np.flatnonzero(values["detections"][:, 4] > 0)
    pixels = network_input.pixels(values["detections"][rows, :4])
    has_area = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
    rows, pixels = rows[has_area], pixels[has_area]
    class_ids = values["detections"][rows, 4].astype(np.int32)
    raw = values["masks"][rows, :, :, class_ids]
    exact = network_input.pixels(values["detections"][rows, :4], rounded=False)
    method = model.config.conventions().mask_pasting
    full_masks = np.zeros((*shape[:2], len(rows)), dtype=bool)
    scaled = []
    for i, box in enumerate(pixels):
        scaled.append(images.resize(raw[i], (box[2] - box[0], box[3] - box[1])))
        (y1, x1, y2, x2), inside = mask_pasting.paste(raw[i], exact[i], shape, method)
        full_masks[y1:y2, x1:x2, i] = inside
    return GeneratedMasks(
        input=network_input,
        boxes=pixels,
        class_ids=class_ids,
        scores=values["detections"][rows, 5],
        raw=raw,
        scaled=scaled,
        masks=full_masks,
    )


def draw_masks(generated: GeneratedMasks, class_names: Sequence[str], limit: int = 4) -> Figure:
    """Draw the masks of the best detections in three columns: raw, scaled to the box, on the image.

    Args:
        generated: The result of `generate_masks`.
        class_names: A name for each class id, the background first.
        limit: Largest number of detections to draw.

    Returns:
        The figure, with a row for each detection.
    """
    image = generated.input.image
    count = min(limit, len(generated.boxes))
    width_of_image = image.shape[1] / image.shape[0]
    figure, axes = figures.panels((1, 1), max(count, 1), 3, side=2.2, widths=(1, 1, width_of_image))
    names = instance_captions(generated.class_ids, class_names, generated.scores)
    height, width = generated.raw.shape[1:3]
    for row in range(count):
        raw, scaled, full = axes[row]
        raw.imshow(generated.raw[row], cmap="gray", vmin=0, vmax=1)
        raw.set_title(f"{names[row]}: {height} x {width}", parse_math=False)
        scaled.imshow(generated.scaled[row], cmap="gray", vmin=0, vmax=1)
        if min(generated.scaled[row].shape) > 1:  # a contour needs two pixels
            scaled.contour(generated.scaled[row], [0.5], colors="orange")
        scaled.set_title("{} x {}, border at 0.5".format(*generated.scaled[row].shape))
        visualize.display_instances(
            image,
            generated.boxes[row : row + 1],
            generated.masks[:, :, row : row + 1],
            generated.class_ids[row : row + 1],
            class_names,
            captions=[""],
            title="on the image",
            ax=full,
        )
    return figures.finish(figure, show=False)

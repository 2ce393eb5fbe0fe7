"""All steps together: proposals, boxes, masks, and the result in pixels of the original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import visualize
from mrcnn.inspection import box_head, mask_head, tensors
from mrcnn.typing import Boxes, ClassIds, Image, Masks
from mrcnn.visualize import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN


@dataclass(frozen=True)
class ComposedResult:
    """The result for one image, and the steps that lead to it.

    Attributes:
        image: The original image [h, w, channels].
        refined: The output of the box head, in pixels of the image as the network received it.
        generated: The output of the mask head, in the same pixels.
        rois: Boxes of the result, int32 [N, 4] in pixels of `image`, as `MaskRCNN.detect` returns them.
        class_ids: Class ids [N], int32.
        scores: Scores [N].
        masks: Masks bool [h, w, N].
    """

    image: np.ndarray
    refined: box_head.RefinedBoxes
    generated: mask_head.GeneratedMasks
    rois: Boxes
    class_ids: ClassIds
    scores: np.ndarray
    masks: Masks


def compose_result(model: MaskRCNN, image: Image) -> ComposedResult:
    """Detect step by step, from the network's own tensors, what `MaskRCNN.detect` returns in one call.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image [h, w, channels].
    """
    outputs = tensors.layer_outputs(model, mask_head.LAYERS)
    network_input, values = tensors.fetch(model, image, outputs)
    rois, class_ids, scores, masks = model.unmold_detections(
        values["detections"],
        values["masks"],
        np.shape(image),
        network_input.image.shape,
        network_input.window.tolist(),
    )
    return ComposedResult(
        image=np.asarray(image),
        refined=box_head.refine_boxes(model, image),
        generated=mask_head.generate_masks(model, image),
        rois=rois,
        class_ids=class_ids,
        scores=scores,
        masks=masks,
    )


def draw_result(result: ComposedResult, class_names: Sequence[str]) -> Figure:
    """Draw the steps to the result: proposals that are objects, refined boxes after NMS, masks, instances.

    Args:
        result: The result of `compose_result`.
        class_names: A name for each class id, the background first.

    Returns:
        The figure, with four panels.
    """
    refined = result.refined
    figure, axes = figures.panels(refined.input.image.shape, 2, 2, side=6)
    visualize.draw_boxes(
        refined.input.image,
        boxes=refined.proposals[refined.is_object],
        title=f"{refined.is_object.sum()} of {len(refined.proposals)} proposals are objects",
        ax=axes[0, 0],
    )
    visualize.draw_boxes(
        refined.input.image,
        refined_boxes=refined.refined[refined.is_kept],
        title=f"{refined.is_kept.sum()} boxes, refined and suppressed",
        ax=axes[0, 1],
    )
    visualize.draw_boxes(
        refined.input.image,
        boxes=np.zeros_like(result.generated.boxes),
        masks=result.generated.masks,
        title=f"{len(result.generated.boxes)} masks",
        ax=axes[1, 0],
    )
    visualize.display_instances(
        result.image,
        result.rois,
        result.masks,
        result.class_ids,
        class_names,
        result.scores,
        title="The result, on the original image",
        ax=axes[1, 1],
    )
    return figures.finish(figure, show=False)

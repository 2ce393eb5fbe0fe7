"""Step 7, the pieces together: proposals, boxes, masks, and the result in the picture's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import visualize
from mrcnn.inspection import box_head, mask_head, tensors
from mrcnn.visualize import figures


@dataclass(frozen=True)
class ComposedResult:
    """The result for one picture, and the steps it is made of.

    image: the picture as given [h, w, channels]. refined, generated: steps 2 and 3, in pixels of the picture
    as the network saw it. rois int32 [N, 4], class_ids int32 [N], scores [N] and placed, their masks bool
    [h, w, N]: as `MaskRCNN.detect` gives them, in pixels of `image`.
    """

    image: np.ndarray
    refined: box_head.RefinedBoxes
    generated: mask_head.GeneratedMasks
    rois: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    placed: np.ndarray


def compose_result(model: Any, image: np.ndarray) -> ComposedResult:
    """Detect step by step: what `MaskRCNN.detect` does in one call, from the network's own tensors.

    model: a MaskRCNN of mode "inference". image: [h, w, channels].
    """
    outputs = tensors.layer_outputs(model, mask_head.LAYERS)
    seen, values = tensors.fetch(model, image, outputs)
    rois, class_ids, scores, placed = model.unmold_detections(
        values["detections"], values["masks"], np.shape(image), seen.picture.shape, seen.window
    )
    return ComposedResult(
        image=np.asarray(image),
        refined=box_head.refine_boxes(model, image),
        generated=mask_head.generate_masks(model, image),
        rois=rois,
        class_ids=class_ids,
        scores=scores,
        placed=placed,
    )


def draw_result(result: ComposedResult, class_names: Sequence[str]) -> Any:
    """Draw the way to the result: proposals that are objects, refined boxes after NMS, masks, instances.

    Returns the figure, four panels.
    """
    found = result.refined
    figure, axes = figures.panels(found.seen.picture.shape, 2, 2, side=6)
    visualize.draw_boxes(
        found.seen.picture,
        boxes=found.proposals[found.is_object],
        title=f"{found.is_object.sum()} of {len(found.proposals)} proposals are objects",
        ax=axes[0, 0],
    )
    visualize.draw_boxes(
        found.seen.picture,
        refined_boxes=found.refined[found.is_kept],
        title=f"{found.is_kept.sum()} boxes, refined and thinned",
        ax=axes[0, 1],
    )
    visualize.draw_boxes(
        found.seen.picture,
        boxes=np.zeros_like(result.generated.boxes),
        masks=result.generated.placed,
        title=f"{len(result.generated.boxes)} masks",
        ax=axes[1, 0],
    )
    visualize.display_instances(
        result.image,
        result.rois,
        result.placed,
        result.class_ids,
        class_names,
        result.scores,
        title="The result, on the image as it was given",
        ax=axes[1, 1],
    )
    return figures.finish(figure, show=False)

"""The paper on one page: Mask R-CNN in training and in inference.

image -> backbone -> feature pyramid -> RPN -> proposals -> (targets ->) ROIAlign -> box head, mask head

Nothing here is optimized. `mrcnn.fast` replaces parts of a finished graph by faster ones that compute the
same numbers. `parts` builds each part with the settings of a Config.

Axes: B images, A anchors, N ground-truth instances, M of them with masks, R RoIs, D detections.
"""

from dataclasses import dataclass

import keras

from mrcnn.config import Config
from mrcnn.network import parts
from mrcnn.network.detection_targets import LeadingSlots
from mrcnn.typing import Tensor

# The outputs of the inference network, in the order of the Keras 2 library.
INFERENCE_OUTPUTS = (
    "mrcnn_detection",
    "mrcnn_class",
    "mrcnn_bbox",
    "mrcnn_mask",
    "ROI",
    "rpn_class",
    "rpn_bbox",
)


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs of a graph by name, in the order of the Keras 2 library."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def training_graph(config: Config) -> Graph:
    """Build the training graph, from images and their ground truth to everything that the losses compare.

    The first stage learns from all N instances, the second from the M that have a mask.
    """
    inputs = parts.image_inputs(config) | parts.ground_truth_inputs(config)
    image, image_meta = inputs["input_image"], inputs["input_image_meta"]
    rpn_match, rpn_bbox = parts.rpn_targets(inputs, config)

    pyramid, rpn_logits, rpn_scores, rpn_deltas = parts.first_stage(image, config)
    anchors = parts.anchors(image, config)
    rpn = (rpn_logits, rpn_scores, rpn_deltas)
    rpn_rois = parts.proposals(rpn, anchors, pyramid, image_meta, config, training=True)
    rois, class_ids, bbox, masks = parts.roi_targets(inputs, rpn_rois, config)

    logits, scores, deltas = parts.box_head(rois, pyramid, image_meta, config)
    mask_slots = LeadingSlots(parts.mask_slot_count(config), name="mask_slots")
    mask_rois, target_masks = mask_slots([class_ids, rois, masks])
    pred_masks = parts.mask_head(mask_rois, pyramid, image_meta, config)
    outputs = {
        "rpn_class_logits": rpn_logits,
        "rpn_class": rpn_scores,
        "rpn_bbox": rpn_deltas,
        "mrcnn_class_logits": logits,
        "mrcnn_class": scores,
        "mrcnn_bbox": deltas,
        "mrcnn_mask": pred_masks,
        "ROI": rpn_rois,
        "output_rois": rois,
        "target_class_ids": class_ids,
        "target_bbox": bbox,
        "target_mask": target_masks,
        "target_rpn_match": rpn_match,
        "target_rpn_bbox": rpn_bbox,
    }
    return Graph(inputs, outputs)


def inference_graph(config: Config) -> Graph:
    """Build the inference graph, from images and their normalized anchors to detections.

    The outputs are the seven of the Keras 2 library, the RPN's logits, and the pyramid P2 to P6. `mrcnn_mask`
    holds the mask of every detection for every class.
    """
    inputs = parts.image_inputs(config) | {"input_anchors": keras.Input((None, 4), name="input_anchors")}
    image, image_meta, anchors = inputs.values()

    pyramid, rpn_logits, rpn_scores, rpn_deltas = parts.first_stage(image, config)
    rpn = (rpn_logits, rpn_scores, rpn_deltas)
    rois = parts.proposals(rpn, anchors, pyramid, image_meta, config, training=False)
    _, scores, deltas = parts.box_head(rois, pyramid, image_meta, config)
    detections = parts.detection_layer(config)([rois, scores, deltas, image_meta])
    masks = parts.mask_head(detections[..., :4], pyramid, image_meta, config)
    outputs = {
        "mrcnn_detection": detections,
        "mrcnn_class": scores,
        "mrcnn_bbox": deltas,
        "mrcnn_mask": masks,
        "ROI": rois,
        "rpn_class": rpn_scores,
        "rpn_bbox": rpn_deltas,
        "rpn_class_logits": rpn_logits,
    }
    return Graph(inputs, outputs | {f"P{level}": tensor for level, tensor in enumerate(pyramid, start=2)})

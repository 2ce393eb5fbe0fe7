"""Conventions: details of boxes, anchors, RoIs, masks and losses in which Mask R-CNN libraries differ.

Weights only work with the conventions that they were trained with. The details of a library only make sense
together, so one setting, CONVENTIONS, selects all of them.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Conventions:
    """How one library computes what the papers leave open.

    Attributes:
        half_open_boxes: Normalized boxes are pixels divided by height and width. Otherwise both ends of a box
            lie inside, and (0, 0, 1, 1) spans the centers of the corner pixels.
        rounded_anchors: Distances from the center of an anchor to its sides are whole pixels.
        anchors_fill_image: Anchors are side // cells pixels apart, which differs from the stride if the
            stride of a level does not divide the image. Otherwise they are one stride apart.
        delta_limit: Largest log(dh) and log(dw) that is applied to a box; None is no limit.
        proposals_per_level: Each pyramid level has its own PRE_NMS_LIMIT and its own NMS, proposals are
            clipped to the window, and no gradient of the box loss reaches the RPN through them. Otherwise all
            levels share one limit and one NMS, proposals are clipped to the molded image, and the gradient
            does reach the RPN.
        objectness_logit: The RPN has one logit per anchor. The logit of the background is 0.
        min_proposal_side, min_detection_side: Shortest side of a box in pixels of the molded image. Smaller
            boxes are left out.
        roi_align: "crop_and_resize", "average" or "average_aligned"; see `mrcnn.network.roi_align`.
        detections_per_class: Every class of an RoI whose score is high enough becomes a detection. Otherwise
            only the best class does.
        mask_pasting: "box", "expanded_box" or "grid"; see `mrcnn.geometry.mask_pasting`.
        negatives_fill: Negatives fill the sample of RoIs. Otherwise their number is proportional to that of
            the positives.
        soft_mask_targets: Mask targets are averages from 0 to 1. Otherwise they are rounded to 0 or 1.
        smooth_l1_beta: Difference at which the loss of a delta turns from a square into a line. 0 gives the
            absolute value.
        losses_per_sample: Losses of deltas are sums, divided by the number of sampled anchors or RoIs.
            Otherwise they are means over the coordinates of the positives.
        decays_sum: The L2 penalty is half the sum of squares of the weights. Otherwise it is the mean of
            squares of each tensor, a much smaller number.
        decays_norms: Weight decay includes gamma and beta of trainable batch norms. Otherwise it does not.
    """

    half_open_boxes: bool = False
    rounded_anchors: bool = False
    anchors_fill_image: bool = False
    delta_limit: float | None = None
    proposals_per_level: bool = False
    objectness_logit: bool = False
    min_proposal_side: float = 0.0
    min_detection_side: float = 0.0
    roi_align: str = "crop_and_resize"
    detections_per_class: bool = False
    mask_pasting: str = "box"
    negatives_fill: bool = False
    soft_mask_targets: bool = False
    smooth_l1_beta: float = 1.0
    losses_per_sample: bool = False
    decays_sum: bool = False
    decays_norms: bool = False


# Largest factor by which a delta scales a side is 1000 / 16.
DELTA_LIMIT = math.log(1000 / 16)

CONVENTIONS = {
    "keras2": Conventions(),
    "torchvision": Conventions(
        half_open_boxes=True,
        rounded_anchors=True,
        anchors_fill_image=True,
        delta_limit=DELTA_LIMIT,
        proposals_per_level=True,
        objectness_logit=True,
        min_proposal_side=1e-3,
        min_detection_side=1e-2,
        roi_align="average",
        detections_per_class=True,
        mask_pasting="expanded_box",
        negatives_fill=True,
        soft_mask_targets=True,
        smooth_l1_beta=1 / 9,
        losses_per_sample=True,
        decays_sum=True,
        decays_norms=True,
    ),
    "detectron2": Conventions(
        half_open_boxes=True,
        delta_limit=DELTA_LIMIT,
        proposals_per_level=True,
        objectness_logit=True,
        roi_align="average_aligned",
        detections_per_class=True,
        mask_pasting="grid",
        negatives_fill=True,
        smooth_l1_beta=0.0,
        losses_per_sample=True,
        decays_sum=True,
    ),
}

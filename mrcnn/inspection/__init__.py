"""Look inside the network: compute and draw each of its steps for one image.

Each step has a function that computes plain arrays, and functions that draw them and return the figure.
The steps of an image through the network, in the order of the paper:

    anchor_targets   targets of the RPN: positive, negative and neutral anchors
    proposals        anchors by score, then refined, clipped and suppressed: the proposals
    pyramid_levels   the pyramid level of each RoI, by its size
    roi_align        the samples of an RoI on its level, and its features compared with ROIPool
    box_head         class, score and refined box of each proposal, and the filters that follow
    mask_head        small masks, scaled to their boxes, on the image
    mask_loss        targets of the mask head: target, prediction and loss of each pixel
    result           all steps together: the result of `MaskRCNN.detect`

For any part of the network:

    feature_maps     the output of any layer
    weights          histograms of weight tensors
    tensorboard/     callbacks that write detections, weights, gradients and the graph during training

All of them use `tensors` to fetch values by layer name.

Each file is imported when one of its names is used. Labeling anchors needs no framework, and only the
TensorBoard callbacks need TensorBoard.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrcnn.inspection.anchor_targets import AnchorLabels as AnchorLabels
    from mrcnn.inspection.anchor_targets import draw_anchor_labels as draw_anchor_labels
    from mrcnn.inspection.anchor_targets import label_anchors as label_anchors
    from mrcnn.inspection.box_head import draw_box_filters as draw_box_filters
    from mrcnn.inspection.box_head import draw_classified_rois as draw_classified_rois
    from mrcnn.inspection.box_head import draw_detections as draw_detections
    from mrcnn.inspection.box_head import draw_refined_rois as draw_refined_rois
    from mrcnn.inspection.box_head import refine_boxes as refine_boxes
    from mrcnn.inspection.feature_maps import draw_activations as draw_activations
    from mrcnn.inspection.feature_maps import layer_activations as layer_activations
    from mrcnn.inspection.feature_maps import stage_names as stage_names
    from mrcnn.inspection.mask_head import draw_masks as draw_masks
    from mrcnn.inspection.mask_head import generate_masks as generate_masks
    from mrcnn.inspection.mask_loss import draw_mask_losses as draw_mask_losses
    from mrcnn.inspection.mask_loss import mask_losses as mask_losses
    from mrcnn.inspection.proposals import draw_anchor_deltas as draw_anchor_deltas
    from mrcnn.inspection.proposals import draw_proposal_corners as draw_proposal_corners
    from mrcnn.inspection.proposals import draw_proposals as draw_proposals
    from mrcnn.inspection.proposals import draw_refined_anchors as draw_refined_anchors
    from mrcnn.inspection.proposals import draw_top_anchors as draw_top_anchors
    from mrcnn.inspection.proposals import proposal_recall as proposal_recall
    from mrcnn.inspection.proposals import sort_anchors as sort_anchors
    from mrcnn.inspection.pyramid_levels import assign_levels as assign_levels
    from mrcnn.inspection.pyramid_levels import draw_levels as draw_levels
    from mrcnn.inspection.result import compose_result as compose_result
    from mrcnn.inspection.result import draw_result as draw_result
    from mrcnn.inspection.roi_align import draw_pooled_rois as draw_pooled_rois
    from mrcnn.inspection.roi_align import pool_rois as pool_rois
    from mrcnn.inspection.tensorboard.callbacks import DetectionImages as DetectionImages
    from mrcnn.inspection.tensorboard.callbacks import GradientHistograms as GradientHistograms
    from mrcnn.inspection.tensorboard.callbacks import NetworkGraph as NetworkGraph
    from mrcnn.inspection.tensorboard.callbacks import WeightHistograms as WeightHistograms
    from mrcnn.inspection.tensorboard.callbacks import tensorboard_callbacks as tensorboard_callbacks
    from mrcnn.inspection.weights import draw_weight_histograms as draw_weight_histograms
    from mrcnn.inspection.weights import weight_statistics as weight_statistics

_NAMES_BY_FILE = {
    "anchor_targets": ("AnchorLabels", "draw_anchor_labels", "label_anchors"),
    "box_head": (
        "draw_box_filters",
        "draw_classified_rois",
        "draw_detections",
        "draw_refined_rois",
        "refine_boxes",
    ),
    "feature_maps": ("draw_activations", "layer_activations", "stage_names"),
    "mask_head": ("draw_masks", "generate_masks"),
    "mask_loss": ("draw_mask_losses", "mask_losses"),
    "proposals": (
        "draw_anchor_deltas",
        "draw_proposal_corners",
        "draw_proposals",
        "draw_refined_anchors",
        "draw_top_anchors",
        "proposal_recall",
        "sort_anchors",
    ),
    "pyramid_levels": ("assign_levels", "draw_levels"),
    "result": ("compose_result", "draw_result"),
    "roi_align": ("draw_pooled_rois", "pool_rois"),
    "tensorboard.callbacks": (
        "DetectionImages",
        "GradientHistograms",
        "NetworkGraph",
        "WeightHistograms",
        "tensorboard_callbacks",
    ),
    "weights": ("draw_weight_histograms", "weight_statistics"),
}
_FILES = {name: file for file, names in _NAMES_BY_FILE.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the file that defines a name when the name is first used."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, whether imported or not."""
    return sorted(_FILES)

"""The seven steps of the detector, one after the other: values of the running network, and their pictures.

1 anchors and proposals, 2 box refinement, 3 masks, 4 activations, 5 weights, 6 TensorBoard, 7 the result.
Each step has a function that computes plain arrays and functions that draw them and return the figure.
"""

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
from mrcnn.inspection.proposals import draw_anchor_deltas as draw_anchor_deltas
from mrcnn.inspection.proposals import draw_proposal_corners as draw_proposal_corners
from mrcnn.inspection.proposals import draw_proposals as draw_proposals
from mrcnn.inspection.proposals import draw_refined_anchors as draw_refined_anchors
from mrcnn.inspection.proposals import draw_top_anchors as draw_top_anchors
from mrcnn.inspection.proposals import proposal_recall as proposal_recall
from mrcnn.inspection.proposals import sort_anchors as sort_anchors
from mrcnn.inspection.result import compose_result as compose_result
from mrcnn.inspection.result import draw_result as draw_result
from mrcnn.inspection.tensorboard.callbacks import DetectionImages as DetectionImages
from mrcnn.inspection.tensorboard.callbacks import GradientHistograms as GradientHistograms
from mrcnn.inspection.tensorboard.callbacks import NetworkGraph as NetworkGraph
from mrcnn.inspection.tensorboard.callbacks import WeightHistograms as WeightHistograms
from mrcnn.inspection.tensorboard.callbacks import tensorboard_callbacks as tensorboard_callbacks
from mrcnn.inspection.weights import draw_weight_histograms as draw_weight_histograms
from mrcnn.inspection.weights import weight_statistics as weight_statistics

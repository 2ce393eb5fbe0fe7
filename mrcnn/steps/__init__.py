"""The seven steps of the detector, one after the other: values of the running network, and their pictures.

1 anchors and proposals, 2 box refinement, 3 masks, 4 activations, 5 weights, 6 TensorBoard, 7 the result.
Each step has a function that computes plain arrays and functions that draw them and return the figure.
"""

from mrcnn.steps.activations import draw_activations as draw_activations
from mrcnn.steps.activations import layer_activations as layer_activations
from mrcnn.steps.activations import stage_names as stage_names
from mrcnn.steps.anchor_labels import draw_anchor_labels as draw_anchor_labels
from mrcnn.steps.anchor_labels import label_anchors as label_anchors
from mrcnn.steps.box_refinement import draw_box_filters as draw_box_filters
from mrcnn.steps.box_refinement import draw_classified_rois as draw_classified_rois
from mrcnn.steps.box_refinement import draw_detections as draw_detections
from mrcnn.steps.box_refinement import draw_refined_rois as draw_refined_rois
from mrcnn.steps.box_refinement import refine_boxes as refine_boxes
from mrcnn.steps.masks import draw_masks as draw_masks
from mrcnn.steps.masks import generate_masks as generate_masks
from mrcnn.steps.proposals import draw_anchor_deltas as draw_anchor_deltas
from mrcnn.steps.proposals import draw_proposal_corners as draw_proposal_corners
from mrcnn.steps.proposals import draw_proposals as draw_proposals
from mrcnn.steps.proposals import draw_refined_anchors as draw_refined_anchors
from mrcnn.steps.proposals import draw_top_anchors as draw_top_anchors
from mrcnn.steps.proposals import proposal_recall as proposal_recall
from mrcnn.steps.proposals import sort_anchors as sort_anchors
from mrcnn.steps.result import compose_result as compose_result
from mrcnn.steps.result import draw_result as draw_result
from mrcnn.steps.tensorboard import DetectionImages as DetectionImages
from mrcnn.steps.tensorboard import GradientHistograms as GradientHistograms
from mrcnn.steps.tensorboard import NetworkGraph as NetworkGraph
from mrcnn.steps.tensorboard import WeightHistograms as WeightHistograms
from mrcnn.steps.tensorboard import tensorboard_callbacks as tensorboard_callbacks
from mrcnn.steps.weights import draw_weight_histograms as draw_weight_histograms
from mrcnn.steps.weights import weight_statistics as weight_statistics

"""Names that scripts import from here; each lives in the module it belongs to."""

from typing import Any

from mrcnn.checkpoints.downloads import COCO_MODEL_URL as COCO_MODEL_URL
from mrcnn.checkpoints.downloads import download_trained_weights as download_trained_weights
from mrcnn.dataset import Dataset as Dataset
from mrcnn.evaluation.average_precision import compute_ap as compute_ap
from mrcnn.evaluation.average_precision import compute_ap_range as compute_ap_range
from mrcnn.evaluation.average_precision import compute_recall as compute_recall
from mrcnn.evaluation.matching import compute_matches as compute_matches
from mrcnn.geometry.anchors import generate_anchors as generate_anchors
from mrcnn.geometry.anchors import generate_pyramid_anchors as generate_pyramid_anchors
from mrcnn.geometry.boxes import apply_box_deltas as apply_box_deltas
from mrcnn.geometry.boxes import box_refinement as box_refinement
from mrcnn.geometry.boxes import compute_iou as compute_iou
from mrcnn.geometry.boxes import compute_overlaps as compute_overlaps
from mrcnn.geometry.boxes import denorm_boxes as denorm_boxes
from mrcnn.geometry.boxes import non_max_suppression as non_max_suppression
from mrcnn.geometry.boxes import norm_boxes as norm_boxes
from mrcnn.geometry.boxes import trim_zeros as trim_zeros
from mrcnn.geometry.images import resize as resize
from mrcnn.geometry.images import resize_image as resize_image
from mrcnn.geometry.images import resize_mask as resize_mask
from mrcnn.geometry.masks import compute_overlaps_masks as compute_overlaps_masks
from mrcnn.geometry.masks import expand_mask as expand_mask
from mrcnn.geometry.masks import extract_bboxes as extract_bboxes
from mrcnn.geometry.masks import minimize_mask as minimize_mask
from mrcnn.geometry.masks import mold_mask as mold_mask
from mrcnn.geometry.masks import unmold_mask as unmold_mask

Tensor = Any


def box_refinement_graph(box: Tensor, gt_box: Tensor) -> Tensor:
    """`box_refinement` of tensors: [N, 4] and [N, 4] of one unit give deltas [N, 4]."""
    from mrcnn.network import box_ops

    return box_ops.box_refinement(box, gt_box)


def batch_slice(inputs: Any, graph_fn: Any, batch_size: int, names: list[str] | None = None) -> Any:
    """Apply a function to each image of a batch and stack what it gives.

    inputs: one tensor [B, ...] or a list of them; graph_fn: takes one slice of each and returns a tensor or
    several; batch_size: how many images are taken; names: not used. Returns a stacked tensor, or a list of
    them.
    """
    from keras import ops

    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    rows = [graph_fn(*(x[i] for x in inputs)) for i in range(batch_size)]
    if not isinstance(rows[0], (list, tuple)):
        return ops.stack(rows)
    return [ops.stack(column) for column in zip(*rows, strict=True)]

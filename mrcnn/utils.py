"""Functions and classes that programs import from `mrcnn.utils`. Other modules define most of them."""

from collections.abc import Callable, Sequence

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
from mrcnn.typing import Tensor


def box_refinement_graph(box: Tensor, gt_box: Tensor) -> Tensor:
    """Return the deltas [N, 4] that turn boxes [N, 4] into ground-truth boxes [N, 4], as tensors.

    All boxes are in the same unit. `box_refinement` does the same for arrays.
    """
    from mrcnn.network import box_ops  # arrays need no backend, so `import mrcnn.utils` loads none

    return box_ops.box_refinement(box, gt_box)


def batch_slice(
    inputs: Tensor | Sequence[Tensor],
    graph_fn: Callable[..., Tensor | Sequence[Tensor]],
    batch_size: int,
    names: Sequence[str] | None = None,
) -> Tensor | list[Tensor]:
    """Apply a function to each image of a batch, and stack the results.

    Args:
        inputs: A tensor [B, ...], or a list of them.
        graph_fn: A function of one slice [...] of each input. It returns one tensor or several.
        batch_size: The number of images.
        names: Not used.

    Returns:
        A tensor [batch_size, ...] if graph_fn returns one, also in a list; otherwise a list of them.
    """
    from keras import ops

    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    rows = [graph_fn(*(x[index] for x in inputs)) for index in range(batch_size)]
    if not isinstance(rows[0], (list, tuple)):
        return ops.stack(rows)
    columns = [ops.stack(column) for column in zip(*rows, strict=True)]
    return columns[0] if len(columns) == 1 else columns

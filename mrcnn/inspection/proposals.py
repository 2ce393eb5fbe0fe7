"""The output of the RPN: anchors sorted by score, refined, clipped and suppressed to the proposals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import visualize
from mrcnn.evaluation import average_precision
from mrcnn.geometry import boxes
from mrcnn.inspection import tensors
from mrcnn.typing import Boxes, Image
from mrcnn.visualize import figures
from mrcnn.visualize.boxes import SOLID

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN

DELTA_NAMES = ("dy", "dx", "log dh", "log dw")
PROPOSAL_STEPS = {
    "pre_nms_anchor_ix": "ROI/pre_nms_anchor_ix:0",
    "pre_nms_anchors": "ROI/pre_nms_anchors:0",
    "refined_anchors": "ROI/refined_anchors:0",
    "refined_anchors_clipped": "ROI/refined_anchors_clipped:0",
    "post_nms_anchor_ix": "ROI/rpn_non_max_suppression:0",
}


@dataclass(frozen=True)
class SortedAnchors:
    """The output of the RPN for one image, step by step. Boxes are in pixels, y2 and x2 exclusive.

    Attributes:
        input: The image as the network received it.
        anchors: All anchors [A, 4], float64.
        scores: Foreground scores [A].
        deltas: Deltas [A, (dy, dx, log dh, log dw)], relative to the anchors, as the network applies them.
        best: The K anchors that enter non-maximum suppression [K, 4], int32, the highest score first. With
            CONVENTIONS other than "keras2", these are the best of each pyramid level.
        best_scores: Their scores [K].
        refined: These anchors after their deltas, int32 [K, 4].
        clipped: The refined anchors clipped to the image, int32 [K, 4].
        kept: Rows [P] of the K boxes that non-maximum suppression keeps.
        proposals: The proposals, int32 [P, 4].
    """

    input: tensors.NetworkInput
    anchors: Boxes
    scores: np.ndarray
    deltas: np.ndarray
    best: Boxes
    best_scores: np.ndarray
    refined: Boxes
    clipped: Boxes
    kept: np.ndarray
    proposals: Boxes


def sort_anchors(model: MaskRCNN, image: Image, image_meta: np.ndarray | None = None) -> SortedAnchors:
    """Fetch every step from the anchors to the proposals (Faster R-CNN, section 3.3).

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image, or one from `load_image_gt` with `image_meta`; see `tensors.fetch`.
        image_meta: The image meta of an image from `load_image_gt`.
    """
    outputs = tensors.layer_outputs(model, {"rpn_class": "rpn_class", "rpn_bbox": "rpn_bbox"})
    roi = model.keras_model.get_layer("ROI").output
    outputs |= {label: model.ancestor(roi, name) for label, name in PROPOSAL_STEPS.items()}
    network_input, values = tensors.fetch(model, image, outputs | {"proposals": roi}, image_meta)
    shape = network_input.image.shape
    model.get_anchors(shape)  # also sets model.anchors, in pixels
    scores = values["rpn_class"][:, 1]
    # Rows without an anchor are empty, or their boxes are too small to become proposals.
    has_anchor = values["pre_nms_anchor_ix"] >= 0
    best_scores = scores[values["pre_nms_anchor_ix"][has_anchor]]

    def in_pixels(label: str) -> Boxes:
        return network_input.pixels(values[label][has_anchor])

    is_filled = values["proposals"].any(axis=1)
    return SortedAnchors(
        input=network_input,
        anchors=model.anchors,
        scores=scores,
        deltas=tensors.applied_deltas(values["rpn_bbox"], model.config.RPN_BBOX_STD_DEV, model.config),
        best=in_pixels("pre_nms_anchors"),
        best_scores=best_scores,
        refined=in_pixels("refined_anchors"),
        clipped=in_pixels("refined_anchors_clipped"),
        kept=values["post_nms_anchor_ix"][: len(best_scores)],
        proposals=network_input.pixels(values["proposals"][is_filled]),
    )


def proposal_recall(anchors: SortedAnchors, gt_boxes: Boxes, iou: float = 0.7) -> dict[str, float]:
    """Compute the share of objects that a box overlaps by at least an IoU, at each stage of the RPN.

    Args:
        anchors: The result of `sort_anchors`.
        gt_boxes: Ground-truth boxes [G, 4] in pixels of `anchors.input.image`.
        iou: Smallest IoU that counts.

    Returns:
        Recall of "anchors" (all A), "refined anchors" (all A after their deltas) and "proposals".
    """
    stages = {
        "anchors": anchors.anchors,
        "refined anchors": boxes.apply_box_deltas(anchors.anchors, anchors.deltas),
        "proposals": anchors.proposals,
    }
    gt_boxes = np.asarray(gt_boxes)
    return {
        name: float(average_precision.compute_recall(rows, gt_boxes, iou)[0]) for name, rows in stages.items()
    }


def draw_top_anchors(anchors: SortedAnchors, limit: int = 100) -> Figure:
    """Draw the `limit` anchors of the highest scores, colored by score. Returns the figure."""
    best, scores = anchors.best[:limit], anchors.best_scores[:limit]
    figure, axes = figures.panels(anchors.input.image.shape, 1, 1, side=7)
    scale = figures.color_scale(scores)
    visualize.draw_boxes(
        anchors.input.image,
        boxes=best,
        visibilities=np.full(len(best), SOLID),
        title=f"{len(best)} best of {len(anchors.anchors)} anchors",
        ax=axes[0, 0],
        colors=scale.to_rgba(scores),
    )
    figure.colorbar(scale, ax=axes[0, 0], label="foreground score", shrink=0.7)
    return figures.finish(figure, show=False)


def draw_refined_anchors(anchors: SortedAnchors, limit: int = 50) -> Figure:
    """Draw the `limit` best anchors before (dotted) and after refinement (solid), and after clipping.

    Returns the figure, with two panels.
    """
    figure, axes = figures.panels(anchors.input.image.shape, 1, 2, side=6)
    visualize.draw_boxes(
        anchors.input.image,
        boxes=anchors.best[:limit],
        refined_boxes=anchors.refined[:limit],
        title="Best anchors (dotted), refined (solid)",
        ax=axes[0, 0],
    )
    visualize.draw_boxes(
        anchors.input.image,
        refined_boxes=anchors.clipped[:limit],
        title="Refined and clipped to the image",
        ax=axes[0, 1],
    )
    return figures.finish(figure, show=False)


def draw_proposals(anchors: SortedAnchors, limit: int = 50) -> Figure:
    """Draw the `limit` best refined boxes before non-maximum suppression, and the best that it keeps.

    Returns the figure, with two panels.
    """
    figure, axes = figures.panels(anchors.input.image.shape, 1, 2, side=6)
    for ax, rows, name in (
        (axes[0, 0], anchors.clipped, "before NMS"),
        (axes[0, 1], anchors.proposals, "after NMS: proposals"),
    ):
        best = rows[:limit]
        visualize.draw_boxes(
            anchors.input.image,
            refined_boxes=best,
            title=f"{len(best)} best of {len(rows)} boxes {name}",
            ax=ax,
        )
    return figures.finish(figure, show=False)


def draw_anchor_deltas(anchors: SortedAnchors) -> Figure:
    """Draw histograms of the deltas of all anchors: dy, dx, log dh, log dw. Returns the figure."""
    figure, axes = figures.pyplot().subplots(1, 4, figsize=(14, 3), layout="constrained", sharey=True)
    for ax, name, values in zip(axes, DELTA_NAMES, anchors.deltas.T, strict=True):
        ax.hist(values, bins=50, log=True)
        ax.set_title(name)
    axes[0].set_ylabel("anchors")
    return figures.finish(figure, show=False)


def draw_proposal_corners(anchors: SortedAnchors) -> Figure:
    """Draw scatter plots of the proposals' top-left and bottom-right corners. Returns the figure."""
    height, width = anchors.input.image.shape[:2]
    figure, axes = figures.pyplot().subplots(1, 2, figsize=(10, 5), layout="constrained")
    for ax, name, first in ((axes[0], "Top-left corners", 0), (axes[1], "Bottom-right corners", 2)):
        ax.scatter(anchors.proposals[:, first + 1], anchors.proposals[:, first], s=6)
        ax.set(title=name, xlabel="x", ylabel="y", xlim=(0, width), ylim=(height, 0), aspect="equal")
    return figures.finish(figure, show=False)

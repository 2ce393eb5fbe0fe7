"""Step 1, what the RPN says: anchors sorted by score, refined, clipped, thinned to proposals."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import visualize
from mrcnn.evaluation import average_precision
from mrcnn.geometry import boxes
from mrcnn.inspection import tensors
from mrcnn.visualize import figures

DELTA_NAMES = ("dy", "dx", "log dh", "log dw")
PROPOSAL_STEPS = {
    "pre_nms_anchors": "ROI/pre_nms_anchors:0",
    "refined_anchors": "ROI/refined_anchors:0",
    "refined_anchors_clipped": "ROI/refined_anchors_clipped:0",
    "post_nms_anchor_ix": "ROI/rpn_non_max_suppression:0",
}


@dataclass(frozen=True)
class SortedAnchors:
    """The RPN's output for one picture, step by step; boxes are pixels of the picture, y2 and x2 outside.

    seen: the picture. anchors: [A, 4] float64, all of them. scores: [A] foreground probability. deltas:
    [A, 4] in units of the anchors (dy, dx, log dh, log dw).
    best: [K, 4] int32, the K anchors of the highest scores, falling. best_scores: [K]. refined, clipped:
    [K, 4] int32, those after their deltas and after clipping to the picture. kept: int [P], the rows of the K
    that survive NMS. proposals: [P, 4] int32.
    """

    seen: tensors.Seen
    anchors: np.ndarray
    scores: np.ndarray
    deltas: np.ndarray
    best: np.ndarray
    best_scores: np.ndarray
    refined: np.ndarray
    clipped: np.ndarray
    kept: np.ndarray
    proposals: np.ndarray


def sort_anchors(model: Any, image: np.ndarray, image_meta: np.ndarray | None = None) -> SortedAnchors:
    """Fetch every step from the anchors to the proposals (Faster R-CNN, section 3.3).

    model, image, image_meta: see `tensors.fetch`.
    """
    outputs = tensors.layer_outputs(model, {"rpn_class": "rpn_class", "rpn_bbox": "rpn_bbox"})
    roi = model.keras_model.get_layer("ROI").output
    outputs |= {label: model.ancestor(roi, name) for label, name in PROPOSAL_STEPS.items()}
    seen, values = tensors.fetch(model, image, outputs | {"proposals": roi}, image_meta)
    shape = seen.picture.shape
    model.get_anchors(shape)
    scores = values["rpn_class"][:, 1]
    best_scores = np.sort(scores)[::-1][: len(values["pre_nms_anchors"])]

    def in_pixels(label: str) -> np.ndarray:
        # Where the number of anchors is unknown before the run, empty rows fill up to the limit.
        return boxes.denorm_boxes(values[label][: len(best_scores)], shape[:2])

    is_filled = values["proposals"].any(axis=1)
    return SortedAnchors(
        seen=seen,
        anchors=model.anchors,
        scores=scores,
        deltas=values["rpn_bbox"] * np.asarray(model.config.RPN_BBOX_STD_DEV, np.float32),
        best=in_pixels("pre_nms_anchors"),
        best_scores=best_scores,
        refined=in_pixels("refined_anchors"),
        clipped=in_pixels("refined_anchors_clipped"),
        kept=values["post_nms_anchor_ix"][is_filled],
        proposals=boxes.denorm_boxes(values["proposals"][is_filled], shape[:2]),
    )


def proposal_recall(found: SortedAnchors, gt_boxes: np.ndarray, iou: float = 0.7) -> dict[str, float]:
    """Share of the objects that have a box of at least this IoU, at each stage of the RPN.

    gt_boxes: [G, 4] in pixels of the picture as the network saw it.
    Returns recall for "anchors" (all A), "refined anchors" (all A after their deltas) and "proposals".
    """
    stages = {
        "anchors": found.anchors,
        "refined anchors": boxes.apply_box_deltas(found.anchors, found.deltas),
        "proposals": found.proposals,
    }
    gt_boxes = np.asarray(gt_boxes)
    return {
        name: float(average_precision.compute_recall(rows, gt_boxes, iou)[0]) for name, rows in stages.items()
    }


def draw_top_anchors(found: SortedAnchors, limit: int = 100) -> Any:
    """Draw the `limit` anchors of the highest scores, coloured by score. Returns the figure."""
    anchors, scores = found.best[:limit], found.best_scores[:limit]
    figure, axes = figures.panels(found.seen.picture.shape, 1, 1, side=7)
    scale = figures.color_scale(scores)
    visualize.draw_boxes(
        found.seen.picture,
        boxes=anchors,
        visibilities=np.full(len(anchors), 2),
        title=f"{len(anchors)} best of {len(found.anchors)} anchors",
        ax=axes[0, 0],
        colors=scale.to_rgba(scores),
    )
    figure.colorbar(scale, ax=axes[0, 0], label="score of foreground", shrink=0.7)
    return figures.finish(figure, show=False)


def draw_refined_anchors(found: SortedAnchors, limit: int = 50) -> Any:
    """Draw the best anchors before (dotted) and after refinement (solid), and after clipping.

    Returns the figure, two panels.
    """
    figure, axes = figures.panels(found.seen.picture.shape, 1, 2, side=6)
    visualize.draw_boxes(
        found.seen.picture,
        boxes=found.best[:limit],
        refined_boxes=found.refined[:limit],
        title="Best anchors (dotted), refined (solid)",
        ax=axes[0, 0],
    )
    visualize.draw_boxes(
        found.seen.picture,
        refined_boxes=found.clipped[:limit],
        title="Refined and clipped to the image",
        ax=axes[0, 1],
    )
    return figures.finish(figure, show=False)


def draw_proposals(found: SortedAnchors, limit: int = 50) -> Any:
    """Draw the best refined boxes before non-maximum suppression and the best ones that it keeps.

    Returns the figure, two panels.
    """
    figure, axes = figures.panels(found.seen.picture.shape, 1, 2, side=6)
    for ax, rows, name in (
        (axes[0, 0], found.clipped, "before NMS"),
        (axes[0, 1], found.proposals, "after NMS: proposals"),
    ):
        shown = rows[:limit]
        visualize.draw_boxes(
            found.seen.picture,
            refined_boxes=shown,
            title=f"{len(shown)} best of {len(rows)} boxes {name}",
            ax=ax,
        )
    return figures.finish(figure, show=False)


def draw_anchor_deltas(found: SortedAnchors) -> Any:
    """Histograms of the RPN's deltas over all anchors: dy, dx, log dh, log dw. Returns the figure."""
    figure, axes = figures.pyplot().subplots(1, 4, figsize=(14, 3), layout="constrained", sharey=True)
    for ax, name, values in zip(axes, DELTA_NAMES, found.deltas.T, strict=True):
        ax.hist(values, bins=50, log=True)
        ax.set_title(name)
    axes[0].set_ylabel("anchors")
    return figures.finish(figure, show=False)


def draw_proposal_corners(found: SortedAnchors) -> Any:
    """Scatter plots of the proposals' top-left and bottom-right corners. Returns the figure."""
    height, width = found.seen.picture.shape[:2]
    figure, axes = figures.pyplot().subplots(1, 2, figsize=(10, 5), layout="constrained")
    for ax, name, first in ((axes[0], "Top-left corners", 0), (axes[1], "Bottom-right corners", 2)):
        ax.scatter(found.proposals[:, first + 1], found.proposals[:, first], s=6)
        ax.set(title=name, xlabel="x", ylabel="y", xlim=(0, width), ylim=(height, 0), aspect="equal")
    return figures.finish(figure, show=False)

"""The box head: a class and a refined box for each proposal, and the subsequent filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import visualize
from mrcnn.geometry import boxes
from mrcnn.inspection import tensors
from mrcnn.typing import Boxes, ClassIds, Image
from mrcnn.visualize import figures
from mrcnn.visualize.boxes import FAINT, SOLID
from mrcnn.visualize.captions import instance_captions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

LAYERS = {
    "proposals": "ROI",
    "scores": "mrcnn_class",
    "deltas": "mrcnn_bbox",
    "detections": "mrcnn_detection",
}


@dataclass(frozen=True)
class RefinedBoxes:
    """The proposals after each step. Boxes are int32 in pixels, y2 and x2 exclusive.

    Each filter keeps some of the boxes that the previous one kept.

    Attributes:
        input: The image as the network received it.
        proposals: Proposals [P, 4], best first, without unused slots.
        class_ids: The most probable class [P] of each. With DETECTIONS_PER_CLASS, or CONVENTIONS other than
            "keras2", the most probable class except background, if its score is high enough for a detection.
        scores: The score [P] of that class.
        refined: Proposals [P, 4] after the deltas of that class, clipped to the window.
        is_object: bool [P], the class is not the background.
        is_confident: bool [P], the score is also at least DETECTION_MIN_CONFIDENCE.
        is_kept: bool [P], the box is also kept by NMS within its class and by DETECTION_MAX_INSTANCES. With
            SOFT_NMS_SIGMA, NMS keeps boxes whose lowered score is still high enough. With
            DETECTIONS_PER_CLASS, or CONVENTIONS other than "keras2", boxes without area are left out before.
        final_scores: The score [P] after boxes of the same class have lowered it, see SOFT_NMS_SIGMA; without
            that setting, the same as `scores`.
        detection_boxes: The network's own result [D, 4].
        detection_class_ids: Class ids [D] of the network's own result.
        detection_scores: Scores [D] of the network's own result.
    """

    input: tensors.NetworkInput
    proposals: Boxes
    class_ids: ClassIds
    scores: np.ndarray
    refined: Boxes
    is_object: np.ndarray
    is_confident: np.ndarray
    is_kept: np.ndarray
    final_scores: np.ndarray
    detection_boxes: Boxes
    detection_class_ids: ClassIds
    detection_scores: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Number of boxes after each filter, in order."""
        return {
            "proposals": len(self.proposals),
            "not background": int(self.is_object.sum()),
            "confident": int(self.is_confident.sum()),
            "after NMS": int(self.is_kept.sum()),
        }


def refine_boxes(model: MaskRCNN, image: Image, image_meta: np.ndarray | None = None) -> RefinedBoxes:
    """Fetch the output of the box head, and repeat its refinement and filters in NumPy.

    See Mask R-CNN, section 3.1. Only one class of each RoI is considered. With DETECTIONS_PER_CLASS, or
    CONVENTIONS other than "keras2", the network also keeps other classes, which only appear in the
    detections.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image, or one from `load_image_gt` with `image_meta`; see `tensors.fetch`.
        image_meta: The image meta of an image from `load_image_gt`.
    """
    outputs = tensors.layer_outputs(model, LAYERS)
    network_input, values = tensors.fetch(model, image, outputs, image_meta)
    config = model.config
    rois = values["proposals"]
    is_filled = rois.any(axis=1)
    rois, class_scores, deltas = rois[is_filled], values["scores"][is_filled], values["deltas"][is_filled]
    rows = np.arange(len(rois))
    min_score = config.DETECTION_MIN_CONFIDENCE or 0
    class_ids = class_scores.argmax(axis=1)
    if config.conventions().detections_per_class:
        best = class_scores[:, 1:].argmax(axis=1) + 1
        class_ids = np.where(class_scores[rows, best] >= min_score, best, class_ids)
    scores = class_scores[rows, class_ids]
    class_deltas = tensors.applied_deltas(deltas[rows, class_ids], config.BBOX_STD_DEV, config)
    window = network_input.normalized(network_input.window)
    refined = boxes.clip_boxes(boxes.apply_box_deltas(rois, class_deltas), window)
    is_object = class_ids > 0
    is_confident = is_object & (scores >= min_score)
    candidates = is_confident & _has_size(refined, network_input, config)
    kept, final_scores = _suppress(refined, scores, class_ids, candidates, config)
    detections = values["detections"][values["detections"][:, 4] > 0]
    return RefinedBoxes(
        input=network_input,
        proposals=network_input.pixels(rois),
        class_ids=class_ids,
        scores=scores,
        refined=network_input.pixels(refined),
        is_object=is_object,
        is_confident=is_confident,
        is_kept=np.isin(rows, kept),
        final_scores=final_scores,
        detection_boxes=network_input.pixels(detections[:, :4]),
        detection_class_ids=detections[:, 4].astype(np.int32),
        detection_scores=detections[:, 5],
    )


def _has_size(refined: Boxes, network_input: tensors.NetworkInput, config: Config) -> np.ndarray:
    """Return which normalized boxes [P, 4] are large enough for detections, bool [P]. By default all are."""
    conventions = config.conventions()
    if not conventions.detections_per_class:
        return np.ones(len(refined), bool)
    sides = (refined[:, 2:] - refined[:, :2]) * np.asarray(network_input.image.shape[:2], np.float32)
    shortest: np.ndarray = sides.min(axis=1)
    return (shortest > 0) & (shortest >= conventions.min_detection_side)


def _suppress(
    rois: Boxes, scores: np.ndarray, class_ids: ClassIds, candidates: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Apply NMS or Soft-NMS to candidates, bool [P], within each class.

    Returns:
        The rows that remain, best first, up to the limit; and the scores [P], which Soft-NMS has lowered.
    """
    if config.SOFT_NMS_SIGMA is None:
        kept = []
        for class_id in np.unique(class_ids[candidates]):
            # For equal scores numpy's NMS takes the last box and the network the first: reverse the order.
            rows = np.flatnonzero(candidates & (class_ids == class_id))[::-1]
            picked = boxes.non_max_suppression(rois[rows], scores[rows], config.DETECTION_NMS_THRESHOLD)
            kept.append(rows[picked])
        together = np.sort(np.concatenate([np.zeros(0, int), *kept]))
        best_first = together[np.argsort(-scores[together], kind="stable")]
    else:
        rows, scores = np.flatnonzero(candidates), scores.copy()
        picked, scores[rows] = boxes.soft_non_max_suppression(
            rois[rows],
            scores[rows],
            class_ids[rows],
            config.SOFT_NMS_SIGMA,
            config.DETECTION_MIN_CONFIDENCE,
        )
        best_first = rows[picked]
    return best_first[: config.DETECTION_MAX_INSTANCES], scores


def draw_classified_rois(
    refined: RefinedBoxes, class_names: Sequence[str], limit: int = 200, seed: int = 0
) -> Figure:
    """Draw a random sample of the proposals before refinement: background dotted, objects with captions.

    Args:
        refined: The result of `refine_boxes`.
        class_names: A name for each class id, the background first.
        limit: Largest number of proposals to draw.
        seed: Seed of the random sample.

    Returns:
        The figure.
    """
    rows = _sample(np.arange(len(refined.proposals)), limit, seed)
    is_object = refined.is_object[rows]
    figure, axes = figures.panels(refined.input.image.shape, 1, 1, side=8)
    visualize.draw_boxes(
        refined.input.image,
        boxes=refined.proposals[rows],
        captions=_captions(refined, rows, refined.scores, class_names),
        visibilities=np.where(is_object, SOLID, FAINT),
        title=f"{len(rows)} proposals before refinement, {is_object.sum()} of them objects",
        ax=axes[0, 0],
    )
    return figures.finish(figure, show=False)


def draw_refined_rois(
    refined: RefinedBoxes, class_names: Sequence[str], limit: int = 5, seed: int = 0
) -> Figure:
    """Draw a random sample of the proposals that are objects, before (dotted) and after refinement (solid).

    Args:
        refined: The result of `refine_boxes`.
        class_names: A name for each class id, the background first.
        limit: Largest number of proposals to draw.
        seed: Seed of the random sample.

    Returns:
        The figure.
    """
    rows = _sample(np.flatnonzero(refined.is_object), limit, seed)
    title = f"{len(rows)} proposals (dotted), refined (solid)"
    return _draw_before_and_after(refined, rows, refined.scores, class_names, title)


def draw_box_filters(refined: RefinedBoxes, class_names: Sequence[str]) -> Figure:
    """Draw the refined boxes that each filter leaves: all, not background, confident, after NMS.

    Args:
        refined: The result of `refine_boxes`.
        class_names: A name for each class id, the background first.

    Returns:
        The figure, with four panels whose titles count the boxes.
    """
    figure, axes = figures.panels(refined.input.image.shape, 2, 2, side=6)
    everything = np.ones(len(refined.proposals), bool)
    filters = (everything, refined.is_object, refined.is_confident, refined.is_kept)
    for ax, (name, count), is_left in zip(axes.flat, refined.counts.items(), filters, strict=True):
        rows = np.flatnonzero(is_left)
        has_captions = name == "after NMS"
        visualize.draw_boxes(
            refined.input.image,
            refined_boxes=refined.refined[rows],
            captions=_captions(refined, rows, refined.final_scores, class_names) if has_captions else None,
            title=f"{count} {name}",
            ax=ax,
        )
    return figures.finish(figure, show=False)


def draw_detections(refined: RefinedBoxes, class_names: Sequence[str]) -> Figure:
    """Draw the final detections: their proposals dotted, their refined boxes solid, class and score.

    Args:
        refined: The result of `refine_boxes`.
        class_names: A name for each class id, the background first.

    Returns:
        The figure. Its title counts the boxes after each filter.
    """
    rows = np.flatnonzero(refined.is_kept)
    counts = ", ".join(f"{count} {name}" for name, count in refined.counts.items())
    return _draw_before_and_after(refined, rows, refined.final_scores, class_names, f"Detections: {counts}")


def _draw_before_and_after(
    refined: RefinedBoxes, rows: np.ndarray, scores: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    figure, axes = figures.panels(refined.input.image.shape, 1, 1, side=8)
    visualize.draw_boxes(
        refined.input.image,
        boxes=refined.proposals[rows],
        refined_boxes=refined.refined[rows],
        captions=_captions(refined, rows, scores, class_names),
        title=title,
        ax=axes[0, 0],
    )
    return figures.finish(figure, show=False)


def _sample(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


def _captions(
    refined: RefinedBoxes, rows: np.ndarray, scores: np.ndarray, class_names: Sequence[str]
) -> list[str]:
    """Return class and score of the proposals in some rows, empty for background. `scores` has all [P]."""
    texts = instance_captions(refined.class_ids[rows], class_names, scores[rows])
    return [text if drawn else "" for text, drawn in zip(texts, refined.is_object[rows], strict=True)]

"""Step 2, the box head: a class and a refined box for each proposal, then the filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import visualize
from mrcnn.geometry import boxes
from mrcnn.inspection import tensors
from mrcnn.visualize import captions, figures

LAYERS = {
    "proposals": "ROI",
    "probs": "mrcnn_class",
    "deltas": "mrcnn_bbox",
    "detections": "mrcnn_detection",
}
BACKGROUND, SHOWN, SOLID = 0, 1, 2  # visibilities of `draw_boxes`


@dataclass(frozen=True)
class RefinedBoxes:
    """What becomes of each proposal; boxes are int32 pixels of the picture, y2 and x2 outside.

    seen: the picture. proposals: [P, 4], best first, without padding. class_ids, scores: [P], the most
    probable class and its probability. refined: [P, 4], moved by the class's deltas and clipped to the
    window.
    is_object, is_confident, is_kept: bool [P], what is left after the background, after the scores below
    DETECTION_MIN_CONFIDENCE and after NMS within each class have gone (and what exceeds
    DETECTION_MAX_INSTANCES); each is a part of the one before.
    detection_boxes [D, 4], detection_class_ids [D], detection_scores [D]: the network's own result.
    """

    seen: tensors.Seen
    proposals: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    refined: np.ndarray
    is_object: np.ndarray
    is_confident: np.ndarray
    is_kept: np.ndarray
    detection_boxes: np.ndarray
    detection_class_ids: np.ndarray
    detection_scores: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """How many boxes each filter leaves, in order."""
        return {
            "proposals": len(self.proposals),
            "not background": int(self.is_object.sum()),
            "confident": int(self.is_confident.sum()),
            "after NMS": int(self.is_kept.sum()),
        }


def refine_boxes(model: Any, image: np.ndarray, image_meta: np.ndarray | None = None) -> RefinedBoxes:
    """Fetch the box head's output and repeat its refinement and its filters in numpy.

    model, image, image_meta: see `tensors.fetch`. See Mask R-CNN, section 3.1.
    """
    outputs = tensors.layer_outputs(model, LAYERS)
    seen, values = tensors.fetch(model, image, outputs, image_meta)
    shape, config = seen.picture.shape[:2], model.config
    rois = values["proposals"]
    is_filled = rois.any(axis=1)
    rois, probs, deltas = rois[is_filled], values["probs"][is_filled], values["deltas"][is_filled]
    class_ids = probs.argmax(axis=1)
    rows = np.arange(len(rois))
    scores = probs[rows, class_ids]
    own_deltas = deltas[rows, class_ids] * np.asarray(config.BBOX_STD_DEV, np.float32)
    window = boxes.norm_boxes(seen.window, shape)
    refined = boxes.clip_boxes(boxes.apply_box_deltas(rois, own_deltas), window)
    is_object = class_ids > 0
    is_confident = is_object & (scores >= (config.DETECTION_MIN_CONFIDENCE or 0))
    kept = _suppress(refined, scores, class_ids, is_confident, config)
    detections = values["detections"][values["detections"][:, 4] > 0]
    return RefinedBoxes(
        seen=seen,
        proposals=boxes.denorm_boxes(rois, shape),
        class_ids=class_ids,
        scores=scores,
        refined=boxes.denorm_boxes(refined, shape),
        is_object=is_object,
        is_confident=is_confident,
        is_kept=np.isin(rows, kept),
        detection_boxes=boxes.denorm_boxes(detections[:, :4], shape),
        detection_class_ids=detections[:, 4].astype(np.int32),
        detection_scores=detections[:, 5],
    )


def _suppress(
    rows: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, wanted: np.ndarray, config: Any
) -> np.ndarray:
    """Indices of the wanted boxes that NMS within each class keeps, best first, at most the limit."""
    kept = []
    for class_id in np.unique(class_ids[wanted]):
        # Of equal scores numpy's NMS picks the last, the network's the first: hence the reverse order.
        of_class = np.flatnonzero(wanted & (class_ids == class_id))[::-1]
        picked = boxes.non_max_suppression(rows[of_class], scores[of_class], config.DETECTION_NMS_THRESHOLD)
        kept.append(of_class[picked])
    together = np.sort(np.concatenate([np.zeros(0, int), *kept]))
    return together[np.argsort(-scores[together], kind="stable")][: config.DETECTION_MAX_INSTANCES]


def draw_classified_rois(
    found: RefinedBoxes, class_names: Sequence[str], limit: int = 200, seed: int = 0
) -> Any:
    """Draw a sample of the proposals before refinement, background dotted, objects with class and score.

    Returns the figure.
    """
    chosen = _sample(np.arange(len(found.proposals)), limit, seed)
    is_object = found.is_object[chosen]
    figure, axes = figures.panels(found.seen.picture.shape, 1, 1, side=8)
    visualize.draw_boxes(
        found.seen.picture,
        boxes=found.proposals[chosen],
        captions=_captions(found, chosen, class_names),
        visibilities=np.where(is_object, SOLID, BACKGROUND),
        title=f"{len(chosen)} proposals before refinement, {is_object.sum()} of them objects",
        ax=axes[0, 0],
    )
    return figures.finish(figure, show=False)


def draw_refined_rois(found: RefinedBoxes, class_names: Sequence[str], limit: int = 5, seed: int = 0) -> Any:
    """Draw a sample of the object proposals before (dotted) and after refinement (solid).

    Returns the figure.
    """
    chosen = _sample(np.flatnonzero(found.is_object), limit, seed)
    return _draw_before_and_after(
        found, chosen, class_names, f"{len(chosen)} proposals (dotted), refined (solid)"
    )


def draw_box_filters(found: RefinedBoxes, class_names: Sequence[str]) -> Any:
    """Draw the refined boxes that each filter leaves: all, no background, confident, after NMS.

    Returns the figure, four panels whose titles count the boxes.
    """
    figure, axes = figures.panels(found.seen.picture.shape, 2, 2, side=6)
    everything = np.ones(len(found.proposals), bool)
    left = (everything, found.is_object, found.is_confident, found.is_kept)
    for ax, (name, count), rows in zip(axes.flat, found.counts.items(), left, strict=True):
        chosen = np.flatnonzero(rows)
        has_captions = name == "after NMS"
        visualize.draw_boxes(
            found.seen.picture,
            refined_boxes=found.refined[chosen],
            captions=_captions(found, chosen, class_names) if has_captions else None,
            title=f"{count} {name}",
            ax=ax,
        )
    return figures.finish(figure, show=False)


def draw_detections(found: RefinedBoxes, class_names: Sequence[str]) -> Any:
    """Draw the final detections: their proposals dotted, their refined boxes solid, class and score.

    Returns the figure, whose title counts what each filter left.
    """
    chosen = np.flatnonzero(found.is_kept)
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    return _draw_before_and_after(found, chosen, class_names, f"Detections: {counts}")


def _draw_before_and_after(
    found: RefinedBoxes, chosen: np.ndarray, class_names: Sequence[str], title: str
) -> Any:
    figure, axes = figures.panels(found.seen.picture.shape, 1, 1, side=8)
    visualize.draw_boxes(
        found.seen.picture,
        boxes=found.proposals[chosen],
        refined_boxes=found.refined[chosen],
        captions=_captions(found, chosen, class_names),
        title=title,
        ax=axes[0, 0],
    )
    return figures.finish(figure, show=False)


def _sample(indices: np.ndarray, limit: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:limit])


def _captions(found: RefinedBoxes, chosen: np.ndarray, class_names: Sequence[str]) -> list[str]:
    texts = captions.instance_captions(found.class_ids[chosen], class_names, found.scores[chosen])
    return [text if wanted else "" for text, wanted in zip(texts, found.is_object[chosen], strict=True)]

"""Step 1, what the RPN is trained to say: positive, negative and neutral anchors of an image with truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import visualize
from mrcnn.data import rpn_targets
from mrcnn.geometry import boxes
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.visualize import figures
from mrcnn.visualize.colors import PALETTE

NEGATIVE_COLOR, NEUTRAL_COLOR = PALETTE[5], PALETTE[1]  # vermilion, sky blue


@dataclass(frozen=True)
class AnchorLabels:
    """The RPN's targets for one image; boxes are pixels of that image, y2 and x2 outside.

    image: [H, W, channels]. anchors: [A, 4]. labels: int [A], 1 positive, -1 negative, 0 neutral.
    refined: [P, 4], the positive anchors, in their order, moved by their targets onto their objects.
    """

    image: np.ndarray
    anchors: np.ndarray
    labels: np.ndarray
    refined: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """The positive anchors [P, 4]."""
        return self.anchors[self.labels == rpn_targets.POSITIVE]

    @property
    def negative(self) -> np.ndarray:
        """The negative anchors that are drawn for training [N, 4]."""
        return self.anchors[self.labels == rpn_targets.NEGATIVE]

    @property
    def neutral(self) -> np.ndarray:
        """All other anchors, which teach nothing."""
        return self.anchors[self.labels == rpn_targets.NEUTRAL]


def label_anchors(
    image: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    config: Any,
    seed: int | None = 0,
) -> AnchorLabels:
    """Label the anchors of an image as a training step does (Faster R-CNN, section 3.1.2).

    image, gt_class_ids [N], gt_boxes [N, 4]: as `load_image_gt` gives them, in pixels of the resized image.
    config: the training Config. seed: of the draw when there are more anchors than the budget.
    """
    anchors = AnchorCache(config).of(np.shape(image))
    rng = np.random.default_rng(seed)
    labels, deltas = rpn_targets.build_rpn_targets(
        np.shape(image), anchors, gt_class_ids, gt_boxes, config, rng=rng
    )
    positive = anchors[labels == rpn_targets.POSITIVE]
    scaled = deltas[: len(positive)] * np.asarray(config.RPN_BBOX_STD_DEV)
    return AnchorLabels(np.asarray(image), anchors, labels, boxes.apply_box_deltas(positive, scaled))


def draw_anchor_labels(labelled: AnchorLabels, limit: int = 100, seed: int = 0) -> Any:
    """Draw positive anchors (dotted, refined solid), and at most `limit` negative and neutral ones.

    Returns the figure, three panels.
    """
    figure, axes = figures.panels(labelled.image.shape, 1, 3)
    positive, negative, neutral = axes[0]
    count = len(labelled.positive)
    visualize.draw_boxes(
        labelled.image,
        boxes=labelled.positive,
        refined_boxes=labelled.refined,
        title=f"{count} positive anchors (dotted), on their objects (solid)",
        ax=positive,
    )
    rng = np.random.default_rng(seed)
    for ax, name, anchors, color in (
        (negative, "negative", labelled.negative, NEGATIVE_COLOR),
        (neutral, "neutral", labelled.neutral, NEUTRAL_COLOR),
    ):
        chosen = anchors[np.sort(rng.permutation(len(anchors))[:limit])]
        visualize.draw_boxes(
            labelled.image,
            boxes=chosen,
            visibilities=np.full(len(chosen), 2),
            title=f"{len(chosen)} of {len(anchors)} {name} anchors",
            ax=ax,
            colors=[color] * len(chosen),
        )
    return figures.finish(figure, show=False)

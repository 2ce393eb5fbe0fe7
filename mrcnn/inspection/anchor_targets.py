"""Targets of the RPN: positive, negative and neutral anchors of an image with ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import visualize
from mrcnn.data import rpn_targets
from mrcnn.drawing.colors import PALETTE
from mrcnn.geometry import boxes
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.typing import Boxes, ClassIds, Image
from mrcnn.visualize import figures
from mrcnn.visualize.boxes import SOLID

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.config import Config

NEGATIVE_COLOR, NEUTRAL_COLOR = PALETTE[5], PALETTE[1]  # vermilion, sky blue


@dataclass(frozen=True)
class AnchorLabels:
    """The RPN's targets for one image. Boxes are in pixels of that image, y2 and x2 exclusive.

    Attributes:
        image: The image [H, W, channels].
        anchors: All anchors [A, 4].
        labels: int [A]: 1 positive, -1 negative, 0 neutral.
        refined: The positive anchors [P, 4] in order, moved onto their objects by the target deltas.
    """

    image: np.ndarray
    anchors: Boxes
    labels: np.ndarray
    refined: Boxes

    @property
    def positive(self) -> Boxes:
        """The positive anchors [P, 4]."""
        return self.anchors[self.labels == rpn_targets.POSITIVE]

    @property
    def negative(self) -> Boxes:
        """The negative anchors [N, 4] sampled for the loss."""
        return self.anchors[self.labels == rpn_targets.NEGATIVE]

    @property
    def neutral(self) -> Boxes:
        """All other anchors, which do not count in the loss."""
        return self.anchors[self.labels == rpn_targets.NEUTRAL]


def label_anchors(
    image: Image,
    gt_class_ids: ClassIds,
    gt_boxes: Boxes,
    config: Config,
    seed: int | None = 0,
) -> AnchorLabels:
    """Label the anchors of an image as a training step does (Faster R-CNN, section 3.1.2).

    Args:
        image: Image [H, W, channels] from `load_image_gt`.
        gt_class_ids: Class ids [N] from `load_image_gt`.
        gt_boxes: Boxes [N, 4] from `load_image_gt`, in pixels of the image.
        config: The Config of the training.
        seed: Seed of the random sample if more anchors qualify than the loss uses.
    """
    anchors = AnchorCache(config).of(np.shape(image))
    rng = np.random.default_rng(seed)
    labels, deltas = rpn_targets.build_rpn_targets(
        np.shape(image), anchors, gt_class_ids, gt_boxes, config, rng=rng
    )
    positive = anchors[labels == rpn_targets.POSITIVE]
    scaled = deltas[: len(positive)] * np.asarray(config.RPN_BBOX_STD_DEV)
    return AnchorLabels(np.asarray(image), anchors, labels, boxes.apply_box_deltas(positive, scaled))


def draw_anchor_labels(labels: AnchorLabels, limit: int = 100, seed: int = 0) -> Figure:
    """Draw the positive anchors (dotted, refined solid), and random negative and neutral ones.

    Args:
        labels: The result of `label_anchors`.
        limit: Largest number of negative and of neutral anchors to draw.
        seed: Seed of their random sample.

    Returns:
        The figure, with three panels.
    """
    figure, axes = figures.panels(labels.image.shape, 1, 3)
    positive, negative, neutral = axes[0]
    visualize.draw_boxes(
        labels.image,
        boxes=labels.positive,
        refined_boxes=labels.refined,
        title=f"{len(labels.positive)} positive anchors (dotted), on their objects (solid)",
        ax=positive,
    )
    rng = np.random.default_rng(seed)
    for ax, name, anchors, color in (
        (negative, "negative", labels.negative, NEGATIVE_COLOR),
        (neutral, "neutral", labels.neutral, NEUTRAL_COLOR),
    ):
        sample = anchors[np.sort(rng.permutation(len(anchors))[:limit])]
        visualize.draw_boxes(
            labels.image,
            boxes=sample,
            visibilities=np.full(len(sample), SOLID),
            title=f"{len(sample)} of {len(anchors)} {name} anchors",
            ax=ax,
            colors=[color] * len(sample),
        )
    return figures.finish(figure, show=False)

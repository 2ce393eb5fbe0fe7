"""Inputs and targets of training for each image: anchors, RoIs and their targets, with drawings.

This module is for notebooks that inspect a dataset before training. Boxes are `[N, (y1, x1, y2, x2)]` in
pixels of the molded image; y2 and x2 are exclusive. Functions that draw return the figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import Config, Dataset, utils, visualize
from mrcnn.geometry.anchors import pixel_anchors
from mrcnn.inspection.anchor_targets import AnchorLabels
from mrcnn.model import compute_backbone_shapes, data_generator, unmold_image
from mrcnn.visualize import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUTS = ("images", "image_meta", "rpn_match", "rpn_bbox", "gt_class_ids", "gt_boxes", "gt_masks")
ROI_INPUTS = ("rpn_rois", "rois")
OUTPUTS = ("mrcnn_class_ids", "mrcnn_bbox", "mrcnn_mask")


def named(batch: tuple[list[np.ndarray], list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of a batch of `data_generator`, which has random RoIs and their targets, by name."""
    inputs, outputs = batch
    return dict(zip((*INPUTS, *ROI_INPUTS, *OUTPUTS), (*inputs, *outputs), strict=True))


def anchors_by_level(config: Config, image_shape: Sequence[int]) -> list[np.ndarray]:
    """Return the anchors `[anchors, 4]` of each pyramid level, the finest level first."""
    shapes = compute_backbone_shapes(config, image_shape)
    stride = config.RPN_ANCHOR_STRIDE
    locations = [(-(-height // stride)) * (-(-width // stride)) for height, width in shapes]
    counts = np.array(locations) * len(config.RPN_ANCHOR_RATIOS)
    return np.split(pixel_anchors(config, image_shape), np.cumsum(counts)[:-1])


def draw_center_anchors(image: np.ndarray, config: Config) -> "Figure":
    """Draw the anchors at the middle location of each level, in one color per level, with their centers."""
    figure, axis = figures.pyplot().subplots(figsize=(8, 8), layout="constrained")
    axis.imshow(visualize.to_rgb(image))
    shapes = compute_backbone_shapes(config, image.shape)
    colors = visualize.random_colors(len(shapes))
    per_location = len(config.RPN_ANCHOR_RATIOS)
    levels = zip(shapes, anchors_by_level(config, image.shape), colors, strict=True)
    for level, (shape, anchors, color) in enumerate(levels, start=2):
        height, width = (-(-int(side) // config.RPN_ANCHOR_STRIDE) for side in shape)
        first = ((height // 2) * width + width // 2) * per_location
        for number, line in enumerate(figures.box_lines(anchors[first : first + per_location])):
            axis.plot(*line.T, color=color, label=f"P{level}" if number == 0 else None)
            axis.plot(*line[:4].mean(axis=0), ".", color=color)
    axis.legend(loc="upper right", title="level")
    axis.axis("off")
    return figures.finish(figure, show=False)


def anchor_labels(batch: dict[str, np.ndarray], index: int, config: Config) -> AnchorLabels:
    """Return the RPN targets of one image of a `named` batch."""
    image = unmold_image(batch["images"][index], config)
    anchors = np.concatenate(anchors_by_level(config, image.shape))
    labels = batch["rpn_match"][index, :, 0]
    positive = anchors[labels == 1]
    deltas = batch["rpn_bbox"][index, : len(positive)] * config.RPN_BBOX_STD_DEV
    return AnchorLabels(image, anchors, labels, utils.apply_box_deltas(positive, deltas))


@dataclass(frozen=True)
class RoiTargets:
    """The targets of the RoIs of one image.

    Attributes:
        rois: Boxes `[rois, 4]`.
        class_ids: int `[rois]`, 0 for background.
        refined: The RoIs after applying their target deltas, `[rois, 4]`. Background RoIs do not move.
        masks: The mask of the object inside each RoI, `[rois, height, width]`.
    """

    rois: np.ndarray
    class_ids: np.ndarray
    refined: np.ndarray
    masks: np.ndarray


def roi_targets(batch: dict[str, np.ndarray], index: int, config: Config) -> RoiTargets:
    """Return the RoI targets of one image of a `named` batch, each for the class of its RoI."""
    class_ids = batch["mrcnn_class_ids"][index, :, 0]
    rows = np.arange(len(class_ids))
    rois = batch["rois"][index]
    deltas = batch["mrcnn_bbox"][index, rows, class_ids] * config.BBOX_STD_DEV
    refined = utils.apply_box_deltas(rois.astype(np.float32), deltas)
    return RoiTargets(rois, class_ids, refined, batch["mrcnn_mask"][index, rows, :, :, class_ids])


def draw_roi_masks(
    image: np.ndarray, targets: RoiTargets, class_names: Sequence[str], limit: int = 8
) -> "Figure":
    """Draw random positive RoIs on the image (dotted; refined: solid), each beside its mask target.

    Args:
        image: uint8 `[height, width, 3]`.
        targets: The RoIs and their targets.
        class_names: Names by class id.
        limit: Largest number of RoIs.

    Returns:
        The figure.
    """
    positive = np.flatnonzero(targets.class_ids > 0)
    chosen = np.random.permutation(positive)[:limit]
    rows = max(1, -(-len(chosen) // 4))
    figure, axes = figures.pyplot().subplots(
        rows, 8, figsize=(16, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for (left, right), roi in zip(axes.reshape(-1, 2), chosen, strict=False):
        visualize.draw_boxes(
            image,
            boxes=targets.rois[roi : roi + 1],
            refined_boxes=targets.refined[roi : roi + 1],
            ax=left,
        )
        left.set_title(class_names[targets.class_ids[roi]], fontsize=9)
        right.imshow(targets.masks[roi], cmap="gray", vmin=0, vmax=1)
        right.set_title("mask target", fontsize=9)
    return figures.finish(figure, show=False)


def positive_ratios(
    dataset: Dataset, config: Config, images: int = 10, random_rois: int = 10_000
) -> list[float]:
    """Return the fraction of positive RoIs among those sampled for training, for each image.

    Args:
        dataset: A prepared dataset.
        config: Settings of training.
        images: Number of images.
        random_rois: Number of random boxes per image to sample the RoIs from.
    """
    generator = data_generator(
        dataset, config, shuffle=True, random_rois=random_rois, batch_size=1, detection_targets=True
    )
    batches = (named(next(generator)) for _ in range(images))
    return [float(np.mean(batch["mrcnn_class_ids"] > 0)) for batch in batches]

"""What training feeds to the network, image by image: anchors, ROIs, and the targets of both, with pictures.

For the notebooks that look at a data set before any training. Boxes are [N, (y1, x1, y2, x2)] in pixels of
the resized image, y2 and x2 outside. Functions that draw return the figure (None in a notebook).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn import utils, visualize
from mrcnn.inspection.anchor_targets import AnchorLabels
from mrcnn.model import compute_backbone_shapes, data_generator, unmold_image
from mrcnn.visualize import figures

INPUTS = ("images", "image_meta", "rpn_match", "rpn_bbox", "gt_class_ids", "gt_boxes", "gt_masks")
ROI_INPUTS = ("rpn_rois", "rois")
OUTPUTS = ("mrcnn_class_ids", "mrcnn_bbox", "mrcnn_mask")


def named(batch: tuple[list[np.ndarray], list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a batch of `data_generator`, made with random ROIs and detection targets, by name."""
    inputs, outputs = batch
    return dict(zip((*INPUTS, *ROI_INPUTS, *OUTPUTS), (*inputs, *outputs), strict=True))


def anchors_by_level(config: Any, image_shape: Sequence[int]) -> list[np.ndarray]:
    """The anchors [A, 4] of each pyramid level, the finest first."""
    shapes = compute_backbone_shapes(config, image_shape)
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        shapes,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    stride = config.RPN_ANCHOR_STRIDE
    cells = [(-(-height // stride)) * (-(-width // stride)) for height, width in shapes]
    counts = np.array(cells) * len(config.RPN_ANCHOR_RATIOS)
    return np.split(anchors, np.cumsum(counts)[:-1])


def draw_centre_anchors(image: np.ndarray, config: Any) -> Any:
    """Draw the anchors of each level's middle cell, one colour a level, with their centres."""
    figure, axis = figures.pyplot().subplots(figsize=(8, 8), layout="constrained")
    axis.imshow(visualize.to_rgb(image))
    shapes = compute_backbone_shapes(config, image.shape)
    colors = visualize.random_colors(len(shapes))
    per_cell = len(config.RPN_ANCHOR_RATIOS)
    levels = zip(shapes, anchors_by_level(config, image.shape), colors, strict=True)
    for level, (shape, anchors, color) in enumerate(levels, start=2):
        height, width = (-(-int(side) // config.RPN_ANCHOR_STRIDE) for side in shape)
        first = ((height // 2) * width + width // 2) * per_cell
        for number, line in enumerate(figures.box_lines(anchors[first : first + per_cell])):
            axis.plot(*line.T, color=color, label=f"P{level}" if number == 0 else None)
            axis.plot(*line[:4].mean(axis=0), ".", color=color)
    axis.legend(loc="upper right", title="level")
    axis.axis("off")
    return figures.finish(figure, show=False)


def anchor_labels(batch: dict[str, np.ndarray], index: int, config: Any) -> AnchorLabels:
    """The first stage's targets of one image of a `named` batch."""
    image = unmold_image(batch["images"][index], config)
    anchors = np.concatenate(anchors_by_level(config, image.shape))
    labels = batch["rpn_match"][index, :, 0]
    positive = anchors[labels == 1]
    deltas = batch["rpn_bbox"][index, : len(positive)] * config.RPN_BBOX_STD_DEV
    return AnchorLabels(image, anchors, labels, utils.apply_box_deltas(positive, deltas))


@dataclass(frozen=True)
class RoiTargets:
    """The second stage's targets of one image.

    rois: [R, 4]. class_ids: int [R], 0 for background. refined: [R, 4], the ROIs moved by their targets;
    those of the background as they are. masks: [R, h, w], the object's mask inside each ROI.
    """

    rois: np.ndarray
    class_ids: np.ndarray
    refined: np.ndarray
    masks: np.ndarray


def roi_targets(batch: dict[str, np.ndarray], index: int, config: Any) -> RoiTargets:
    """The second stage's targets of one image of a `named` batch: those of each ROI's own class."""
    class_ids = batch["mrcnn_class_ids"][index, :, 0]
    rows = np.arange(len(class_ids))
    rois = batch["rois"][index]
    deltas = batch["mrcnn_bbox"][index, rows, class_ids] * config.BBOX_STD_DEV
    refined = utils.apply_box_deltas(rois.astype(np.float32), deltas)
    return RoiTargets(rois, class_ids, refined, batch["mrcnn_mask"][index, rows, :, :, class_ids])


def draw_roi_masks(image: np.ndarray, targets: RoiTargets, class_names: Sequence[str], limit: int = 8) -> Any:
    """Draw a random few positive ROIs on the image (dotted, refined solid), each beside its mask target."""
    positive = np.flatnonzero(targets.class_ids > 0)
    chosen = np.random.permutation(positive)[:limit]
    rows = max(1, -(-len(chosen) // 4))
    figure, axes = figures.pyplot().subplots(
        rows, 8, figsize=(16, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for place, roi in zip(axes.reshape(-1, 2), chosen, strict=False):
        visualize.draw_boxes(
            image,
            boxes=targets.rois[roi : roi + 1],
            refined_boxes=targets.refined[roi : roi + 1],
            ax=place[0],
        )
        place[0].set_title(class_names[targets.class_ids[roi]], fontsize=9)
        place[1].imshow(targets.masks[roi], cmap="gray", vmin=0, vmax=1)
        place[1].set_title("mask target", fontsize=9)
    return figures.finish(figure, show=False)


def positive_ratios(dataset: Any, config: Any, images: int = 10, random_rois: int = 10_000) -> list[float]:
    """The share of positive ROIs among those that are drawn for training, image by image."""
    generator = data_generator(
        dataset, config, shuffle=True, random_rois=random_rois, batch_size=1, detection_targets=True
    )
    batches = (named(next(generator)) for _ in range(images))
    return [float(np.mean(batch["mrcnn_class_ids"] > 0)) for batch in batches]

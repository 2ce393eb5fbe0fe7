"""One image made into one row of a batch, and rows stacked into the batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mrcnn.data.loading import load_image_gt
from mrcnn.data.roi_targets import build_detection_targets, generate_random_rois
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.geometry import images, preprocessing
from mrcnn.geometry.anchors import AnchorCache


@dataclass(frozen=True)
class Sample:
    """One image with its targets, before padding; dtypes as in generator.data_generator.

    image: float32 [H, W, channels], mean subtracted. meta: [12 + classes]. class_ids: [N], boxes:
    [N, 4] in pixels, masks: [h, w, M], of the first M objects, at most MAX_GT_INSTANCES. rpn_targets:
    match [A] and bbox [RPN_TRAIN_ANCHORS_PER_IMAGE, 4]. rois: random ROIs and those chosen of them,
    roi_targets: the latter's class ids, boxes and masks. The last three are empty where not asked for.
    """

    image: np.ndarray
    meta: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    rpn_targets: tuple[np.ndarray, ...] = ()
    rois: tuple[np.ndarray, ...] = ()
    roi_targets: tuple[np.ndarray, ...] = ()


def build_sample(
    dataset: Any,
    config: Any,
    image_id: int,
    anchors: AnchorCache,
    augment: bool = False,
    augmentation: Any = None,
    random_rois: int = 0,
    detection_targets: bool = False,
    rpn_targets: bool = False,
    rng: np.random.Generator | None = None,
) -> Sample | None:
    """Load one image and make its targets; None if it has no object of a class.

    The RPN learns from all objects. If there are more than MAX_GT_INSTANCES, the second stage gets a
    random choice of them: these come first and alone have a mask; with rpn_targets the others have
    done their part and go. Raises ValueError for an image that does not fit the pyramid, and whatever
    loading raises.
    """
    image, meta, class_ids, gt_boxes, masks = load_image_gt(
        dataset, config, image_id, augment, augmentation, config.USE_MINI_MASK, rng
    )
    if not np.any(class_ids > 0):
        return None
    images.check_molded_size(image.shape)
    labels: tuple[np.ndarray, ...] = ()
    if rpn_targets:
        labels = build_rpn_targets(image.shape, anchors.of(image.shape), class_ids, gt_boxes, config, rng)
    rois: tuple[np.ndarray, ...] = ()
    roi_targets: tuple[np.ndarray, ...] = ()
    if random_rois:
        rois = (generate_random_rois(image.shape, random_rois, class_ids, gt_boxes, rng),)
        if detection_targets:
            chosen, ids, *rest = build_detection_targets(rois[0], class_ids, gt_boxes, masks, config, rng)
            rois, roi_targets = (*rois, chosen), (ids[:, np.newaxis], *rest)
    most = config.MAX_GT_INSTANCES
    if len(class_ids) > most:
        choice = (np.random if rng is None else rng).choice
        some = choice(len(class_ids), most, replace=False)
        others = np.setdiff1d(np.arange(len(class_ids)), some)
        order = some if rpn_targets else np.concatenate([some, others])
        class_ids, gt_boxes, masks = class_ids[order], gt_boxes[order], masks[:, :, some]
    return Sample(
        image=_subtract_mean(preprocessing.on_network_scale(image, config.MEAN_PIXEL), config),
        meta=meta,
        class_ids=class_ids,
        boxes=gt_boxes,
        masks=masks,
        rpn_targets=labels,
        rois=rois,
        roi_targets=roi_targets,
    )


def _subtract_mean(image: np.ndarray, config: Any) -> np.ndarray:
    """`images.mold_image` as float32; for bytes by a table of all their values, many times faster."""
    if image.dtype != np.uint8:
        return images.mold_image(image, config).astype(np.float32)
    values = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(image.shape[2], axis=1)
    table = images.mold_image(values, config).astype(np.float32)
    return cv2.LUT(image, table[np.newaxis]).reshape(image.shape)


def places_of_objects(counts: Sequence[int], most: int) -> int:
    """Columns of a batch's class ids and boxes: `most`, doubled until every image's objects fit.

    Few different sizes, because the network is compiled for each.
    """
    places = most
    while places < max(counts):
        places *= 2
    return places


def stack(samples: Sequence[Sample], config: Any) -> dict[str, np.ndarray]:
    """The arrays of a batch by the names of the network's inputs, in the original's order.

    Objects are padded with zeros; the RPN's targets are left out where the samples have none. Raises
    ValueError if the images have different sizes.
    """
    shapes = {int(sample.meta[0]): sample.image.shape for sample in samples}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Images of one batch must have one size. Received, by image id: {shapes}. Use "
            'IMAGE_RESIZE_MODE "square" or "crop", or a batch size of 1 '
            f"(IMAGE_RESIZE_MODE={config.IMAGE_RESIZE_MODE!r})."
        )
    count, most = len(samples), config.MAX_GT_INSTANCES
    places = places_of_objects([len(sample.class_ids) for sample in samples], most)
    class_ids = np.zeros((count, places), dtype=np.int32)
    gt_boxes = np.zeros((count, places, 4), dtype=np.int32)
    gt_masks = np.zeros((count, *samples[0].masks.shape[:2], most), dtype=bool)
    for row, sample in enumerate(samples):
        objects = len(sample.class_ids)
        class_ids[row, :objects] = sample.class_ids
        gt_boxes[row, :objects] = sample.boxes
        gt_masks[row, :, :, : sample.masks.shape[2]] = sample.masks
    labels = {}
    if samples[0].rpn_targets:
        match, bbox = zip(*(sample.rpn_targets for sample in samples), strict=True)
        labels = {"input_rpn_match": np.stack(match)[..., np.newaxis], "input_rpn_bbox": np.stack(bbox)}
    return {
        "input_image": np.stack([sample.image for sample in samples]),
        "input_image_meta": np.stack([sample.meta for sample in samples]),
        **labels,
        "input_gt_class_ids": class_ids,
        "input_gt_boxes": gt_boxes,
        "input_gt_masks": gt_masks,
    }

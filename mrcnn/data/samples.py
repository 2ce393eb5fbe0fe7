"""One image with its training targets, and batches of such samples.

Axes: B images; H, W molded image; N instances; M = MAX_GT_INSTANCES; G slots for instances; A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.data.augmentation import Augmentation
from mrcnn.data.loading import ImageWithTruth, load_with_range
from mrcnn.data.roi_targets import build_detection_targets, generate_random_rois
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.geometry import images, preprocessing
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.geometry.image_meta import IMAGE_ID, IMAGE_SHAPE
from mrcnn.geometry.value_range import ValueRange, scaled
from mrcnn.typing import Boxes, ClassIds, Image, Masks

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Sample:
    """One image with its targets, not padded. The dtypes are those of `generator.data_generator`.

    Attributes:
        image: float32 [H, W, channels], mean subtracted.
        meta: [12 + classes].
        class_ids: [N].
        boxes: [N, 4] in pixels.
        masks: [h, w, instances] of the first instances, at most M.
        rpn_targets: rpn_match [A] and rpn_bbox [RPN_TRAIN_ANCHORS_PER_IMAGE, 4], or empty.
        rois: The random RoIs, and those sampled from them; or empty.
        roi_targets: Class ids, boxes and masks of the sampled RoIs, or empty.
    """

    image: Image
    meta: np.ndarray
    class_ids: ClassIds
    boxes: Boxes
    masks: Masks
    rpn_targets: Arrays = ()
    rois: Arrays = ()
    roi_targets: Arrays = ()


def build_sample(
    dataset: "Dataset",
    config: "Config",
    image_id: int,
    *,
    anchors: AnchorCache | None = None,
    augment: bool = False,
    augmentation: Augmentation | None = None,
    keep_empty: bool = False,
    random_rois: int = 0,
    detection_targets: bool = False,
    rng: np.random.Generator | None = None,
) -> Sample | None:
    """Load one image and build its targets.

    The RPN learns from all instances. If there are more than MAX_GT_INSTANCES, the heads learn from a random
    choice of them, which comes first and has masks. With `anchors`, the others are dropped after the RPN
    targets are built, and become background for the heads.

    Args:
        dataset: A prepared Dataset.
        config: Settings of images and targets.
        image_id: Id of the image.
        anchors: Anchors whose RPN targets to build, or None if the network computes the targets.
        augment: Mirror left to right with probability 1/2. Deprecated.
        augmentation: One of the kinds in `mrcnn.data.augmentation`, or None.
        keep_empty: Whether an image without an object becomes a sample.
        random_rois: Number of random RoIs to add.
        detection_targets: Whether to sample from the random RoIs and to build their targets.
        rng: Makes all draws reproducible; see `load_image_gt`.

    Returns:
        The sample, or None if the image has no object other than crowds and `keep_empty` is False.

    Raises:
        ValueError: If the network cannot take images of this size.
    """
    truth, values = load_with_range(
        dataset,
        config,
        image_id,
        augment=augment,
        augmentation=augmentation,
        use_mini_mask=config.USE_MINI_MASK,
        rng=rng,
    )
    if not (keep_empty or np.any(truth.class_ids > 0)):
        return None
    # Images of mode "shortest" are padded in `stack`, to the largest image of their batch.
    is_padded_later = config.IMAGE_RESIZE_MODE == "shortest"
    shape = images.padded_shape([truth.image.shape]) if is_padded_later else truth.image.shape
    images.check_molded_size(shape, config.IMAGE_RESIZE_MODE)
    # RPN targets come before the limit on instances: an object without a slot must not become a negative.
    rpn_targets: Arrays = ()
    if anchors is not None:
        rpn_targets = build_rpn_targets(shape, anchors.of(shape), truth.class_ids, truth.boxes, config, rng)
    rois, roi_targets = _roi_targets(truth, config, random_rois, detection_targets, rng)
    class_ids, boxes, masks = _limit_instances(
        truth, config.MAX_GT_INSTANCES, keep_boxes=anchors is None, rng=rng
    )
    return Sample(
        image=_normalize(truth.image, config, values),
        meta=truth.meta,
        class_ids=class_ids,
        boxes=boxes,
        masks=masks,
        rpn_targets=rpn_targets,
        rois=rois,
        roi_targets=roi_targets,
    )


def _roi_targets(
    truth: ImageWithTruth,
    config: "Config",
    random_rois: int,
    detection_targets: bool,
    rng: np.random.Generator | None,
) -> tuple[Arrays, Arrays]:
    """Return the random RoIs with those sampled from them, and the targets of the sampled ones."""
    if not random_rois:
        return (), ()
    rois = generate_random_rois(truth.image.shape, random_rois, truth.class_ids, truth.boxes, rng)
    if not detection_targets:
        return (rois,), ()
    sampled, class_ids, boxes, masks = build_detection_targets(
        rois, truth.class_ids, truth.boxes, truth.masks, config, rng
    )
    return (rois, sampled), (class_ids[:, np.newaxis], boxes, masks)


def _limit_instances(
    truth: ImageWithTruth, limit: int, *, keep_boxes: bool, rng: np.random.Generator | None
) -> tuple[ClassIds, Boxes, Masks]:
    """Choose at most `limit` instances at random.

    With `keep_boxes`, the class ids and boxes of the other instances follow those of the chosen ones.
    """
    count = len(truth.class_ids)
    if count <= limit:
        return truth.class_ids, truth.boxes, truth.masks
    choice = (np.random if rng is None else rng).choice
    chosen = choice(count, limit, replace=False)
    order = chosen
    if keep_boxes:
        order = np.concatenate([chosen, np.setdiff1d(np.arange(count), chosen)])
    return truth.class_ids[order], truth.boxes[order], truth.masks[:, :, chosen]


def _normalize(image: Image, config: "Config", values: ValueRange | None) -> Image:
    """Scale an image from its value range to 0..255 and subtract MEAN_PIXEL, as float32."""
    molded = preprocessing.network_pixels(scaled(image, values), config)
    preprocessing.check_values(molded)
    return molded


def _padded(samples: Sequence[Sample], is_mini: bool) -> list[Sample]:
    """Pad images and whole masks on the right and at the bottom, to the size of the largest image.

    The padding of an image has the mean color, which is 0 after the mean was subtracted.

    Raises:
        ValueError: If the RPN targets of a sample belong to another size.
    """
    shape = images.padded_shape([sample.image.shape for sample in samples])
    padded = []
    for sample in samples:
        if sample.rpn_targets and images.padded_shape([sample.image.shape]) != shape:
            raise ValueError(
                "The RPN targets of a batch must belong to images of one size. Received: an image of "
                f'{sample.image.shape[:2]} pixels in a batch of {shape}, with IMAGE_RESIZE_MODE="shortest". '
                "Set RPN_TARGETS_IN_GRAPH = True and train with "
                'MaskRCNN.train, or use IMAGE_RESIZE_MODE "square" or "crop", or a batch size of 1.'
            )
        meta = sample.meta.copy()
        meta[IMAGE_SHAPE] = (*shape, sample.image.shape[2])
        masks = sample.masks if is_mini else images.pad_after(sample.masks, shape)
        image = images.pad_after(sample.image, shape)
        padded.append(replace(sample, image=image, meta=meta, masks=masks))
    return padded


def instance_slots(counts: Sequence[int], limit: int) -> int:
    """Return the number of slots for class ids and boxes: `limit`, doubled until every image's instances fit.

    The numbers are few, because the network compiles for each of them.
    """
    slots = limit
    while slots < max(counts):
        slots *= 2
    return slots


def stack(samples: Sequence[Sample], config: "Config") -> dict[str, np.ndarray]:
    """Stack samples into the arrays of a batch, padded with zeros.

    Returns:
        Arrays by the names of the network's inputs: `input_image` [B, H, W, channels], `input_image_meta`
        [B, 12 + classes], `input_rpn_match` [B, A, 1] and `input_rpn_bbox` [B, targets, 4] if the samples
        have RPN targets, `input_gt_class_ids` [B, G], `input_gt_boxes` [B, G, 4], `input_gt_masks`
        [B, h, w, M].

    Raises:
        ValueError: If the images have different sizes, or RPN targets for different sizes.
    """
    if config.IMAGE_RESIZE_MODE == "shortest":
        samples = _padded(samples, is_mini=config.USE_MINI_MASK)
    shapes = {int(sample.meta[IMAGE_ID]): sample.image.shape for sample in samples}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"The molded images of a batch must have the same size. Received, by image id: {shapes}, with "
            f'IMAGE_RESIZE_MODE={config.IMAGE_RESIZE_MODE!r}. Use IMAGE_RESIZE_MODE "square", "shortest" '
            'or "crop", or a batch size of 1.'
        )
    count, limit = len(samples), config.MAX_GT_INSTANCES
    # Only the first `limit` instances have masks, which take most of the memory.
    slots = instance_slots([len(sample.class_ids) for sample in samples], limit)
    class_ids = np.zeros((count, slots), dtype=np.int32)
    gt_boxes = np.zeros((count, slots, 4), dtype=np.int32)
    gt_masks = np.zeros((count, *samples[0].masks.shape[:2], limit), dtype=bool)
    for row, sample in enumerate(samples):
        instances = len(sample.class_ids)
        class_ids[row, :instances] = sample.class_ids
        gt_boxes[row, :instances] = sample.boxes
        gt_masks[row, :, :, : sample.masks.shape[2]] = sample.masks
    rpn_targets = {}
    if samples[0].rpn_targets:
        match, bbox = zip(*(sample.rpn_targets for sample in samples), strict=True)
        rpn_targets = {
            "input_rpn_match": np.stack(match)[..., np.newaxis],
            "input_rpn_bbox": np.stack(bbox),
        }
    return {
        "input_image": np.stack([sample.image for sample in samples]),
        "input_image_meta": np.stack([sample.meta for sample in samples]),
        **rpn_targets,
        "input_gt_class_ids": class_ids,
        "input_gt_boxes": gt_boxes,
        "input_gt_masks": gt_masks,
    }

"""Targets of the heads: RoIs sampled from the proposals, each with its class, deltas and mask.

This follows Fast R-CNN, section 2.3, and Mask R-CNN, section 3.1, with the sampling rule of the Keras 2
library: the number of negatives is proportional to the number of positives, so an image without positives has
no RoIs at all. With `negatives_without_objects`, images without objects are an exception: their RoIs are all
negatives, from which the heads learn the background.

Axes: B images, P proposals, G ground-truth boxes, M of them with masks, K slots for positives, R RoIs.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops, roi_align, sampling
from mrcnn.network.mask_targets import crop_masks
from mrcnn.typing import Shape, Tensor


def _overlaps(proposals: Tensor, boxes: Tensor, counts: Tensor) -> Tensor:
    """Return the IoU [B, P, G] without gradient; -1 where `counts`, bool [B, G], is False."""
    overlaps = box_ops.compute_overlaps(ops.stop_gradient(proposals), ops.stop_gradient(boxes))
    overlaps = ops.where(ops.isnan(overlaps), ops.zeros_like(overlaps), overlaps)
    return ops.where(ops.expand_dims(counts, 1), overlaps, -ops.ones_like(overlaps))


def sample_rois(
    positive: Tensor,
    negative: Tensor,
    priority: Tensor,
    rois_per_image: int,
    positive_ratio: float,
    negatives_only: Tensor | None = None,
    negatives_fill: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample positives, then negatives in proportion to the positives or until the sample is full.

    Args:
        positive, negative: bool [B, P].
        priority: float [B, P] in [0, 1]; the highest are sampled first.
        rois_per_image: Size of a full sample, R.
        positive_ratio: Share of positives in a full sample.
        negatives_only: bool [B], True for images whose sample is filled with negatives; None for no image.
        negatives_fill: Whether to fill the sample of every image with negatives.

    Returns:
        Indices int32 [B, R] of proposals, and the number of positives and of all RoIs, each int32 [B].
        Positives come first, then negatives. Slots after the last RoI hold arbitrary indices.
    """
    limit = int(rois_per_image * positive_ratio)
    proposals = positive.shape[1]
    positive_index, positives = sampling.sample_top_k(positive, priority, min(limit, proposals))
    negative_index, negatives = sampling.sample_top_k(negative, priority, min(rois_per_image, proposals))
    ratio = np.float32(1.0 / positive_ratio)
    negative_limit = ops.cast(ratio * ops.cast(positives, "float32"), "int32") - positives
    if negatives_fill:
        negative_limit = rois_per_image - positives
    if negatives_only is not None:
        negative_limit = ops.where(negatives_only, rois_per_image, negative_limit)
    total = positives + ops.minimum(negatives, negative_limit)

    slot = ops.arange(rois_per_image)[None]  # [1, R]
    from_positive = ops.clip(slot, 0, positive_index.shape[1] - 1)
    from_negative = ops.clip(slot - positives[:, None], 0, negative_index.shape[1] - 1)
    from_positive = ops.broadcast_to(from_positive, ops.shape(from_negative))
    index = ops.where(
        slot < positives[:, None],
        ops.take_along_axis(positive_index, from_positive, axis=1),
        ops.take_along_axis(negative_index, from_negative, axis=1),
    )
    return index, positives, ops.minimum(total, rois_per_image)


@keras.saving.register_keras_serializable("mrcnn")
class DetectionTargetLayer(keras.layers.Layer):
    """Sample RoIs from the proposals and compute their targets.

    Call with [proposals [B, P, 4] normalized, empty rows allowed; gt_class_ids int [B, G], where 0 is padding
    and negative ids are crowds; gt_boxes [B, G, 4] normalized; gt_masks bool [B, h, w, M], whole or mini].
    Returns rois [B, R, 4], target_class_ids int32 [B, R], target_bbox [B, R, 4] divided by bbox_std_dev and
    target_mask [B, R, mask_height, mask_width]: first the positives, then the negatives (class 0), then empty
    slots. The target deltas depend on the proposals, so the box loss trains the RPN, too.

    Only the first `max_instances` boxes become targets, because the others have no masks. Proposals of the
    others are neither positive nor negative.

    Args:
        rois_per_image: Size of a full sample, R.
        positive_ratio: Share of positives in a full sample.
        bbox_std_dev: Divisors of the deltas.
        mask_shape: (height, width) of the mask targets.
        use_mini_mask: Whether gt_masks are mini-masks, cropped to their boxes.
        positive_iou: Lowest IoU with a ground-truth box at which a proposal is positive.
        crowd_iou: Lowest IoU with a crowd at which a proposal cannot be negative.
        include_gt: Whether to sample from the ground-truth boxes, too.
        negatives_without_objects: Whether images without objects get negatives. If False, they get no RoIs.
        negatives_fill: Whether negatives fill the sample. If False, they are in proportion to the positives.
        mask_method, soft_masks: `method` and `soft` of `crop_masks`.
        max_instances: Number of leading boxes that have masks, M; None if all have them.
        shuffle: Whether to sample at random. If False, the first proposals are kept.
        seed: Seed of the random sampling.
    """

    def __init__(
        self,
        *,
        rois_per_image: int = 200,
        positive_ratio: float = 0.33,
        bbox_std_dev: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        mask_shape: Sequence[int] = (28, 28),
        use_mini_mask: bool = True,
        positive_iou: float = 0.5,
        crowd_iou: float = 0.001,
        include_gt: bool = False,
        negatives_without_objects: bool = False,
        negatives_fill: bool = False,
        mask_method: str = roi_align.CROP_AND_RESIZE,
        soft_masks: bool = False,
        max_instances: int | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.rois_per_image = int(rois_per_image)
        self.positive_ratio = float(positive_ratio)
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.mask_shape = (int(mask_shape[0]), int(mask_shape[1]))
        self.use_mini_mask = bool(use_mini_mask)
        self.positive_iou = float(positive_iou)
        self.crowd_iou = float(crowd_iou)
        self.include_gt = bool(include_gt)
        self.negatives_without_objects = bool(negatives_without_objects)
        self.negatives_fill = bool(negatives_fill)
        self.mask_method, self.soft_masks = mask_method, bool(soft_masks)
        self.max_instances = None if max_instances is None else int(max_instances)
        self.shuffle = shuffle
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def max_positives(self) -> int:
        """The number K of leading slots of each image that can hold a positive."""
        return int(self.rois_per_image * self.positive_ratio)

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        proposals, gt_class_ids, gt_boxes, gt_masks = inputs
        gt_class_ids = ops.cast(gt_class_ids, "int32")
        if self.include_gt:
            instances = self._instances(gt_class_ids, gt_boxes, gt_masks)
            proposals = ops.concatenate([proposals, instances], axis=1)
        overlaps, positive, negative = self._match(proposals, gt_class_ids, gt_boxes)
        without_objects = None
        if self.negatives_without_objects:
            without_objects = ops.logical_not(ops.any(gt_class_ids > 0, axis=1))
        index, positives, total = sample_rois(
            positive,
            negative,
            sampling.priorities(positive, self.shuffle, self.seed_generator),
            self.rois_per_image,
            self.positive_ratio,
            without_objects,
            self.negatives_fill,
        )
        slot = ops.arange(self.rois_per_image)[None]
        is_roi = slot < total[:, None]
        is_positive = slot < positives[:, None]
        rois = ops.where(is_roi[..., None], box_ops.gather(proposals, index), 0.0)
        assigned = ops.cast(ops.argmax(box_ops.gather(overlaps, index), axis=2), "int32")
        class_ids = ops.where(is_positive, box_ops.gather(gt_class_ids, assigned), 0)
        boxes = box_ops.gather(gt_boxes, assigned)
        return (
            rois,
            class_ids,
            self._deltas(rois, boxes, is_positive),
            self._masks(rois, boxes, gt_masks, assigned, is_positive),
        )

    def _instances(self, gt_class_ids: Tensor, gt_boxes: Tensor, gt_masks: Tensor) -> Tensor:
        """Return the boxes [B, M, 4] of the objects that have masks; other rows are zero."""
        boxes = gt_boxes[:, : self.max_instances]
        is_object = gt_class_ids[:, : self.max_instances, None] > 0
        boxes = ops.where(is_object, boxes, ops.zeros_like(boxes))
        if boxes.shape[1] is None and gt_masks.shape[3] is not None:
            boxes = ops.reshape(boxes, (-1, gt_masks.shape[3], 4))
        return boxes

    def _match(
        self, proposals: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare proposals with ground truth.

        Returns:
            The IoU [B, P, M] with the boxes that have masks, and bool [B, P] each: which proposals are
            positives, and which are negatives.
        """
        overlaps = _overlaps(proposals, gt_boxes, gt_class_ids > 0)
        crowd = ops.max(_overlaps(proposals, gt_boxes, gt_class_ids < 0), axis=2)
        other = self._best_without_mask(overlaps)
        overlaps = overlaps[:, :, : self.max_instances]
        best = ops.max(overlaps, axis=2)
        filled = ops.any(proposals != 0.0, axis=2)
        positive = ops.logical_and(best >= self.positive_iou, best >= other)
        negative = ops.logical_and(ops.maximum(best, other) < self.positive_iou, crowd < self.crowd_iou)
        return overlaps, ops.logical_and(positive, filled), ops.logical_and(negative, filled)

    def _best_without_mask(self, overlaps: Tensor) -> Tensor:
        """Return the largest IoU [B, P] of each proposal with a box that has no mask; -1 if there is none."""
        if self.max_instances is None:
            return -ops.ones_like(overlaps[:, :, 0])
        index = ops.arange(overlaps.shape[2] or ops.shape(overlaps)[2])
        return ops.max(ops.where(index < self.max_instances, -ops.ones_like(overlaps), overlaps), axis=2)

    def _deltas(self, rois: Tensor, boxes: Tensor, is_positive: Tensor) -> Tensor:
        """Return the deltas [B, R, 4] of the positives, zero elsewhere."""
        # Other rows may be empty boxes; the unit box keeps infinities out of the gradient.
        unit = ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32"))
        selected = is_positive[..., None]
        deltas = box_ops.box_refinement(ops.where(selected, rois, unit), ops.where(selected, boxes, unit))
        return deltas / ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))

    def _masks(
        self, rois: Tensor, boxes: Tensor, gt_masks: Tensor, assigned: Tensor, is_positive: Tensor
    ) -> Tensor:
        """Return the mask targets [B, R, mask_height, mask_width]. Only slots of positives are computed."""
        slots = self.max_positives
        rois, boxes = (ops.stop_gradient(x[:, :slots]) for x in (rois, boxes))
        if self.use_mini_mask:
            corner = ops.concatenate([boxes[..., :2], boxes[..., :2]], axis=-1)
            size = boxes[..., 2:] - boxes[..., :2]
            size = ops.concatenate([size, size], axis=-1)
            rois = (rois - corner) / ops.where(size == 0.0, 1.0, size)
        masks = crop_masks(
            gt_masks, assigned[:, :slots], rois, self.mask_shape, self.mask_method, self.soft_masks
        )
        masks = ops.where(is_positive[:, :slots, None, None], masks, 0.0)
        return ops.pad(masks, ((0, 0), (0, self.rois_per_image - slots), (0, 0), (0, 0)))

    def compute_output_spec(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        batch, rois = inputs[0].shape[0], self.rois_per_image
        return (
            keras.KerasTensor((batch, rois, 4), "float32"),
            keras.KerasTensor((batch, rois), "int32"),
            keras.KerasTensor((batch, rois, 4), "float32"),
            keras.KerasTensor((batch, rois, *self.mask_shape), "float32"),
        )

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, ...]:
        batch, rois = input_shape[0][0], self.rois_per_image
        return (batch, rois, 4), (batch, rois), (batch, rois, 4), (batch, rois, *self.mask_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rois_per_image": self.rois_per_image,
            "positive_ratio": self.positive_ratio,
            "bbox_std_dev": self.bbox_std_dev,
            "mask_shape": self.mask_shape,
            "use_mini_mask": self.use_mini_mask,
            "positive_iou": self.positive_iou,
            "crowd_iou": self.crowd_iou,
            "include_gt": self.include_gt,
            "negatives_without_objects": self.negatives_without_objects,
            "negatives_fill": self.negatives_fill,
            "mask_method": self.mask_method,
            "soft_masks": self.soft_masks,
            "max_instances": self.max_instances,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("mrcnn")
class LeadingSlots(keras.layers.Layer):
    """Keep the first slots of each image, which hold the positives.

    Call with [class_ids int [B, R], any tensors [B, R, ...]]. Returns those tensors as [B, count, ...].

    Args:
        count: Slots to keep, at most R.
    """

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.count = count

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        return [tensor[:, : self.count] for tensor in inputs[1:]]

    def compute_output_spec(self, inputs: list[Tensor]) -> list[Tensor]:
        return [keras.KerasTensor((x.shape[0], self.count, *x.shape[2:]), x.dtype) for x in inputs[1:]]

    def compute_output_shape(self, input_shape: list[Shape]) -> list[Shape]:
        return [(shape[0], self.count, *shape[2:]) for shape in input_shape[1:]]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable("mrcnn")
class NormBoxes(keras.layers.Layer):
    """Normalize pixel boxes [B, N, 4] by the size of the images [B, H, W, channels].

    Args:
        half_open: Whether normalized boxes are half-open; see `mrcnn.geometry.boxes`.
    """

    def __init__(self, half_open: bool = False, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.half_open = half_open

    def call(self, inputs: list[Tensor]) -> Tensor:
        boxes, images = inputs
        return box_ops.norm_boxes(boxes, ops.shape(images)[1:3], self.half_open)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "half_open": self.half_open}

    def compute_output_spec(self, inputs: list[Tensor]) -> Tensor:
        return keras.KerasTensor(inputs[0].shape, "float32")

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return input_shape[0]

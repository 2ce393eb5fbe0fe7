"""Targets of the second stage: RoIs sampled from the proposals, each with its class, deltas and mask.

Faster R-CNN, section 3.3 and Mask R-CNN, section 3.1, with the sampling rule of the original library:
the number of negatives follows the positives that were found, so no positives means no RoI at all.
Axes: B images, P proposals, G ground truths, K positive places, R RoIs.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops, roi_align, sampling

Tensor = Any


def _overlaps(proposals: Tensor, boxes: Tensor, counts: Tensor) -> Tensor:
    """IoU [B, P, G] without gradient; -1 at boxes that do not count ([B, G] bool)."""
    overlaps = box_ops.compute_overlaps(ops.stop_gradient(proposals), ops.stop_gradient(boxes))
    overlaps = ops.where(ops.isnan(overlaps), ops.zeros_like(overlaps), overlaps)
    return ops.where(ops.expand_dims(counts, 1), overlaps, -ops.ones_like(overlaps))


def sample_rois(
    positive: Tensor, negative: Tensor, keys: Tensor, rois_per_image: int, positive_ratio: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose positives, then negatives in proportion to them.

    positive, negative: [B, P] bool; keys: [B, P] float in [0, 1], the largest are drawn first.
    Returns index int32 [B, R] into the proposals, and the number of positives and of all RoIs, int32 [B]
    each. Positives come first, then negatives; places after the last RoI hold any index.
    """
    limit = int(rois_per_image * positive_ratio)
    places = positive.shape[1]
    positive_index, positives = sampling.draw(positive, keys, min(limit, places))
    negative_index, negatives = sampling.draw(negative, keys, min(rois_per_image, places))
    ratio = np.float32(1.0 / positive_ratio)
    wanted = ops.cast(ratio * ops.cast(positives, "float32"), "int32") - positives
    total = positives + ops.minimum(negatives, wanted)

    place = ops.arange(rois_per_image)[None]  # [1, R]
    from_positive = ops.clip(place, 0, positive_index.shape[1] - 1)
    from_negative = ops.clip(place - positives[:, None], 0, negative_index.shape[1] - 1)
    from_positive = ops.broadcast_to(from_positive, ops.shape(from_negative))
    index = ops.where(
        place < positives[:, None],
        ops.take_along_axis(positive_index, from_positive, axis=1),
        ops.take_along_axis(negative_index, from_negative, axis=1),
    )
    return index, positives, ops.minimum(total, rois_per_image)


def crop_masks(masks: Tensor, assigned: Tensor, boxes: Tensor, mask_shape: tuple[int, int]) -> Tensor:
    """Cut and resize the assigned mask of each RoI (bilinear, zero outside), then round half to even.

    masks: [B, h, w, G] bool; assigned: [B, K] int, mask of each RoI; boxes: [B, K, 4] normalised to the
    mask. Returns float32 [B, K, mask_height, mask_width] of 0 and 1.
    """
    height, width, instances = (masks.shape[i] or ops.shape(masks)[i] for i in (1, 2, 3))
    batch = ops.shape(masks)[0]
    cells = ops.reshape(ops.cast(ops.transpose(masks, (0, 3, 1, 2)), "float32"), (-1, 1))
    image = ops.cast(ops.arange(batch), "int32")[:, None]
    start = (image * instances + ops.cast(assigned, "int32")) * (height * width)
    rows = ops.ones_like(boxes[..., 0]) * ops.cast(height, "float32")
    columns = ops.ones_like(boxes[..., 0]) * ops.cast(width, "float32")
    y = roi_align.sample_positions(boxes[..., 0], boxes[..., 2], rows, mask_shape[0])
    x = roi_align.sample_positions(boxes[..., 1], boxes[..., 3], columns, mask_shape[1])
    cut = roi_align.bilinear_sample(cells, y, x, (rows, columns), start)
    return ops.round(cut[..., 0])


class DetectionTargetLayer(keras.layers.Layer):
    """Sample RoIs from the proposals and give each its targets.

    config: a Config whose TRAIN_ROIS_PER_IMAGE, ROI_POSITIVE_RATIO, BBOX_STD_DEV, MASK_SHAPE, USE_MINI_MASK,
    ROI_POSITIVE_IOU, CROWD_IOU and ROI_INCLUDE_GT are used, or None; then the keyword arguments count.
    shuffle: draw RoIs at random; otherwise the first ones are taken.

    Call with [proposals [B, P, 4] normalised, zero rows allowed; gt_class_ids int [B, G], 0 = padding,
    negative = crowd; gt_boxes [B, G, 4] normalised; gt_masks bool [B, h, w, G], whole or mini].
    Returns rois [B, R, 4], target_class_ids int32 [B, R], target_bbox [B, R, 4] divided by bbox_std_dev,
    target_mask [B, R, mask_height, mask_width]: positives, then negatives (class 0), then zero rows.
    The deltas stay functions of the proposals, so the box loss also trains the RPN, as in the original.
    """

    def __init__(
        self,
        config=None,
        rois_per_image=200,
        positive_ratio=0.33,
        bbox_std_dev=(0.1, 0.1, 0.2, 0.2),
        mask_shape=(28, 28),
        use_mini_mask=True,
        positive_iou=0.5,
        crowd_iou=0.001,
        include_gt=False,
        shuffle=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        if config is not None:
            rois_per_image = config.TRAIN_ROIS_PER_IMAGE
            positive_ratio = config.ROI_POSITIVE_RATIO
            bbox_std_dev = config.BBOX_STD_DEV
            mask_shape = config.MASK_SHAPE
            use_mini_mask = config.USE_MINI_MASK
            positive_iou = getattr(config, "ROI_POSITIVE_IOU", positive_iou)
            crowd_iou = getattr(config, "CROWD_IOU", crowd_iou)
            include_gt = getattr(config, "ROI_INCLUDE_GT", include_gt)
        self.rois_per_image = int(rois_per_image)
        self.positive_ratio = float(positive_ratio)
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.mask_shape = tuple(int(side) for side in mask_shape)
        self.use_mini_mask = bool(use_mini_mask)
        self.positive_iou = float(positive_iou)
        self.crowd_iou = float(crowd_iou)
        self.include_gt = bool(include_gt)
        self.shuffle = shuffle
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def max_positives(self) -> int:
        """Places at the head of each image's RoIs that can hold a positive."""
        return int(self.rois_per_image * self.positive_ratio)

    def call(self, inputs):
        proposals, gt_class_ids, gt_boxes, gt_masks = inputs
        gt_class_ids = ops.cast(gt_class_ids, "int32")
        if self.include_gt:
            objects = ops.where(gt_class_ids[..., None] > 0, gt_boxes, ops.zeros_like(gt_boxes))
            if objects.shape[1] is None:  # left open; the masks say how many
                objects = ops.reshape(objects, (-1, gt_masks.shape[3], 4))
            proposals = ops.concatenate([proposals, objects], axis=1)
        overlaps = _overlaps(proposals, gt_boxes, gt_class_ids > 0)
        crowd = ops.max(_overlaps(proposals, gt_boxes, gt_class_ids < 0), axis=2)
        best = ops.max(overlaps, axis=2)
        filled = ops.any(proposals != 0.0, axis=2)
        positive = ops.logical_and(best >= self.positive_iou, filled)
        negative = ops.logical_and(best < self.positive_iou, crowd < self.crowd_iou)
        negative = ops.logical_and(negative, filled)
        keys = sampling.priorities(best, self.shuffle, self.seed_generator)
        index, positives, total = sample_rois(
            positive, negative, keys, self.rois_per_image, self.positive_ratio
        )
        place = ops.arange(self.rois_per_image)[None]
        is_roi = place < total[:, None]
        is_positive = place < positives[:, None]
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

    def _deltas(self, rois: Tensor, boxes: Tensor, is_positive: Tensor) -> Tensor:
        """Deltas [B, R, 4] of the positives, zero elsewhere."""
        # Other rows can be empty boxes; a stand-in keeps infinities out of the gradient.
        stand_in = ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32"))
        chosen = is_positive[..., None]
        deltas = box_ops.box_refinement(ops.where(chosen, rois, stand_in), ops.where(chosen, boxes, stand_in))
        return deltas / ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))

    def _masks(
        self, rois: Tensor, boxes: Tensor, gt_masks: Tensor, assigned: Tensor, is_positive: Tensor
    ) -> Tensor:
        """Mask targets [B, R, mask_height, mask_width]; only the places of positives are computed."""
        head = self.max_positives
        rois, boxes = (ops.stop_gradient(x[:, :head]) for x in (rois, boxes))
        if self.use_mini_mask:
            corner = ops.concatenate([boxes[..., :2], boxes[..., :2]], axis=-1)
            size = boxes[..., 2:] - boxes[..., :2]
            size = ops.concatenate([size, size], axis=-1)
            rois = (rois - corner) / ops.where(size == 0.0, 1.0, size)
        masks = crop_masks(gt_masks, assigned[:, :head], rois, self.mask_shape)
        masks = ops.where(is_positive[:, :head, None, None], masks, 0.0)
        return ops.pad(masks, ((0, 0), (0, self.rois_per_image - head), (0, 0), (0, 0)))

    def compute_output_spec(self, inputs):
        batch, rois = inputs[0].shape[0], self.rois_per_image
        return (
            keras.KerasTensor((batch, rois, 4), "float32"),
            keras.KerasTensor((batch, rois), "int32"),
            keras.KerasTensor((batch, rois, 4), "float32"),
            keras.KerasTensor((batch, rois, *self.mask_shape), "float32"),
        )

    def compute_output_shape(self, input_shape):
        batch, rois = input_shape[0][0], self.rois_per_image
        return (batch, rois, 4), (batch, rois), (batch, rois, 4), (batch, rois, *self.mask_shape)

    def get_config(self):
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
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

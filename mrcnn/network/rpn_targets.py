"""Targets of the first stage: what the RPN should answer at each anchor (Faster R-CNN, section 3.1.2).

The tensor twin of `data.rpn_targets`. Axes: B images, A anchors, G ground truths, T anchors that train.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops, sampling
from mrcnn.network.anchors import anchor_count, pixel_anchors

Tensor = Any

POSITIVE, NEUTRAL, NEGATIVE = 1, 0, -1

# IoUs that differ by less than this share are ties: rounding must not break them, and a compiler may
# compute one and the same IoU twice with different rounding.
TIE = 1e-6


def _overlaps(center: Tensor, half: Tensor, boxes: Tensor) -> Tensor:
    """IoU [B, A] of every anchor with one box of each image ([B, 4], pixels).

    Edges are measured from the anchor's centre: centres and boxes are whole numbers, so that nothing is lost
    far from the origin and equal anchors get equal values.
    """
    boxes = boxes[:, None]  # [B, 1, 4]
    low = ops.maximum(boxes[..., :2] - center, -half)  # [B, A, 2]
    high = ops.minimum(boxes[..., 2:] - center, half)
    side = ops.maximum(high - low, 0.0)
    intersection = side[..., 0] * side[..., 1]
    area = 4.0 * half[:, 0] * half[:, 1]
    box_area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return intersection / (area + box_area - intersection)


def match_anchors(
    center: Tensor, half: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The object that each anchor overlaps most.

    center, half: [A, 2], middle (y, x) and half sides of the anchors in pixels; gt_class_ids: int [B, G],
    0 = padding, negative = crowd; gt_boxes: [B, G, 4] in pixels, y2 and x2 outside.
    Returns, all [B, A]: index int32 of the object (the first of equals), its IoU (0 if none touches), bool
    whether no anchor overlaps some object more, and the largest IoU with a crowd.
    One object after the other, so that memory grows with A and not with A * G; padding costs nothing.
    """
    boxes = ops.cast(gt_boxes, "float32")
    used = ops.max(ops.where(gt_class_ids != 0, ops.arange(1, ops.shape(gt_class_ids)[1] + 1)[None], 0))
    none = ops.zeros_like(boxes[:, :1, 0]) + ops.zeros_like(half[None, :, 0])  # [B, A]

    def unfinished(number, *_):
        return number < used

    def follow(number, best, best_iou, favourite, crowd_iou):
        class_id = ops.take(gt_class_ids, number, axis=1)[:, None]
        iou = _overlaps(center, half, ops.take(boxes, number, axis=1))
        crowd_iou = ops.where(class_id < 0, ops.maximum(iou, crowd_iou), crowd_iou)
        iou = ops.where(class_id > 0, iou, 0.0)
        highest = ops.max(iou, axis=1, keepdims=True)
        tied = ops.logical_and(iou >= highest * (1.0 - TIE), highest > 0.0)
        better = iou > best_iou
        best = ops.where(better, ops.cast(number, "int32"), best)
        favourite = ops.logical_or(favourite, tied)
        return number + 1, best, ops.maximum(iou, best_iou), favourite, crowd_iou

    start = (ops.zeros_like(used), ops.cast(none, "int32"), none, none > 0.0, none)
    return ops.while_loop(unfinished, follow, start)[1:]


class RpnTargetLayer(keras.layers.Layer):
    """Label the anchors of each image and encode the boxes of the positive ones, as `build_rpn_targets`.

    config: a Config whose RPN_ANCHOR_SCALES, RPN_ANCHOR_RATIOS, BACKBONE_STRIDES, RPN_ANCHOR_STRIDE,
    RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU, CROWD_IOU, RPN_TRAIN_ANCHORS_PER_IMAGE and RPN_BBOX_STD_DEV are used,
    or None; then the keyword arguments count.
    shuffle: thin out labels at random; otherwise the first anchors keep theirs.

    Call with [images [B, H, W, channels], gt_class_ids int [B, G], 0 = padding, negative = crowd; gt_boxes
    [B, G, 4] in pixels, y2 and x2 outside]. Returns rpn_match int32 [B, A, 1] (1 positive, -1 negative, 0
    neutral) and rpn_bbox [B, T, (dy, dx, log(dh), log(dw))] divided by bbox_std_dev: row i belongs to the
    i-th positive anchor, the rest is zero.
    """

    def __init__(
        self,
        config=None,
        scales=(32, 64, 128, 256, 512),
        ratios=(0.5, 1, 2),
        strides=(4, 8, 16, 32, 64),
        anchor_stride=1,
        positive_iou=0.7,
        negative_iou=0.3,
        crowd_iou=0.001,
        anchors_per_image=256,
        bbox_std_dev=(0.1, 0.1, 0.2, 0.2),
        shuffle=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        if config is not None:
            scales, ratios = config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS
            strides, anchor_stride = config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
            positive_iou, negative_iou = config.RPN_POSITIVE_IOU, config.RPN_NEGATIVE_IOU
            crowd_iou, anchors_per_image = config.CROWD_IOU, config.RPN_TRAIN_ANCHORS_PER_IMAGE
            bbox_std_dev = config.RPN_BBOX_STD_DEV
        self.scales = tuple(float(scale) for scale in scales)
        self.ratios = tuple(float(ratio) for ratio in ratios)
        self.strides = tuple(int(stride) for stride in strides)
        self.anchor_stride = int(anchor_stride)
        self.positive_iou = float(positive_iou)
        self.negative_iou = float(negative_iou)
        self.crowd_iou = float(crowd_iou)
        self.anchors_per_image = int(anchors_per_image)
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.shuffle = shuffle
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        images, gt_class_ids, gt_boxes = inputs
        size = ops.shape(images)[1:3]
        center, half = pixel_anchors(size, self.scales, self.ratios, self.strides, self.anchor_stride)
        return self.targets(center, half, ops.cast(gt_class_ids, "int32"), gt_boxes)

    def targets(self, center, half, gt_class_ids, gt_boxes) -> tuple[Tensor, Tensor]:
        """The layer's results for any anchors, given as in `match_anchors`."""
        best, iou, favourite, crowd_iou = match_anchors(center, half, gt_class_ids, gt_boxes)
        positive = ops.logical_or(favourite, iou >= self.positive_iou)
        negative = ops.logical_and(iou < self.negative_iou, crowd_iou < self.crowd_iou)
        negative = ops.logical_and(negative, ~positive)
        keys = sampling.priorities(iou, self.shuffle, self.seed_generator)
        places = iou.shape[1] or self.anchors_per_image
        index, positives = sampling.draw(positive, keys, min(self.anchors_per_image // 2, places))
        others, available = sampling.draw(negative, keys, min(self.anchors_per_image, places))
        negatives = ops.minimum(available, self.anchors_per_image - positives)
        match = ops.where(
            sampling.marked(index, positives, iou),
            POSITIVE,
            ops.where(sampling.marked(others, negatives, iou), NEGATIVE, NEUTRAL),
        )
        bbox = self._deltas(center, half, index, positives, best, gt_boxes)
        return ops.cast(match, "int32")[..., None], bbox

    def _deltas(self, center, half, index, positives, best, gt_boxes) -> Tensor:
        """Deltas [B, T, 4] of the drawn positives, in the order of their anchors."""
        anchors = ops.shape(center)[0]
        filled = sampling.holds(index, positives)
        index = ops.minimum(ops.sort(ops.where(filled, index, anchors), axis=1), anchors - 1)
        boxes = box_ops.gather(ops.cast(gt_boxes, "float32"), box_ops.gather(best, index))
        # Unused places may meet an empty box of the padding.
        boxes = ops.where(filled[..., None], boxes, ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32")))
        center, half = ops.take(center, index, axis=0), ops.take(half, index, axis=0)
        side = boxes[..., 2:] - boxes[..., :2]
        shift = boxes[..., :2] + 0.5 * side - center
        deltas = ops.concatenate([shift / (2.0 * half), ops.log(side / (2.0 * half))], axis=-1)
        deltas = deltas / ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))
        deltas = ops.where(filled[..., None], deltas, 0.0)
        return ops.pad(deltas, ((0, 0), (0, self.anchors_per_image - index.shape[1]), (0, 0)))

    def compute_output_spec(self, inputs):
        (batch, match), (_, bbox) = (shape[:2] for shape in self._shapes(inputs[0].shape))
        return (
            keras.KerasTensor((batch, match, 1), "int32"),
            keras.KerasTensor((batch, bbox, 4), "float32"),
        )

    def compute_output_shape(self, input_shape):
        return self._shapes(input_shape[0])

    def _shapes(self, image_shape):
        batch, height, width = image_shape[:3]
        count = anchor_count((height, width), len(self.ratios), self.strides, self.anchor_stride)
        return (batch, count, 1), (batch, self.anchors_per_image, 4)

    def get_config(self):
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
            "positive_iou": self.positive_iou,
            "negative_iou": self.negative_iou,
            "crowd_iou": self.crowd_iou,
            "anchors_per_image": self.anchors_per_image,
            "bbox_std_dev": self.bbox_std_dev,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

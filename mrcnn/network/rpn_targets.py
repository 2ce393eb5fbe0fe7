"""Targets of the RPN: labels of all anchors, deltas of positive ones (Faster R-CNN, section 3.1.2).

`data.rpn_targets` computes the same with arrays.

Axes: B images, A anchors, G ground-truth boxes, T sampled anchors.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.geometry.anchors import NEGATIVE, NEUTRAL, POSITIVE
from mrcnn.network import box_ops, sampling
from mrcnn.network.anchors import anchor_count, pixel_anchors
from mrcnn.typing import Shape, Tensor

# IoUs that differ by a smaller share than this are ties. Rounding must not break a tie, and a compiler may
# compute the same IoU twice with different rounding.
TIE = 1e-6


def _overlaps(center: Tensor, half: Tensor, boxes: Tensor) -> Tensor:
    """Return the IoU [B, A] of every anchor (`center` and `half` are [2, A]) with one box of each image.

    The boxes are [B, 4] in pixels. Edges are measured from the center of the anchor. Centers and boxes are
    whole numbers, so no precision is lost far from the origin, and equal anchors get equal values.
    """
    boxes = boxes[..., None]  # [B, 4, 1]
    low = ops.maximum(boxes[:, :2] - center, -half)  # [B, 2, A]
    high = ops.minimum(boxes[:, 2:] - center, half)
    side = ops.maximum(high - low, 0.0)
    intersection = side[:, 0] * side[:, 1]
    area = 4.0 * half[0] * half[1]
    box_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return intersection / (area + box_area - intersection)


def match_anchors(
    center: Tensor, half: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the ground-truth box that each anchor overlaps most.

    Boxes are examined one at a time, so memory grows with A instead of A * G.

    Args:
        center, half: Centers (y, x) and half sides of the anchors in pixels, each [A, 2].
        gt_class_ids: int [B, G]; 0 is padding, negative ids are crowds.
        gt_boxes: Half-open boxes [B, G, 4] in pixels.

    Returns:
        Four tensors [B, A]: the int32 index of the best box, the first one in a tie; its IoU, 0 if no box
        overlaps; bool, whether the anchor is the best one for some box (a "low-quality match"); and the
        largest IoU with a crowd.
    """
    boxes = ops.cast(gt_boxes, "float32")
    used = ops.max(ops.where(gt_class_ids != 0, ops.arange(1, ops.shape(gt_class_ids)[1] + 1)[None], 0))
    zeros = ops.zeros_like(boxes[:, :1, 0]) + ops.zeros_like(half[None, :, 0])  # [B, A]
    # Tensors whose last axis is long are faster than those whose last axis is (y, x).
    center, half = ops.transpose(center), ops.transpose(half)

    def unfinished(number: Tensor, *_: Tensor) -> Tensor:
        return number < used

    def examine(
        number: Tensor, best: Tensor, best_iou: Tensor, best_for_some_gt: Tensor, crowd_iou: Tensor
    ) -> tuple[Tensor, ...]:
        class_id = ops.take(gt_class_ids, number, axis=1)[:, None]
        iou = _overlaps(center, half, ops.take(boxes, number, axis=1))
        crowd_iou = ops.where(class_id < 0, ops.maximum(iou, crowd_iou), crowd_iou)
        iou = ops.where(class_id > 0, iou, 0.0)
        highest = ops.max(iou, axis=1, keepdims=True)
        tied = ops.logical_and(iou >= highest * (1.0 - TIE), highest > 0.0)
        better = iou > best_iou
        best = ops.where(better, ops.cast(number, "int32"), best)
        best_for_some_gt = ops.logical_or(best_for_some_gt, tied)
        return number + 1, best, ops.maximum(iou, best_iou), best_for_some_gt, crowd_iou

    start = (ops.zeros_like(used), ops.cast(zeros, "int32"), zeros, zeros > 0.0, zeros)
    _, best, best_iou, best_for_some_gt, crowd_iou = ops.while_loop(unfinished, examine, start)
    return best, best_iou, best_for_some_gt, crowd_iou


@keras.saving.register_keras_serializable("mrcnn")
class RpnTargetLayer(keras.layers.Layer):
    """Label the anchors of each image, and encode the ground-truth boxes of the positive ones as deltas.

    Call with [images [B, H, W, channels]; gt_class_ids int [B, G], where 0 is padding and negative ids are
    crowds; gt_boxes [B, G, 4], half-open, in pixels]. Returns rpn_match int32 [B, A, 1] (1 positive, -1
    negative, 0 neutral) and rpn_bbox [B, T, (dy, dx, log(dh), log(dw))], divided by bbox_std_dev: row i
    belongs to the i-th positive anchor; unused slots are zero.

    Args:
        scales, ratios, strides, anchor_stride, rounded, fill_image: See
            `mrcnn.network.anchors.pixel_anchors`.
        positive_iou: Lowest IoU of a positive anchor. The best anchor of each box is positive, too.
        negative_iou: IoU below which an anchor is negative.
        crowd_iou: Lowest IoU with a crowd at which an anchor cannot be negative.
        anchors_per_image: Number of sampled anchors, T; at most half of them are positive.
        bbox_std_dev: Divisors of the deltas.
        shuffle: Whether to sample at random. If False, the first anchors are kept.
        seed: Seed of the random sampling.
    """

    def __init__(
        self,
        *,
        scales: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (0.5, 1, 2),
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_stride: int = 1,
        rounded: bool = False,
        fill_image: bool = False,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        crowd_iou: float = 0.001,
        anchors_per_image: int = 256,
        bbox_std_dev: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scales = tuple(float(scale) for scale in scales)
        self.ratios = tuple(float(ratio) for ratio in ratios)
        self.strides = tuple(int(stride) for stride in strides)
        self.anchor_stride = int(anchor_stride)
        self.rounded, self.fill_image = rounded, fill_image
        self.positive_iou = float(positive_iou)
        self.negative_iou = float(negative_iou)
        self.crowd_iou = float(crowd_iou)
        self.anchors_per_image = int(anchors_per_image)
        self.bbox_std_dev = tuple(float(value) for value in bbox_std_dev)
        self.shuffle = shuffle
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        images, gt_class_ids, gt_boxes = inputs
        size = ops.shape(images)[1:3]
        center, half = pixel_anchors(
            size, self.scales, self.ratios, self.strides, self.anchor_stride, self.rounded, self.fill_image
        )
        return self.targets(center, half, ops.cast(gt_class_ids, "int32"), gt_boxes)

    def targets(
        self, center: Tensor, half: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs of the layer for any anchors. The arguments are those of `match_anchors`."""
        best, iou, best_for_some_gt, crowd_iou = match_anchors(center, half, gt_class_ids, gt_boxes)
        positive = ops.logical_or(best_for_some_gt, iou >= self.positive_iou)
        negative = ops.logical_and(iou < self.negative_iou, crowd_iou < self.crowd_iou)
        negative = ops.logical_and(negative, ~positive)
        priority = sampling.priorities(iou, self.shuffle, self.seed_generator)
        limit = iou.shape[1] or self.anchors_per_image
        positive_index, positives = sampling.sample_top_k(
            positive, priority, min(self.anchors_per_image // 2, limit)
        )
        negative_index, available = sampling.sample_top_k(
            negative, priority, min(self.anchors_per_image, limit)
        )
        negatives = ops.minimum(available, self.anchors_per_image - positives)
        match = ops.where(
            sampling.sampled_mask(positive_index, positives, iou),
            POSITIVE,
            ops.where(sampling.sampled_mask(negative_index, negatives, iou), NEGATIVE, NEUTRAL),
        )
        bbox = self._deltas(center, half, positive_index, positives, best, gt_boxes)
        return ops.cast(match, "int32")[..., None], bbox

    def _deltas(
        self, center: Tensor, half: Tensor, index: Tensor, positives: Tensor, best: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """Return the deltas [B, T, 4] of the sampled positives, in the order of their anchors."""
        anchors = ops.shape(center)[0]
        filled = sampling.is_filled(index, positives)
        index = ops.minimum(ops.sort(ops.where(filled, index, anchors), axis=1), anchors - 1)
        boxes = box_ops.gather(ops.cast(gt_boxes, "float32"), box_ops.gather(best, index))
        # An unused slot may refer to an empty box of the padding, whose logarithm is not finite.
        boxes = ops.where(filled[..., None], boxes, ops.convert_to_tensor(np.array([0, 0, 1, 1], "float32")))
        center, half = ops.take(center, index, axis=0), ops.take(half, index, axis=0)
        side = boxes[..., 2:] - boxes[..., :2]
        shift = boxes[..., :2] + 0.5 * side - center
        deltas = ops.concatenate([shift / (2.0 * half), ops.log(side / (2.0 * half))], axis=-1)
        deltas = deltas / ops.convert_to_tensor(np.array(self.bbox_std_dev, "float32"))
        deltas = ops.where(filled[..., None], deltas, 0.0)
        return ops.pad(deltas, ((0, 0), (0, self.anchors_per_image - index.shape[1]), (0, 0)))

    def compute_output_spec(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        (batch, match), (_, bbox) = (shape[:2] for shape in self._shapes(inputs[0].shape))
        return (
            keras.KerasTensor((batch, match, 1), "int32"),
            keras.KerasTensor((batch, bbox, 4), "float32"),
        )

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, Shape]:
        return self._shapes(input_shape[0])

    def _shapes(self, image_shape: Shape) -> tuple[Shape, Shape]:
        batch, height, width = image_shape[:3]
        count = anchor_count((height, width), len(self.ratios), self.strides, self.anchor_stride)
        return (batch, count, 1), (batch, self.anchors_per_image, 4)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
            "rounded": self.rounded,
            "fill_image": self.fill_image,
            "positive_iou": self.positive_iou,
            "negative_iou": self.negative_iou,
            "crowd_iou": self.crowd_iou,
            "anchors_per_image": self.anchors_per_image,
            "bbox_std_dev": self.bbox_std_dev,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

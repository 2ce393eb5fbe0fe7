"""The five losses: tensors in, one float32 scalar out; zero where nothing matches.

Faster R-CNN, equation 1 and Mask R-CNN, section 3, with the averages of the original library.

A loss is a mean over what counts in the batch. Where devices share a batch, each divides its sum by
`mean_count(count)`, the mean of their counts: the mean of the devices' losses is then that of the batch.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from mrcnn.network import box_ops

Tensor = Any
MeanCount = Callable[[Tensor], Tensor]

# Probabilities are kept this far from 0 and 1 before the logarithm.
EPSILON = 1e-7

# Least divisor of a sum over nothing, below any mean count of devices.
LEAST_COUNT = 1e-6


def one_device(count: Tensor) -> Tensor:
    """The mean count of a single device: its own."""
    return count


def smooth_l1_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Smooth L1 of each element (Fast R-CNN, equation 3), not reduced. Any shape, float32."""
    difference = ops.abs(y_true - y_pred)
    return ops.where(difference < 1.0, 0.5 * difference**2, difference - 0.5)


def _mean_over(values: Tensor, selected: Tensor, mean_count: MeanCount) -> Tensor:
    """Mean of the selected values (0 if none). selected: bool of the leading axes of values."""
    weights = ops.cast(selected, "float32")
    per_row = math.prod(values.shape[len(selected.shape) :])
    for _ in values.shape[len(selected.shape) :]:
        weights = ops.expand_dims(weights, -1)
    # where() and not a product: a NaN in a row that does not count must not reach the sum.
    kept = ops.where(weights > 0.0, values, ops.zeros_like(values))
    count = mean_count(ops.sum(weights))
    return ops.sum(kept) / (ops.maximum(count, LEAST_COUNT) * per_row)


def _cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Softmax cross entropy [...] of int labels [...] and logits [..., classes]."""
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return -ops.squeeze(ops.take_along_axis(log_probs, labels[..., None], axis=-1), axis=-1)


def rpn_class_loss(rpn_match: Tensor, rpn_class_logits: Tensor, mean_count: MeanCount = one_device) -> Tensor:
    """Objectness of the anchors that have a target.

    rpn_match: [B, A, 1] int, 1 positive, -1 negative, 0 neutral; rpn_class_logits: [B, A, 2].
    Returns the mean over the positive and negative anchors of the batch.
    """
    match = rpn_match[..., 0]
    labels = ops.cast(match == 1, "int32")
    return _mean_over(_cross_entropy(labels, rpn_class_logits), match != 0, mean_count)


def rpn_bbox_loss(
    target_bbox: Tensor, rpn_match: Tensor, rpn_bbox: Tensor, mean_count: MeanCount = one_device
) -> Tensor:
    """Deltas of the positive anchors.

    target_bbox: [B, T, 4], targets of the positives in the order of their anchors, the rest zero;
    rpn_match: [B, A, 1] int; rpn_bbox: [B, A, 4]. Returns the mean over all coordinates of all positives.
    """
    positive = rpn_match[..., 0] == 1
    rank = ops.cumsum(ops.cast(positive, "int32"), axis=1) - 1
    rank = ops.clip(rank, 0, ops.shape(target_bbox)[1] - 1)
    targets = box_ops.gather(ops.cast(target_bbox, "float32"), rank)
    return _mean_over(smooth_l1_loss(targets, ops.cast(rpn_bbox, "float32")), positive, mean_count)


def mrcnn_class_loss(
    target_class_ids: Tensor,
    pred_class_logits: Tensor,
    active_class_ids: Tensor,
    mean_count: MeanCount = one_device,
) -> Tensor:
    """Class of every RoI, padding rows counted as background.

    target_class_ids: int [B, R]; pred_class_logits: [B, R, classes]; active_class_ids: [B, classes] of 0
    and 1, classes that exist in the image's data set. RoIs whose predicted class is not active do not count;
    only the first image's flags are read, as in the original. NaN if no RoI counts.
    """
    labels = ops.cast(target_class_ids, "int32")
    predicted = ops.argmax(pred_class_logits, axis=2)
    active = ops.take(ops.cast(active_class_ids[0], "float32"), predicted, axis=0)
    loss = _cross_entropy(labels, pred_class_logits) * active
    return ops.sum(loss) / mean_count(ops.sum(active))


def mrcnn_bbox_loss(
    target_bbox: Tensor, target_class_ids: Tensor, pred_bbox: Tensor, mean_count: MeanCount = one_device
) -> Tensor:
    """Deltas of the positive RoIs, for their own class.

    target_bbox: [B, R, 4]; target_class_ids: int [B, R]; pred_bbox: [B, R, classes, 4].
    Returns the mean over all coordinates of all positives.
    """
    own = box_ops.own_class(pred_bbox, target_class_ids)
    difference = smooth_l1_loss(target_bbox, ops.cast(own, "float32"))
    return _mean_over(difference, target_class_ids > 0, mean_count)


def mrcnn_mask_loss(
    target_masks: Tensor, target_class_ids: Tensor, pred_masks: Tensor, mean_count: MeanCount = one_device
) -> Tensor:
    """Pixels of the positive RoIs' masks, for their own class (Mask R-CNN, section 3).

    target_masks: [B, R, h, w] of 0 and 1; target_class_ids: int [B, R]; pred_masks: [B, R, h, w, classes]
    probabilities. Returns the mean binary cross entropy over all pixels of all positives.
    """
    own_class = ops.cast(target_class_ids, "int32")[:, :, None, None, None]
    shape = ops.shape(pred_masks)
    own_class = ops.broadcast_to(own_class, (*shape[:4], 1))
    own = ops.squeeze(ops.take_along_axis(pred_masks, own_class, axis=4), axis=4)
    own = ops.clip(ops.cast(own, "float32"), EPSILON, 1.0 - EPSILON)
    loss = -(target_masks * ops.log(own) + (1.0 - target_masks) * ops.log(1.0 - own))
    return _mean_over(loss, target_class_ids > 0, mean_count)

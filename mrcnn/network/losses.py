"""The five losses (Faster R-CNN, equation 1; Mask R-CNN, section 3). Each returns a float32 scalar.

A loss is a mean over those rows of the batch that count, or zero if none does. A loss of deltas can also be
the sum over these rows, divided by the number of all samples. If several devices share a batch, each divides
its sum by `mean_count(count)`, the mean of their counts, so that the mean of their losses is the loss of the
whole batch.

Axes: B images, A anchors, T targets of the RPN, R RoIs, h and w pixels of a mask.
"""

import math
from collections.abc import Callable

from keras import ops

from mrcnn.network import box_ops
from mrcnn.typing import Tensor

MeanCount = Callable[[Tensor], Tensor]

# Probabilities are clipped to this distance from 0 and 1 before the logarithm.
EPSILON = 1e-7

# The smallest divisor, for a sum over no rows: less than any mean count of several devices.
MIN_COUNT = 1e-6


def one_device(count: Tensor) -> Tensor:
    """Return the mean count of a single device, which is its own."""
    return count


def smooth_l1_loss(y_true: Tensor, y_pred: Tensor, beta: float = 1.0) -> Tensor:
    """Compute the smooth L1 loss of each element, float32 (Fast R-CNN, equation 3).

    Args:
        y_true, y_pred: Tensors of the same shape.
        beta: Difference at which the square becomes a line. 0 gives the absolute value.
    """
    difference = ops.abs(y_true - y_pred)
    if beta == 0.0:
        return difference
    return ops.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)


def _mean_over(
    values: Tensor, selected: Tensor, mean_count: MeanCount, counted: Tensor | None = None
) -> Tensor:
    """Return the mean of the selected values, or 0 if there are none.

    `selected` covers the leading axes of `values`. With `counted`, which has the shape of `selected`, divide
    the sum by the number of counted rows instead.
    """
    weights = ops.cast(selected, "float32")
    per_row = math.prod(values.shape[len(selected.shape) :])
    for _ in values.shape[len(selected.shape) :]:
        weights = ops.expand_dims(weights, -1)
    # where() instead of a product: a NaN in a row that does not count must not reach the sum.
    kept = ops.where(weights > 0.0, values, ops.zeros_like(values))
    if counted is not None:
        return ops.sum(kept) / ops.maximum(mean_count(ops.sum(ops.cast(counted, "float32"))), MIN_COUNT)
    count = mean_count(ops.sum(weights))
    return ops.sum(kept) / (ops.maximum(count, MIN_COUNT) * per_row)


def _cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the softmax cross-entropy [...] of int labels [...] and logits [..., classes]."""
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return -ops.squeeze(ops.take_along_axis(log_probs, labels[..., None], axis=-1), axis=-1)


def rpn_class_loss(rpn_match: Tensor, rpn_class_logits: Tensor, mean_count: MeanCount = one_device) -> Tensor:
    """Compute the objectness loss: mean cross-entropy over the positive and negative anchors of the batch.

    Args:
        rpn_match: int [B, A, 1]: 1 positive, -1 negative, 0 neutral.
        rpn_class_logits: [B, A, (background, foreground)].
        mean_count: See the module docstring.
    """
    match = rpn_match[..., 0]
    labels = ops.cast(match == 1, "int32")
    return _mean_over(_cross_entropy(labels, rpn_class_logits), match != 0, mean_count)


def rpn_bbox_loss(
    target_bbox: Tensor,
    rpn_match: Tensor,
    rpn_bbox: Tensor,
    mean_count: MeanCount = one_device,
    beta: float = 1.0,
    per_sample: bool = False,
) -> Tensor:
    """Compute the box loss of the RPN: mean smooth L1 over all coordinates of the positive anchors.

    Args:
        target_bbox: [B, T, 4], the targets of the positive anchors in the order of the anchors, then zeros.
        rpn_match: int [B, A, 1]: 1 positive, -1 negative, 0 neutral.
        rpn_bbox: [B, A, 4].
        mean_count: See the module docstring.
        beta: See `smooth_l1_loss`.
        per_sample: Whether to divide the sum by the number of positive and negative anchors instead.
    """
    positive = rpn_match[..., 0] == 1
    rank = ops.cumsum(ops.cast(positive, "int32"), axis=1) - 1
    rank = ops.clip(rank, 0, ops.shape(target_bbox)[1] - 1)
    targets = box_ops.gather(ops.cast(target_bbox, "float32"), rank)
    difference = smooth_l1_loss(targets, ops.cast(rpn_bbox, "float32"), beta)
    return _mean_over(difference, positive, mean_count, rpn_match[..., 0] != 0 if per_sample else None)


def mrcnn_class_loss(
    target_class_ids: Tensor,
    pred_class_logits: Tensor,
    active_class_ids: Tensor,
    mean_count: MeanCount = one_device,
    is_roi: Tensor | None = None,
) -> Tensor:
    """Compute the class loss: mean cross-entropy over the RoIs.

    Empty slots count as background unless `is_roi` is given. An RoI whose predicted class is not active does
    not count. The loss is 0 if no RoI counts.

    Args:
        target_class_ids: int [B, R].
        pred_class_logits: [B, R, classes].
        active_class_ids: [B, classes], 1 for the classes of the image's dataset, else 0. As in the Keras 2
            library, only the row of the first image is read.
        mean_count: See the module docstring.
        is_roi: bool [B, R], True for the slots that count; None for all.
    """
    labels = ops.cast(target_class_ids, "int32")
    predicted = ops.argmax(pred_class_logits, axis=2)
    active = ops.take(ops.cast(active_class_ids[0], "float32"), predicted, axis=0)
    if is_roi is not None:
        return _mean_over(
            _cross_entropy(labels, pred_class_logits), ops.logical_and(is_roi, active > 0.0), mean_count
        )
    loss = _cross_entropy(labels, pred_class_logits) * active
    return ops.sum(loss) / ops.maximum(mean_count(ops.sum(active)), MIN_COUNT)


def mrcnn_bbox_loss(
    target_bbox: Tensor,
    target_class_ids: Tensor,
    pred_bbox: Tensor,
    mean_count: MeanCount = one_device,
    beta: float = 1.0,
    is_roi: Tensor | None = None,
) -> Tensor:
    """Compute the box loss: mean smooth L1 over the coordinates of the positive RoIs, for their class.

    Args:
        target_bbox: [B, R, 4].
        target_class_ids: int [B, R].
        pred_bbox: [B, R, classes, 4].
        mean_count: See the module docstring.
        beta: See `smooth_l1_loss`.
        is_roi: bool [B, R], True for slots that hold an RoI. If given, the sum is divided by their number
            instead.
    """
    own = box_ops.select_class(pred_bbox, target_class_ids)
    difference = smooth_l1_loss(target_bbox, ops.cast(own, "float32"), beta)
    return _mean_over(difference, target_class_ids > 0, mean_count, is_roi)


def mrcnn_mask_loss(
    target_masks: Tensor, target_class_ids: Tensor, pred_masks: Tensor, mean_count: MeanCount = one_device
) -> Tensor:
    """Compute the mask loss: mean binary cross-entropy of the positive RoIs, for their class.

    Args:
        target_masks: [B, R, h, w], from 0 to 1.
        target_class_ids: int [B, R].
        pred_masks: Probabilities [B, R, h, w, classes].
        mean_count: See the module docstring.
    """
    class_ids = ops.cast(target_class_ids, "int32")[:, :, None, None, None]
    shape = ops.shape(pred_masks)
    class_ids = ops.broadcast_to(class_ids, (*shape[:4], 1))
    own = ops.squeeze(ops.take_along_axis(pred_masks, class_ids, axis=4), axis=4)
    own = ops.clip(ops.cast(own, "float32"), EPSILON, 1.0 - EPSILON)
    loss = -(target_masks * ops.log(own) + (1.0 - target_masks) * ops.log(1.0 - own))
    return _mean_over(loss, target_class_ids > 0, mean_count)

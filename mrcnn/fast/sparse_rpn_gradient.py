"""The gradient of the region proposal network, at the few anchors that have one.

Of hundreds of thousands of anchors a step trains the sample of the RPN's loss (Faster R-CNN, section 3.1.3:
256 an image) and those that positive RoIs come from. All others get no gradient, so two thirds of the RPN's
arithmetic in a step, which is a fifth of the step, are products with zero. Here they are left out: the
backward pass cuts the 3x3 windows of those anchors out of the pyramid and works on them alone.
Axes: B images, A anchors, T places with a gradient, S cells of all levels together, C channels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops, sampling

Tensor = Any

SIDE = 3  # of the RPN's window in cells
LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")


def windows(height: Tensor, width: Tensor, stride: int) -> Tensor:
    """The cells that the RPN sees from each of its places on a feature map [height, width].

    Returns int32 [places, 9], cells counted row by row, -1 outside, as a 3x3 convolution with "same" padding
    takes them.
    """
    row, column = (_reach(side, stride) for side in (height, width))
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = ops.logical_and(
        ops.logical_and(row >= 0, row < height), ops.logical_and(column >= 0, column < width)
    )
    return ops.reshape(ops.where(inside, row * width + column, -1), (-1, SIDE * SIDE))


def _reach(length: Tensor, stride: int) -> Tensor:
    """Positions that each place sees along one side: int32 [places, 3]."""
    places = (length + stride - 1) // stride
    before = ops.maximum((places - 1) * stride + SIDE - length, 0) // 2
    first = ops.cast(ops.arange(places), "int32") * stride - ops.cast(before, "int32")
    return first[:, None] + ops.convert_to_tensor(np.arange(SIDE, dtype="int32"))


def windows_of_pyramid(maps: list[Tensor], stride: int) -> Tensor:
    """`windows` of all levels, int32 [places, 9]; cells are counted through the levels."""
    parts, start = [], 0
    for level_map in maps:
        height, width = ops.shape(level_map)[1:3]
        cells = windows(height, width, stride)
        parts.append(ops.where(cells < 0, -1, cells + start))
        start = start + height * width
    return ops.concatenate(parts, axis=0)


def cut(cells: Tensor, window: Tensor) -> Tensor:
    """Contents of windows: cells [B, S, C] and window int [B, T, 9] give float32 [B, T, 9 * C], 0 outside."""
    content = ops.take(ops.reshape(cells, (-1, cells.shape[-1])), _flat_index(cells, window), axis=0)
    content = ops.where(window[..., None] < 0, 0.0, ops.cast(content, "float32"))
    return ops.reshape(content, (*ops.shape(window)[:2], SIDE * SIDE * cells.shape[-1]))


def paste(content: Tensor, window: Tensor, cells: Tensor) -> Tensor:
    """The transpose of `cut`: windows' contents [B, T, 9 * C] added up at their cells, [B, S, C]."""
    (batch, count), channels = ops.shape(cells)[:2], cells.shape[-1]
    content = ops.reshape(content, (*ops.shape(window), channels))
    content = ops.where(window[..., None] < 0, 0.0, content)
    summed = ops.segment_sum(
        ops.reshape(content, (-1, channels)),
        ops.reshape(_flat_index(cells, window), (-1,)),
        num_segments=batch * count,
    )
    return ops.reshape(summed, (batch, count, channels))


def _flat_index(cells: Tensor, window: Tensor) -> Tensor:
    """Windows' cells counted through all images; those outside get the first of their image."""
    batch, count = ops.shape(cells)[:2]
    start = ops.cast(ops.arange(batch), "int32")[:, None, None] * count
    return ops.maximum(window, 0) + start


def places_with_gradient(upstream: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Where the RPN's results have a gradient, and which.

    upstream: gradient [B, places, D] of the results. Returns index int32 [B, T] and the gradient there
    [B, T, D], zero in unused rows; NaN if there are more places than `most`, the largest T.
    """
    count = upstream.shape[1] or ops.shape(upstream)[1]
    touched = ops.any(upstream != 0.0, axis=2)
    keys = ops.ones_like(upstream[..., 0])
    index, found = sampling.draw(touched, keys, min(most, upstream.shape[1] or most))
    held = sampling.holds(index, found)
    index = ops.minimum(index, count - 1)
    chosen = ops.where(held[..., None], box_ops.gather(upstream, index), 0.0)
    all_found = ops.sum(ops.cast(touched, "int32"), axis=1) <= found
    return index, ops.where(all_found[:, None, None], chosen, np.nan)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Sum over images and places of the outer products of [B, T, M] and [B, T, N]: [M, N]."""
    x, y = ops.reshape(x, (-1, x.shape[-1])), ops.reshape(y, (-1, y.shape[-1]))
    return ops.matmul(ops.transpose(x), y)


def gradients(
    upstream: Tensor, maps: list[Tensor], weights: list[Tensor], stride: int, ratios: int, most: int
) -> list[Tensor]:
    """Gradients of feature maps and weights, in float32.

    upstream: gradient [B, A, (2 logits, 4 deltas)] of the RPN's results; maps: [B, h, w, C] of each level;
    weights: kernel and bias of each of LAYERS; stride, ratios: cells per anchor, anchors per place; most: as
    in `places_with_gradient`. Returns one gradient for each of maps and weights.
    """
    batch, channels = ops.shape(maps[0])[0], maps[0].shape[-1]
    places = upstream.shape[1] // ratios if upstream.shape[1] else -1
    place, given = places_with_gradient(ops.reshape(upstream, (batch, places, ratios * 6)), most)
    given = ops.reshape(given, (batch, -1, ratios, 6))
    window = ops.take(windows_of_pyramid(maps, stride), place, axis=0)
    cells = ops.concatenate([ops.reshape(x, (batch, -1, channels)) for x in maps], axis=1)
    seen = cut(cells, window)

    kernel, bias, *heads = weights
    flat = ops.reshape(kernel, (-1, kernel.shape[-1]))
    before = ops.matmul(seen, flat) + bias
    shared, back, of_heads = ops.relu(before), 0.0, []
    for part, head in ((given[..., :2], heads[0]), (given[..., 2:], heads[2])):
        part = ops.reshape(part, (batch, -1, head.shape[-1]))
        back = back + ops.matmul(part, ops.transpose(head[0, 0]))
        of_heads += [_products(shared, part)[None, None], ops.sum(part, axis=(0, 1))]
    back = ops.where(before > 0.0, back, 0.0)
    of_kernel = ops.reshape(_products(seen, back), kernel.shape)
    of_cells = paste(ops.matmul(back, ops.transpose(flat)), window, cells)
    return [*_split(of_cells, maps), of_kernel, ops.sum(back, axis=(0, 1)), *of_heads]


def _split(cells: Tensor, maps: list[Tensor]) -> list[Tensor]:
    """Cells [B, S, C] as maps of the given ones' shapes."""
    parts, start = [], 0
    for level_map in maps:
        count = ops.shape(level_map)[1] * ops.shape(level_map)[2]
        parts.append(ops.reshape(cells[:, start : start + count], ops.shape(level_map)))
        start = start + count
    return parts


def _nothing_of(weights: Sequence[Tensor]) -> Tensor:
    """Zero, computed from the weights, as long as they are finite.

    TensorFlow knows by this that they are to be read before an optimiser moves them: without it, it may read
    them for the backward pass when the first of them have moved already.
    """
    firsts = ops.stack([ops.reshape(x, (-1,))[0] for x in weights])
    return ops.minimum(ops.sum(ops.abs(firsts)), 0.0)


class RpnGradient(keras.layers.Layer):
    """Hand on what the RPN says; take back the gradient of a few anchors only.

    rpn: the model of `build_rpn_model`; anchor_stride, anchors_per_location: as there; most: the largest
    number of anchors of one image that can have a gradient.

    Call with [logits [B, A, 2], deltas [B, A, 4], feature maps [B, h, w, C] ...]: the RPN's results on these
    maps, joined in their order. Returns logits and deltas, the same numbers, float32. Gradients of the maps
    and of the RPN's weights are those that the RPN itself would have, computed in float32. They are NaN if
    more than `most` places of an image have one: a wrong gradient must not pass for a right one.
    """

    def __init__(self, rpn: keras.Model, anchor_stride: int, anchors_per_location: int, most: int, **kwargs):
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.anchor_stride = anchor_stride
        self.anchors_per_location = anchors_per_location
        self.most = most
        # Out of Keras' sight: the weights belong to the RPN and must not appear twice.
        self._weights_of = lambda: [getattr(rpn.get_layer(n), w) for n in LAYERS for w in ("kernel", "bias")]

    def call(self, inputs):
        logits, deltas, *maps = inputs
        levels, options = len(maps), (self.anchor_stride, self.anchors_per_location, self.most)

        @ops.custom_gradient
        def handed_on(said, *sources):
            def gradient(*received, upstream=None):  # backends differ in how they hand it over
                upstream = received[0] if upstream is None else upstream
                found = gradients(upstream, sources[:levels], sources[levels:], *options)
                found = [ops.cast(x, source.dtype) for x, source in zip(found, sources, strict=True)]
                return (ops.zeros_like(said), *found)

            return said + _nothing_of(sources[levels:]), gradient

        weights = [ops.cast(ops.convert_to_tensor(variable), "float32") for variable in self._weights_of()]
        said = ops.stop_gradient(ops.concatenate([logits, deltas], axis=-1))
        said = handed_on(said, *maps, *weights)
        return said[..., :2], said[..., 2:]

    def compute_output_spec(self, inputs):
        return [keras.KerasTensor(x.shape, "float32") for x in inputs[:2]]

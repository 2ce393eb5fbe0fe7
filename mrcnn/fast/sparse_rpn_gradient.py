"""The gradient of the RPN, computed only at the few locations that have one.

A training step samples 256 anchors per image for the losses of the RPN (Faster R-CNN, section 3.1.3), and
positive RoIs pass a gradient to their anchors. All other anchors have no gradient, so most of the RPN's
backward pass multiplies by zero. This backward pass gathers the 3x3 patches of the locations with a gradient
and only works on those. If more locations have a gradient, as with a loss over all anchors, it computes the
dense gradient. Small levels, and all levels of a narrow RPN, keep the plain backward pass: it takes little
arithmetic there, and each sparse pass adds hundreds of operations to the graph.

Axes: B images, L locations of a level, D outputs per location, T locations with a gradient, S cells of a
level, C channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import backend
from mrcnn.network import box_ops, sampling
from mrcnn.network.rpn import SECOND_CONVOLUTION, ObjectnessLogit
from mrcnn.typing import Tensor

KERNEL = 3  # side of the RPN's kernel in cells
LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
WEIGHTS = ("kernel", "bias")
# Coarse levels have few locations, and few of them are sampled. Their sparse pass has room for one location
# in COARSENESS, but for no fewer than SMALLEST_LIMIT.
COARSENESS = 16
SMALLEST_LIMIT = 64
# Levels on which the RPN's 3x3 convolution needs fewer multiplications keep the plain backward pass: 900
# locations of 256 channels with 512 filters, or 29,000 of 64 channels with 64 filters.
SMALLEST_ARITHMETIC = 2**30


class SparseGradientRpn(keras.layers.Layer):
    """A stand-in for the RPN with the same outputs and the same gradients, computed with less arithmetic.

    Call with a feature map [B, h, w, C]. Returns logits, scores and deltas as `build_rpn_model` does.
    The sparse pass computes gradients of the map and of the RPN's weights in float32.

    Args:
        rpn: A model of `build_rpn_model`, which keeps its weights.
        limit: Largest number of locations with a gradient, per level and image, for the sparse backward pass.
    """

    def __init__(self, rpn: keras.Model, limit: int):
        super().__init__(name=rpn.name, dtype="float32", autocast=False)
        self.limit = limit
        # Hidden from Keras, which would list the weights twice.
        self._rpn = lambda: rpn

    @property
    def weight_variables(self) -> list[keras.Variable]:
        """Kernel and bias of each of LAYERS."""
        rpn = self._rpn()
        return [getattr(rpn.get_layer(layer), weight) for layer in LAYERS for weight in WEIGHTS]

    def call(self, inputs: Tensor) -> list[Tensor]:
        rpn = self._rpn()
        stride = rpn.get_layer(LAYERS[0]).strides[0]
        objectness_logit = any(isinstance(layer, ObjectnessLogit) for layer in rpn.layers)
        logits, scores, deltas = rpn(inputs)
        if is_small(inputs.shape[1:3], stride, rpn.get_layer(LAYERS[0]).kernel.shape):
            return [ops.cast(x, "float32") for x in (logits, scores, deltas)]
        outputs = ops.stop_gradient(ops.concatenate([logits, deltas], axis=-1))  # [B, A, 6]

        @backend.custom_gradient
        def attach_gradient(outputs: Tensor, feature_map: Tensor, *weights: Tensor) -> Any:
            # Backends pass the upstream gradient by position or by name.
            def gradient(*upstreams: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
                upstream = upstreams[0] if upstream is None else upstream
                if objectness_logit:  # the logit of the background is a constant
                    upstream = ops.concatenate(
                        [ops.zeros_like(upstream[..., :1]), upstream[..., 1:]], axis=-1
                    )
                found = gradients(upstream, feature_map, list(weights), stride, self.limit)
                sources = (feature_map, *weights)
                found = [ops.cast(x, source.dtype) for x, source in zip(found, sources, strict=True)]
                return (ops.zeros_like(outputs), *found)

            return outputs + _zero_after(weights), gradient

        weights = [ops.cast(ops.convert_to_tensor(x), "float32") for x in self.weight_variables]
        outputs = attach_gradient(outputs, inputs, *weights)
        logits, deltas = outputs[..., :2], outputs[..., 2:]
        return [logits, ops.softmax(logits), deltas]

    def compute_output_spec(self, inputs: Tensor) -> list[Tensor]:
        return self._rpn().compute_output_spec(inputs)


def is_small(size: Sequence[int | None], stride: int, kernel: Sequence[int]) -> bool:
    """Return whether the RPN's 3x3 convolution of a map is below SMALLEST_ARITHMETIC multiplications.

    Args:
        size: (h, w) of the map. If a side is None, the answer is False.
        stride: Cells per location.
        kernel: Shape of the convolution's kernel.
    """
    if None in size:
        return False
    locations = math.prod(-(-int(side or 0) // stride) for side in size)
    return locations * math.prod(kernel) < SMALLEST_ARITHMETIC


def gradients(
    upstream: Tensor, feature_map: Tensor, weights: list[Tensor], stride: int, limit: int
) -> list[Tensor]:
    """Compute the gradients of the feature map and of the weights, in float32.

    Args:
        upstream: Gradient [B, A, (2 logits, 4 deltas)] of the RPN's outputs.
        feature_map: [B, h, w, C].
        weights: Kernel and bias of each of LAYERS.
        stride: Cells per location.
        limit: Largest number of locations per image for the sparse backward pass.
    """
    ratios = weights[3].shape[0] // 2
    locations = upstream.shape[1] // ratios if upstream.shape[1] else -1
    upstream = ops.reshape(upstream, (ops.shape(feature_map)[0], locations, ratios * 6))
    feature_map = ops.cast(feature_map, "float32")
    touched = ops.any(upstream != 0.0, axis=2)  # NaN counts, too
    if upstream.shape[1] is not None and upstream.shape[1] <= limit:
        return _sparse_gradients(upstream, touched, feature_map, weights, stride, upstream.shape[1])
    if upstream.shape[1] is not None:
        limit = min(limit, max(SMALLEST_LIMIT, upstream.shape[1] // COARSENESS))
    count = ops.max(ops.sum(ops.cast(touched, "int32"), axis=1))
    return ops.cond(
        count <= limit,
        lambda: _sparse_gradients(upstream, touched, feature_map, weights, stride, limit),
        lambda: _dense_gradients(upstream, feature_map, weights, stride),
    )


def _dense_gradients(
    upstream: Tensor, feature_map: Tensor, weights: list[Tensor], stride: int
) -> list[Tensor]:
    """Compute the gradients by differentiating the RPN at every location."""

    def rpn(feature_map: Tensor, kernel: Tensor, bias: Tensor, *heads: Tensor) -> Tensor:
        shared = ops.relu(backend.conv2d(feature_map, kernel, bias, strides=(stride, stride)))
        shared = ops.reshape(shared, (ops.shape(shared)[0], -1, shared.shape[-1]))
        # [B, L, 2 * ratios] and [B, L, 4 * ratios]
        logits, deltas = (ops.matmul(shared, heads[i][0, 0]) + heads[i + 1] for i in (0, 2))
        return _join_ratios(logits, deltas)

    return backend.vjp(rpn, [feature_map, *weights], upstream)


def _join_ratios(logits: Tensor, deltas: Tensor) -> Tensor:
    """Return the outputs per location [B, L, ratios * (2 logits, 4 deltas)] in the order of the anchors."""
    batch, locations = ops.shape(logits)[:2]
    ratios = logits.shape[-1] // 2
    parts = [ops.reshape(x, (batch, locations, ratios, -1)) for x in (logits, deltas)]
    return ops.reshape(ops.concatenate(parts, axis=-1), (batch, locations, ratios * 6))


def _sparse_gradients(
    upstream: Tensor, touched: Tensor, feature_map: Tensor, weights: list[Tensor], stride: int, limit: int
) -> list[Tensor]:
    """Compute the gradients from the patches of the touched locations, at most `limit` per image."""
    ratios = weights[3].shape[0] // 2
    batch, channels = ops.shape(feature_map)[0], feature_map.shape[-1]
    location, upstream = _touched_locations(upstream, touched, limit)
    upstream = ops.reshape(upstream, (batch, limit, ratios, 6))
    height, width = ops.shape(feature_map)[1:3]
    patches = ops.take(patch_cells(height, width, stride), location, axis=0)
    cells = ops.reshape(feature_map, (batch, -1, channels))
    content = gather_patches(cells, patches)

    kernel, bias, *heads = weights
    flat_kernel = ops.reshape(kernel, (-1, kernel.shape[-1]))
    pre_activation = ops.matmul(content, flat_kernel) + bias
    shared, shared_gradient, head_gradients = ops.relu(pre_activation), 0.0, []
    for part, head in ((upstream[..., :2], heads[0]), (upstream[..., 2:], heads[2])):
        part = ops.reshape(part, (batch, -1, head.shape[-1]))
        shared_gradient = shared_gradient + ops.matmul(part, ops.transpose(head[0, 0]))
        head_gradients += [_sum_of_outer_products(shared, part)[None, None], ops.sum(part, axis=(0, 1))]
    shared_gradient = ops.where(pre_activation > 0.0, shared_gradient, 0.0)
    kernel_gradient = ops.reshape(_sum_of_outer_products(content, shared_gradient), kernel.shape)
    patch_gradients = ops.matmul(shared_gradient, ops.transpose(flat_kernel))
    map_gradient = ops.reshape(scatter_add_patches(patch_gradients, patches, cells), ops.shape(feature_map))
    return [map_gradient, kernel_gradient, ops.sum(shared_gradient, axis=(0, 1)), *head_gradients]


def _touched_locations(upstream: Tensor, touched: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return the touched locations, int32 [B, T], and their gradients [B, T, D]; unused rows are zero."""
    count = upstream.shape[1] or ops.shape(upstream)[1]
    index, samples = sampling.sample_top_k(touched, ops.ones_like(upstream[..., 0]), limit)
    filled = sampling.is_filled(index, samples)
    index = ops.minimum(index, count - 1)
    return index, ops.where(filled[..., None], box_ops.gather(upstream, index), 0.0)


def patch_cells(height: Tensor, width: Tensor, stride: int) -> Tensor:
    """Return the cells that the RPN reads at each location of a feature map.

    Args:
        height, width: Size of the map in cells.
        stride: Cells per location.

    Returns:
        int32 [L, 9]: cells counted row by row, -1 outside, for a 3x3 kernel with "same" padding.
    """
    row, column = (_kernel_positions(side, stride) for side in (height, width))
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = ops.logical_and(
        ops.logical_and(row >= 0, row < height), ops.logical_and(column >= 0, column < width)
    )
    return ops.reshape(ops.where(inside, row * width + column, -1), (-1, KERNEL * KERNEL))


def _kernel_positions(length: Tensor, stride: int) -> Tensor:
    """Return the positions that the kernel reads along one side at each location: int32 [locations, 3]."""
    locations = (length + stride - 1) // stride
    before = ops.maximum((locations - 1) * stride + KERNEL - length, 0) // 2
    first = ops.cast(ops.arange(locations), "int32") * stride - ops.cast(before, "int32")
    return first[:, None] + ops.convert_to_tensor(np.arange(KERNEL, dtype="int32"))


def gather_patches(cells: Tensor, patches: Tensor) -> Tensor:
    """Gather patches: cells [B, S, C] and patches int [B, T, 9] give [B, T, 9 * C], 0 outside."""
    content = ops.take(ops.reshape(cells, (-1, cells.shape[-1])), _flat_index(cells, patches), axis=0)
    content = ops.where(patches[..., None] < 0, 0.0, content)
    return ops.reshape(content, (*ops.shape(patches)[:2], KERNEL * KERNEL * cells.shape[-1]))


def scatter_add_patches(content: Tensor, patches: Tensor, cells: Tensor) -> Tensor:
    """Sum the contents [B, T, 9 * C] of patches at their cells: [B, S, C], transpose of `gather_patches`."""
    (batch, count), channels = ops.shape(cells)[:2], cells.shape[-1]
    content = ops.reshape(content, (*ops.shape(patches), channels))
    content = ops.where(patches[..., None] < 0, 0.0, content)
    summed = ops.segment_sum(
        ops.reshape(content, (-1, channels)),
        ops.reshape(_flat_index(cells, patches), (-1,)),
        num_segments=batch * count,
    )
    return ops.reshape(summed, (batch, count, channels))


def _flat_index(cells: Tensor, patches: Tensor) -> Tensor:
    """Index the cells of patches through all images. A cell outside becomes the first cell of its image."""
    batch, count = ops.shape(cells)[:2]
    start = ops.cast(ops.arange(batch), "int32")[:, None, None] * count
    return ops.maximum(patches, 0) + start


def _sum_of_outer_products(x: Tensor, y: Tensor) -> Tensor:
    """Sum the outer products of [B, T, M] and [B, T, N] over images and locations: [M, N]."""
    x, y = ops.reshape(x, (-1, x.shape[-1])), ops.reshape(y, (-1, y.shape[-1]))
    return ops.matmul(ops.transpose(x), y)


def _zero_after(weights: tuple[Tensor, ...]) -> Tensor:
    """Return zero, computed from the weights, as long as they are finite: a control dependency.

    It makes TensorFlow read the weights for the backward pass before an optimizer changes them.
    """
    firsts = ops.stack([ops.reshape(x, (-1,))[0] for x in weights])
    return ops.minimum(ops.sum(ops.abs(firsts)), 0.0)


def replacements(model: keras.Model, limit: int) -> dict[str, Any]:
    """Return {name: SparseGradientRpn} for the RPN of a training model, empty if it has two convolutions.

    Args:
        model: A functional model of `training_graph`.
        limit: Usual number of locations with a gradient, per level and image.
    """
    return {
        layer.name: SparseGradientRpn(layer, limit)
        for layer in model.layers
        if isinstance(layer, keras.Model)
        and layer.name == "rpn_model"
        and all(inner.name != SECOND_CONVOLUTION for inner in layer.layers)
    }

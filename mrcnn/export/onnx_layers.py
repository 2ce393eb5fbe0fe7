"""Keras layers as ONNX operators.

Feature maps are channels first in the graph: [B, h, w, C] of Keras becomes [B, C, h, w]. The features of
RoIs lose their leading axes: [B, N, h, w, C] becomes [R, C, h, w], and [B, N, C] becomes [R, C], with R RoIs
of all images. All other tensors keep their axes. Batch norms with stored statistics are folded into the layer
before them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import to_numpy
from mrcnn.backend.keras_internals import Call
from mrcnn.backend.layer_graph import calls_between
from mrcnn.export.onnx_graph import GraphBuilder, Name
from mrcnn.network.normalization import GroupNorm
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.network.roi_convolution import Conv2DTranspose as RoiConv2DTranspose
from mrcnn.network.rpn import ObjectnessLogit
from mrcnn.typing import Tensor

layers = keras.layers
# Layers whose outputs are kernel * inputs + bias, with the output channels on the last axis of the kernel.
LINEAR_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, RoiConv2D)

# Below all values of a feature map.
LOWEST = -3e38

# The first part of the names of operators that compute the layers: "network/fpn_p2/Conv_12".
SCOPE = "network"

# Kernel and bias of a layer as arrays; the bias has a value for each output channel.
Weights = tuple[np.ndarray, np.ndarray]


class LayerWriter:
    """Adds the layers between symbolic tensors of a Keras model to a graph.

    Args:
        builder: The graph.
    """

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self._weights: dict[tuple[int, int], Weights] = {}

    def write(
        self, outputs: Sequence[Tensor], known: Mapping[int, Name], of_rois: bool = False
    ) -> list[Name]:
        """Add what computes some tensors from others.

        Args:
            outputs: Symbolic tensors.
            known: The names of tensors that are in the graph already, by the id of the symbolic tensor.
            of_rois: Whether the tensors are features of RoIs.

        Returns:
            The names of `outputs`.

        Raises:
            ValueError: If there is a layer that cannot be exported. The error names it.
        """
        values = dict(known)
        ordered = calls_between(outputs, known)
        for call in ordered:
            if call.is_input:
                raise ValueError(
                    "The exported part of the network must depend only on the image, but it reads "
                    f"{call.operation.name!r}."
                )
        uses = Counter(id(tensor) for call in ordered for tensor in call.input_tensors)
        uses.update(id(tensor) for tensor in outputs)
        folded = _foldable(ordered, uses)
        for call in ordered:
            with self.builder.scope(f"{SCOPE}/{call.operation.name}"):
                names = self._write_call(call, values, folded, of_rois)
            values.update((id(tensor), name) for tensor, name in zip(call.outputs, names, strict=True))
        return [values[id(tensor)] for tensor in outputs]

    def _write_call(
        self, call: Call, values: Mapping[int, Name], folded: Mapping[int, Any], of_rois: bool
    ) -> list[Name]:
        layer = call.operation
        inputs = [values[id(tensor)] for tensor in call.input_tensors]
        if isinstance(layer, keras.Model):
            inner = keras.tree.flatten(layer.inputs)
            known = {id(tensor): name for tensor, name in zip(inner, inputs, strict=True)}
            return self.write(keras.tree.flatten(layer.outputs), known, of_rois)
        if id(call) in folded and not isinstance(layer, LINEAR_LAYERS):
            return inputs  # a batch norm that the layer before carries
        if isinstance(layer, LINEAR_LAYERS):
            return [self._linear(layer, inputs[0], self._layer_weights(layer, folded.get(id(call))), call)]
        for kind, write in HANDLERS.items():
            if isinstance(layer, kind):
                return [write(self.builder, layer, inputs, call, of_rois)]
        write_operation = OPERATIONS.get(type(layer).__name__)
        if write_operation is not None and not isinstance(layer, keras.Layer):
            return [write_operation(self.builder, call, inputs)]
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be written to ONNX. Build the "
            "backbone from convolutions, poolings, normalizations, activations, sums, products and "
            'concatenations, or export with format="saved_model".'
        )

    def _layer_weights(self, layer: Any, norm: Any) -> Weights:
        key = (id(layer), id(norm))
        if key not in self._weights:
            self._weights[key] = folded_weights(layer, norm)
        return self._weights[key]

    def _linear(self, layer: Any, x: Name, weights: Weights, call: Call) -> Name:
        kernel, bias = weights
        if isinstance(layer, layers.Dense) or (isinstance(layer, RoiConv2D) and layer.padding == "valid"):
            outputs = self._dense(layer, x, kernel, bias)
        else:
            outputs = self._convolution(layer, x, kernel, bias)
        return activate(self.builder, outputs, layer.activation, layer.name)

    def _dense(self, layer: Any, x: Name, kernel: np.ndarray, bias: np.ndarray) -> Name:
        """Return a matrix product, also of a kernel (h, w, C, filters) that covers features [R, C, h, w]."""
        builder = self.builder
        if kernel.ndim == 4:
            kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
            flat = builder.op("Gemm", builder.op("Flatten", x, axis=1), kernel, bias)
            return builder.op("Unsqueeze", flat, [2, 3])
        return builder.op("Add", builder.op("MatMul", x, kernel), bias)

    def _convolution(self, layer: Any, x: Name, kernel: np.ndarray, bias: np.ndarray) -> Name:
        groups = int(getattr(layer, "groups", 1))
        if isinstance(layer, layers.DepthwiseConv2D):
            rows, columns, groups, multiplier = kernel.shape
            kernel = kernel.reshape(rows, columns, 1, groups * multiplier)
        dilations, strides = (_pair(getattr(layer, name, 1)) for name in ("dilation_rate", "strides"))
        x, options = pad_window(self.builder, x, layer, kernel.shape[:2], strides, dilations)
        options |= {"group": groups, "dilations": dilations}
        return self.builder.op("Conv", x, kernel.transpose(3, 2, 0, 1), bias, **options)


def folded_weights(layer: Any, norm: Any = None) -> Weights:
    """Return kernel and bias, float32, of one layer that computes what a layer and its batch norm do."""
    kernel, *bias = (to_numpy(weight).astype(np.float32) for weight in layer.weights)
    filters = kernel.shape[-1] * (kernel.shape[-2] if isinstance(layer, layers.DepthwiseConv2D) else 1)
    shift = bias[0] if bias else np.zeros(filters, np.float32)
    if norm is None:
        return kernel, shift
    factor, offset = norm_factors(norm)
    shift = shift * factor + offset
    if isinstance(layer, layers.DepthwiseConv2D):  # its kernel ends in (channels, multiplier)
        factor = factor.reshape(kernel.shape[-2:])
    return (kernel * factor).astype(np.float32), shift.astype(np.float32)


def norm_factors(norm: Any) -> Weights:
    """Return factor and shift of each channel, float64, that a batch norm with stored statistics applies."""
    mean, variance = (to_numpy(x).astype(np.float64) for x in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * to_numpy(norm.gamma)
    shift = -mean * factor
    if norm.center:
        shift = shift + to_numpy(norm.beta)
    return factor, shift


def pad_window(
    builder: GraphBuilder,
    x: Name,
    layer: Any,
    size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    fill: float = 0.0,
) -> tuple[Name, dict[str, Any]]:
    """Return the input and the attributes of a convolution or pooling that moves a window over a map.

    Args:
        builder: The graph.
        x: [B, C, h, w].
        layer: The layer, for its padding.
        size, strides, dilations: Of the window, along rows and columns.
        fill: The value of padding that is added to the input.
    """
    options: dict[str, Any] = {"kernel_shape": list(size), "strides": list(strides)}
    padding = layer.padding
    if not isinstance(padding, str):
        (top, bottom), (left, right) = padding
        return x, options | {"pads": [top, left, bottom, right]}
    if padding == "valid" or list(size) == [1, 1]:
        return x, options
    if getattr(layer, "symmetric", False):
        return x, options | {"pads": [side // 2 for side in size] * 2}
    spans = [(cells - 1) * step for cells, step in zip(size, dilations, strict=True)]
    if list(strides) == [1, 1]:
        return x, options | {"pads": [*(span // 2 for span in spans), *(span - span // 2 for span in spans)]}
    if list(dilations) != [1, 1]:
        raise ValueError(
            f'The layer {layer.name!r} combines strides, dilation and "same" padding, which cannot be '
            'written to ONNX. Use "valid" padding after a ZeroPadding2D layer.'
        )
    if all(cells > stride for cells, stride in zip(size, strides, strict=True)):
        return x, options | {"auto_pad": "SAME_UPPER"}
    # Runtimes disagree about SAME_UPPER if the window may end before the map does.
    return _pad_same(builder, x, size, strides, fill), options


def _pad_same(
    builder: GraphBuilder, x: Name, size: Sequence[int], strides: Sequence[int], fill: float
) -> Name:
    """Pad [B, C, h, w] so that a window starts at every stride-th cell."""
    before, after = [], []
    for axis, cells, stride in zip((2, 3), size, strides, strict=True):
        length = builder.size(x, axis)
        last = builder.op("Mul", builder.op("Div", builder.op("Sub", length, [1]), [stride]), [stride])
        missing = builder.op("Sub", builder.op("Add", last, [cells]), length)
        missing = builder.op("Max", missing, [0])
        before.append(builder.op("Div", missing, [2]))
        after.append(builder.op("Sub", missing, before[-1]))
    zeros = np.zeros(2, np.int64)
    return builder.op("Pad", x, builder.op("Concat", zeros, *before, zeros, *after, axis=0), fill)


def activate(builder: GraphBuilder, x: Name, activation: Callable[..., Any], name: str) -> Name:
    """Add an activation function of Keras."""
    kind = getattr(activation, "__name__", str(activation))
    if kind == "linear":
        return x
    if kind in ("relu", "sigmoid", "tanh"):
        return builder.op(kind.capitalize(), x)
    if kind == "relu6":
        return builder.op("Clip", x, 0.0, 6.0)
    if kind in ("silu", "swish"):
        return builder.op("Mul", x, builder.op("Sigmoid", x))
    raise ValueError(
        f"The activation {kind!r} of the layer {name!r} cannot be written to ONNX. Use relu, relu6, silu, "
        "sigmoid or tanh."
    )


# --- Layers without a kernel ---


def _batch_norm(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    if uses_batch(layer):
        raise ValueError(
            f"The layer {layer.name!r} uses the statistics of the batch (TRAIN_BN = True), which an "
            "exported file cannot do. Set TRAIN_BN to None or False."
        )
    rank = len(call.input_tensors[0].shape)
    shape = (-1,) if not _is_map(rank, of_rois) else (-1, 1, 1)
    factor, shift = (value.reshape(shape) for value in norm_factors(layer))
    return builder.op("Add", builder.op("Mul", inputs[0], factor), shift)


def _group_norm(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    (x,) = inputs
    ones, zeros = np.ones(layer.groups, np.float32), np.zeros(layer.groups, np.float32)
    grouped = builder.op("Reshape", x, [0, layer.groups, -1])
    normed = builder.op("InstanceNormalization", grouped, ones, zeros, epsilon=float(layer.epsilon))
    normed = builder.op("Reshape", normed, builder.op("Shape", x))
    gamma, beta = (to_numpy(weight).reshape(-1, 1, 1) for weight in (layer.gamma, layer.beta))
    return builder.op("Add", builder.op("Mul", normed, gamma), beta)


def _relu(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    if layer.negative_slope or layer.threshold:
        raise ValueError(
            f"The layer {layer.name!r} is a ReLU with a slope or a threshold, which cannot be written to "
            "ONNX. Use a plain ReLU."
        )
    if layer.max_value is None:
        return builder.op("Relu", inputs[0])
    return builder.op("Clip", inputs[0], 0.0, float(layer.max_value))


def _activation(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    return activate(builder, inputs[0], layer.activation, layer.name)


def _softmax(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    return builder.op("Softmax", inputs[0], axis=-1)


def _pooling(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    is_max = isinstance(layer, layers.MaxPooling2D)
    size, strides = _pair(layer.pool_size), _pair(layer.strides)
    x, options = pad_window(builder, inputs[0], layer, size, strides, [1, 1], LOWEST if is_max else 0.0)
    return builder.op("MaxPool" if is_max else "AveragePool", x, **options)


def _zero_padding(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    (top, bottom), (left, right) = layer.padding
    return builder.op("Pad", inputs[0], [0, 0, top, left, 0, 0, bottom, right], 0.0)


def _upsampling(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    if layer.interpolation != "nearest":
        raise ValueError(f'The layer {layer.name!r} must use interpolation="nearest" to be written to ONNX.')
    scales = np.array([1, 1, *_pair(layer.size)], np.float32)
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
    return builder.op("Resize", inputs[0], None, scales, **modes)


def _reshape(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    """Write a layer Reshape, which sees the axes in the order of Keras."""
    (x,) = inputs
    if _is_map(len(call.input_tensors[0].shape), of_rois):
        x = builder.op("Transpose", x, perm=[0, 2, 3, 1])
    target = [int(side) for side in layer.target_shape]
    return builder.op("Reshape", x, [-1, *target[1:]] if of_rois else [0, *target])


def _concatenate(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    rank = len(call.input_tensors[0].shape)
    axis = layer.axis % rank
    if _is_map(rank, of_rois):
        axis = {rank - 3: 2, rank - 2: 3, rank - 1: 1}[axis]
    return builder.op("Concat", *inputs, axis=axis)


def _add(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    return builder.total(*inputs)


def _multiply(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    result = inputs[0]
    for other in inputs[1:]:
        result = builder.op("Mul", result, other)
    return result


def _transposed(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    kernel, bias = (to_numpy(weight).astype(np.float32) for weight in layer.weights)
    outputs = builder.op(
        "ConvTranspose", inputs[0], kernel.transpose(3, 2, 0, 1), bias, kernel_shape=[2, 2], strides=[2, 2]
    )
    return activate(builder, outputs, layer.activation, layer.name)


def _objectness(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    return builder.op("Mul", inputs[0], np.array([0, 1], np.float32))


def _same(builder: GraphBuilder, layer: Any, inputs: list[Name], call: Call, of_rois: bool) -> Name:
    return inputs[0]


HANDLERS: dict[Any, Callable[..., Name]] = {
    layers.BatchNormalization: _batch_norm,
    GroupNorm: _group_norm,
    layers.ReLU: _relu,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    (layers.MaxPooling2D, layers.AveragePooling2D): _pooling,
    layers.ZeroPadding2D: _zero_padding,
    layers.UpSampling2D: _upsampling,
    layers.Reshape: _reshape,
    layers.Concatenate: _concatenate,
    layers.Add: _add,
    layers.Multiply: _multiply,
    RoiConv2DTranspose: _transposed,
    ObjectnessLogit: _objectness,
    (layers.Identity, layers.Dropout): _same,
}


# --- Operations of keras.ops, such as image * number ---


def _binary(kind: str) -> Callable[..., Name]:
    def write(builder: GraphBuilder, call: Call, inputs: list[Name]) -> Name:
        waiting = list(inputs)
        operands = [
            waiting.pop(0) if isinstance(value, keras.KerasTensor) else np.float32(value)
            for value in call.arguments.args
        ]
        if len(operands) != 2 or waiting:
            raise ValueError(
                f"The operation {call.operation.name!r} cannot be written to ONNX. Use a Keras layer instead."
            )
        return builder.op(kind, *operands)

    return write


OPERATIONS: dict[str, Callable[..., Name]] = {
    "Add": _binary("Add"),
    "Multiply": _binary("Mul"),
    "Subtract": _binary("Sub"),
    "TrueDivide": _binary("Div"),
    "Divide": _binary("Div"),
}


def _foldable(ordered: Sequence[Call], uses: Counter[int]) -> dict[int, Any]:
    """Return, for each linear layer that only a batch norm reads, that norm by the ids of both calls."""
    producers = {id(tensor): call for call in ordered for tensor in call.outputs}
    folded: dict[int, Any] = {}
    for call in ordered:
        norm = call.operation
        if not isinstance(norm, layers.BatchNormalization) or uses_batch(norm):
            continue
        source = producers.get(id(call.input_tensors[0]))
        if source is None or uses[id(call.input_tensors[0])] != 1:
            continue
        linear = isinstance(source.operation, LINEAR_LAYERS)
        if linear and source.operation.activation is keras.activations.linear:
            folded[id(source)] = folded[id(call)] = norm
    return folded


def uses_batch(norm: Any) -> bool:
    """Return whether a batch norm takes its statistics from the batch, in detection, too."""
    return getattr(norm, "train_bn", None) is True


def _is_map(rank: int, of_rois: bool) -> bool:
    """Return whether a tensor of Keras holds feature maps."""
    return rank == (5 if of_rois else 4)


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(side) for side in value]

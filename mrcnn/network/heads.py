"""Box head and mask head, applied to every RoI with shared weights (Mask R-CNN, section 3, figure 4).

Layers take [B, N, height, width, channels]: B images, N RoIs. Weights have the shapes of ordinary
convolutions, so that weight files fit; the arithmetic is the fastest of equals: matrix products wherever a
convolution is one (a window that covers its whole input, a 1x1 kernel, a 2x2 kernel with stride 2).
"""

from typing import Any

import keras
from keras import layers, ops

from mrcnn.backend import torch_ops
from mrcnn.network.convolution import affine, convolve
from mrcnn.network.normalization import normalization
from mrcnn.network.roi_align import PyramidROIAlign

Tensor = Any


class RoiConv2D(layers.Layer):
    """Convolution of each RoI's features, stride 1, with a bias.

    filters: output channels; kernel_size: side in cells; padding: "same", or "valid" when the kernel covers
    the whole input; activation: a Keras activation name or None.
    Call with [B, N, h, w, C]. Returns [B, N, h, w, filters], with "valid" [B, N, 1, 1, filters].
    Weights: kernel (side, side, C, filters), bias (filters).
    """

    def __init__(self, filters, kernel_size, padding="same", activation=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.padding = padding
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        if self.padding == "valid" and tuple(input_shape[2:4]) != (self.kernel_size,) * 2:
            raise ValueError(
                f"{self.name}: a valid RoI convolution needs features of the kernel's size "
                f"{self.kernel_size}x{self.kernel_size}. Received: input_shape={input_shape}"
            )
        side, channels = self.kernel_size, input_shape[-1]
        self.kernel = self.add_weight(
            shape=(side, side, channels, self.filters), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs, training=None):
        shape = ops.shape(inputs)
        if self.padding == "valid":
            flat = ops.reshape(inputs, (*shape[:2], 1, 1, -1))
            kernel = ops.reshape(self.kernel, (-1, self.filters))
            return self.activation(affine(flat, kernel, self.bias))
        if self.kernel_size == 1:
            return self.activation(affine(inputs, self.kernel[0, 0], self.bias))
        folded = ops.reshape(inputs, (-1, *shape[2:]))
        outputs = self.activation(convolve(folded, self.kernel, self.bias, training))
        return ops.reshape(outputs, (*shape[:4], self.filters))

    def lay_out(self) -> None:
        """See `convolution.lay_out`. Kernels of matrix products are read as they are."""
        if self.padding == "same" and self.kernel_size > 1:
            torch_ops.lay_out(self.kernel)

    def own_channel(self, inputs: Tensor, channels: Tensor) -> Tensor:
        """The result of a 1x1 layer for one output channel of each RoI.

        inputs: [B, N, h, w, C]; channels: int [B, N]. Returns [B, N, h, w]; the same numbers as picking
        those channels from the whole result, for a fraction of the arithmetic.
        """
        kernel = ops.take(ops.transpose(self.kernel[0, 0]), channels, axis=0)  # [B, N, C]
        bias = ops.take(self.bias, channels, axis=0)
        outputs = ops.einsum("bnhwc,bnc->bnhw", inputs, ops.cast(kernel, inputs.dtype))
        return self.activation(outputs + ops.cast(bias, inputs.dtype)[:, :, None, None])

    def compute_output_shape(self, input_shape):
        cells = (1, 1) if self.padding == "valid" else tuple(input_shape[2:4])
        return (*input_shape[:2], *cells, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
        }


class RoiConv2DTranspose(layers.Layer):
    """Transposed 2x2 convolution with stride 2 of each RoI's features: doubles height and width.

    filters: output channels; activation: a Keras activation name or None.
    Call with [B, N, h, w, C]. Returns [B, N, 2h, 2w, filters].
    Weights: kernel (2, 2, filters, C), bias (filters).
    """

    def __init__(self, filters, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(2, 2, self.filters, input_shape[-1]), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs):
        batch, rois, height, width, channels = ops.shape(inputs)
        # With stride 2 no two windows overlap: each cell becomes a 2x2 block of its own.
        kernel = ops.reshape(ops.transpose(self.kernel, (3, 0, 1, 2)), (channels, -1))
        outputs = affine(inputs, kernel, ops.tile(self.bias, 4))
        outputs = ops.reshape(outputs, (-1, height, width, 2, 2, self.filters))
        outputs = ops.transpose(outputs, (0, 1, 3, 2, 4, 5))
        outputs = ops.reshape(outputs, (batch, rois, 2 * height, 2 * width, self.filters))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape):
        batch, rois, height, width, _ = input_shape
        return (batch, rois, 2 * height, 2 * width, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "activation": keras.activations.serialize(self.activation),
        }


def box_head(
    rois: Tensor,
    feature_maps: list[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    fc_layers_size: int = 1024,
    norm: str = "batch",
) -> tuple[Tensor, Tensor, Tensor]:
    """Class and box of each RoI.

    rois: [B, N, 4] normalised; feature_maps: P2 to P5, [B, h, w, C] each; image_meta: [B, 12 + classes];
    train_bn, norm: see `normalization`.
    Returns class logits [B, N, classes], probabilities of the same shape, and deltas [B, N, classes, 4],
    the last two float32.
    """
    x = PyramidROIAlign((pool_size, pool_size), name="roi_align_classifier")(
        [rois, image_meta, *feature_maps]
    )
    layer = normalization(norm, train_bn)
    x = RoiConv2D(fc_layers_size, pool_size, padding="valid", name="mrcnn_class_conv1")(x)
    x = layers.ReLU()(layer("mrcnn_class_bn1")(x))
    x = RoiConv2D(fc_layers_size, 1, name="mrcnn_class_conv2")(x)
    x = layers.ReLU()(layer("mrcnn_class_bn2")(x))
    x = layers.Reshape((-1, fc_layers_size), name="pool_squeeze")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="mrcnn_class_logits")(x)
    probs = layers.Softmax(dtype="float32", name="mrcnn_class")(logits)
    deltas = layers.Dense(4 * num_classes, dtype="float32", name="mrcnn_bbox_fc")(x)
    deltas = layers.Reshape((-1, num_classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return logits, probs, deltas


def mask_head_features(
    rois: Tensor,
    feature_maps: list[Tensor],
    image_meta: Tensor,
    pool_size: int,
    train_bn: bool | None = True,
    channels: int = 256,
    norm: str = "batch",
) -> Tensor:
    """The mask head up to its last layer: [B, N, 2 * pool_size, 2 * pool_size, channels]."""
    layer = normalization(norm, train_bn)
    x = PyramidROIAlign((pool_size, pool_size), name="roi_align_mask")([rois, image_meta, *feature_maps])
    for number in range(1, 5):
        x = RoiConv2D(channels, 3, name=f"mrcnn_mask_conv{number}")(x)
        x = layers.ReLU()(layer(f"mrcnn_mask_bn{number}")(x))
    return RoiConv2DTranspose(channels, activation="relu", name="mrcnn_mask_deconv")(x)


def mask_head(
    rois: Tensor,
    feature_maps: list[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    channels: int = 256,
    norm: str = "batch",
) -> Tensor:
    """Mask probabilities of each RoI for every class.

    rois: [B, N, 4] normalised; feature_maps: P2 to P5; image_meta: [B, 12 + classes].
    Returns [B, N, 2 * pool_size, 2 * pool_size, classes] float32.
    """
    x = mask_head_features(rois, feature_maps, image_meta, pool_size, train_bn, channels, norm)
    return RoiConv2D(num_classes, 1, activation="sigmoid", dtype="float32", name="mrcnn_mask")(x)

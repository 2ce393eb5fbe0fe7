"""Box head and mask head, which every RoI shares (Mask R-CNN, section 3 and figure 4).

Axes: B images, N RoIs, h and w cells, C channels. Features of RoIs are [B, N, h, w, C].
"""

from keras import layers

from mrcnn.network.initializers import GlorotUniform
from mrcnn.network.normalization import Norm, normalization
from mrcnn.network.roi_align import CROP_AND_RESIZE, PyramidROIAlign
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D
from mrcnn.network.roi_convolution import Conv2DTranspose as RoiConv2DTranspose
from mrcnn.typing import Tensor

# Where the heads have normalization layers; see `box_head`.
ALL, CONVOLUTIONS, NONE = "all", "convolutions", "none"


def box_head(
    rois: Tensor,
    feature_maps: list[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    fc_layers_size: int = 1024,
    norm: str | Norm = "batch",
    convolutions: int = 0,
    norm_after: str = ALL,
    roi_align: str = CROP_AND_RESIZE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Build the box head, which predicts the class and the box of each RoI.

    Args:
        rois: [B, N, 4] normalized.
        feature_maps: P2 to P5, each [B, h, w, C].
        image_meta: [B, 12 + classes].
        pool_size: Bins per side that ROIAlign pools from the pyramid.
        num_classes: Number of classes including the background.
        train_bn, norm: See `mrcnn.network.normalization`.
        fc_layers_size: Units of the fully connected hidden layers: one layer after convolutions, otherwise
            two.
        convolutions: Number of 3x3 convolutions before the fully connected layers.
        norm_after: Layers that a normalization follows: ALL, CONVOLUTIONS (only 3x3 ones, which then have no
            bias), or NONE.
        roi_align: See `mrcnn.network.roi_align`.

    Returns:
        Class logits [B, N, classes], scores of the same shape and deltas [B, N, classes, 4], all float32.
    """
    x = PyramidROIAlign((pool_size, pool_size), method=roi_align, name="roi_align_classifier")(
        [rois, image_meta, *feature_maps]
    )
    norm_layer = normalization(norm, train_bn)
    conv_norm = None if norm_after == NONE else norm_layer
    for number in range(1, convolutions + 1):
        names = f"mrcnn_box_conv{number}", f"mrcnn_box_bn{number}"
        x = _conv_norm_relu(
            x, feature_maps[0].shape[-1], 3, names, conv_norm, use_bias=norm_after != CONVOLUTIONS
        )
    fc_norm = norm_layer if norm_after == ALL else None
    names = "mrcnn_class_conv1", "mrcnn_class_bn1"
    x = _conv_norm_relu(x, fc_layers_size, pool_size, names, fc_norm, padding="valid")
    if not convolutions:
        names = "mrcnn_class_conv2", "mrcnn_class_bn2"
        x = _conv_norm_relu(x, fc_layers_size, 1, names, fc_norm)
    x = layers.Reshape((-1, fc_layers_size), name="pool_squeeze")(x)
    logits = _dense(num_classes, "mrcnn_class_logits")(x)
    scores = layers.Softmax(dtype="float32", name="mrcnn_class")(logits)
    deltas = _dense(4 * num_classes, "mrcnn_bbox_fc")(x)
    deltas = layers.Reshape((-1, num_classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return logits, scores, deltas


def _dense(units: int, name: str) -> layers.Layer:
    """Return a fully connected layer that computes in float32, for class logits or box deltas."""
    return layers.Dense(units, kernel_initializer=GlorotUniform(), dtype="float32", name=name)


def mask_head(
    rois: Tensor,
    feature_maps: list[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    channels: int = 256,
    norm: str | Norm = "batch",
    norm_after: str = ALL,
    roi_align: str = CROP_AND_RESIZE,
) -> Tensor:
    """Build the mask head, which predicts the mask of each RoI for every class.

    Args:
        rois: [B, N, 4] normalized.
        feature_maps: P2 to P5, each [B, h, w, C].
        image_meta: [B, 12 + classes].
        pool_size: Bins per side that ROIAlign pools from the pyramid.
        num_classes: Number of classes including the background.
        train_bn, norm: See `mrcnn.network.normalization`.
        channels: Channels of the convolutions.
        norm_after, roi_align: See `box_head`.

    Returns:
        Probabilities [B, N, 2 * pool_size, 2 * pool_size, classes], float32.
    """
    conv_norm = None if norm_after == NONE else normalization(norm, train_bn)
    x = PyramidROIAlign((pool_size, pool_size), method=roi_align, name="roi_align_mask")(
        [rois, image_meta, *feature_maps]
    )
    for number in range(1, 5):
        names = f"mrcnn_mask_conv{number}", f"mrcnn_mask_bn{number}"
        x = _conv_norm_relu(x, channels, 3, names, conv_norm, use_bias=norm_after != CONVOLUTIONS)
    x = RoiConv2DTranspose(channels, activation="relu", name="mrcnn_mask_deconv")(x)
    return RoiConv2D(num_classes, 1, activation="sigmoid", dtype="float32", name="mrcnn_mask")(x)


def _conv_norm_relu(
    x: Tensor,
    filters: int,
    kernel_size: int,
    names: tuple[str, str],
    norm: Norm | None,
    padding: str = "same",
    use_bias: bool = True,
) -> Tensor:
    """Add a convolution, a normalization unless `norm` is None, and a ReLU."""
    x = RoiConv2D(filters, kernel_size, padding=padding, use_bias=use_bias, name=names[0])(x)
    return layers.ReLU()(x if norm is None else norm(names[1])(x))

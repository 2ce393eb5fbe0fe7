"""Box head and mask head, applied to every RoI with shared weights (Mask R-CNN, section 3, figure 4).

Axes: B images, N RoIs, h and w cells, C channels. Features of RoIs are [B, N, h, w, C].
"""

from keras import layers

from mrcnn.network.normalization import normalization
from mrcnn.network.roi_align import PyramidROIAlign
from mrcnn.network.roi_convolution import RoiConv2D, RoiConv2DTranspose
from mrcnn.typing import Tensor


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

    Args:
        rois: [B, N, 4] normalized.
        feature_maps: P2 to P5, each [B, h, w, C].
        image_meta: [B, 12 + classes].
        pool_size: Side of the features that ROIAlign takes from the pyramid, in bins.
        num_classes: Classes including the background.
        train_bn, norm: See `mrcnn.network.normalization`.
        fc_layers_size: Width of the two fully connected layers.

    Returns:
        Class logits [B, N, classes], scores of the same shape and deltas [B, N, classes, 4], all float32.
    """
    x = PyramidROIAlign((pool_size, pool_size), name="roi_align_classifier")(
        [rois, image_meta, *feature_maps]
    )
    norm_layer = normalization(norm, train_bn)
    x = RoiConv2D(fc_layers_size, pool_size, padding="valid", name="mrcnn_class_conv1")(x)
    x = layers.ReLU()(norm_layer("mrcnn_class_bn1")(x))
    x = RoiConv2D(fc_layers_size, 1, name="mrcnn_class_conv2")(x)
    x = layers.ReLU()(norm_layer("mrcnn_class_bn2")(x))
    x = layers.Reshape((-1, fc_layers_size), name="pool_squeeze")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="mrcnn_class_logits")(x)
    scores = layers.Softmax(dtype="float32", name="mrcnn_class")(logits)
    deltas = layers.Dense(4 * num_classes, dtype="float32", name="mrcnn_bbox_fc")(x)
    deltas = layers.Reshape((-1, num_classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return logits, scores, deltas


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
    """Mask of each RoI for every class.

    Args:
        rois: [B, N, 4] normalized.
        feature_maps: P2 to P5, each [B, h, w, C].
        image_meta: [B, 12 + classes].
        pool_size: Side of the features that ROIAlign takes from the pyramid, in bins.
        num_classes: Classes including the background.
        train_bn, norm: See `mrcnn.network.normalization`.
        channels: Width of the convolutions.

    Returns:
        Probabilities [B, N, 2 * pool_size, 2 * pool_size, classes], float32.
    """
    norm_layer = normalization(norm, train_bn)
    x = PyramidROIAlign((pool_size, pool_size), name="roi_align_mask")([rois, image_meta, *feature_maps])
    for number in range(1, 5):
        x = RoiConv2D(channels, 3, name=f"mrcnn_mask_conv{number}")(x)
        x = layers.ReLU()(norm_layer(f"mrcnn_mask_bn{number}")(x))
    x = RoiConv2DTranspose(channels, activation="relu", name="mrcnn_mask_deconv")(x)
    return RoiConv2D(num_classes, 1, activation="sigmoid", dtype="float32", name="mrcnn_mask")(x)

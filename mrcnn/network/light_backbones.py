"""Backbones for machines without a GPU: MobileNetV2 and EfficientNet-Lite0.

Both consist of inverted residual blocks (Sandler et al. 2018) with ReLU6. EfficientNet-Lite0 is
EfficientNet-B0 (Tan and Le, 2019) without squeeze-and-excitation and with ReLU6 instead of swish. These two
changes let it keep its accuracy with 8-bit weights and activations.

Axes: B images, H and W pixels, h and w cells, c channels.
"""

from typing import NamedTuple

from keras import layers

from mrcnn.network.conv_norm import conv_norm
from mrcnn.network.convolution import DepthwiseConv2D
from mrcnn.network.normalization import Norm, normalization
from mrcnn.typing import Tensor

# MobileNetV2, table 2: expansion, channels, number of blocks, stride of the first block.
MOBILENET_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# EfficientNet, table 1: kernel size, expansion, channels, number of blocks, stride of the first block.
EFFICIENTNET_GROUPS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
EFFICIENTNET_LITE_SCALE = 1 / 128


class BlockNames(NamedTuple):
    """Names of the convolutions of a block, each with its normalization, and of the sum."""

    expand: tuple[str, str]
    depthwise: tuple[str, str]
    project: tuple[str, str]
    add: str


def mobilenet_v2(
    input_image: Tensor, stage5: bool = True, train_bn: bool | None = None, norm: str | Norm = "batch"
) -> list[Tensor]:
    """Build MobileNetV2 (table 2) without its classifier.

    Layers are named as in `keras.applications`. Its ImageNet weights expect pixels from -1 to 1, which are
    here those of `MEAN_PIXEL = (127.5, 127.5, 127.5)`.

    Args:
        input_image: [B, H, W, channels], mean subtracted.
        stage5: Whether to return C5.
        train_bn, norm: See `mrcnn.network.normalization`.

    Returns:
        C1 to C5 with 16, 24, 32, 96 and 320 channels and strides 2, 4, 8, 16 and 32. C5 is None without
        `stage5`.
    """
    norm_layer = normalization(norm, train_bn)
    x = input_image * (1 / 127.5)  # layers.Rescaling would need TensorFlow on every backend
    x = conv_norm(x, 32, 3, ("Conv1", "bn_Conv1"), use_bias=False, norm=norm_layer, strides=2)
    x = layers.ReLU(6.0, name="Conv1_relu")(x)
    stages = []
    block = 0
    for expansion, channels, repeats, first_stride in MOBILENET_GROUPS:
        if first_stride == 2:
            stages.append(x)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            names = _mobilenet_names(f"block_{block}_" if block else "expanded_conv_")
            x = _inverted_residual(x, names, expansion, channels, 3, stride, norm_layer)
            block += 1
    stages.append(x)
    return stages if stage5 else [*stages[:-1], None]


def _mobilenet_names(block: str) -> BlockNames:
    expand, depthwise, project = (f"{block}{step}" for step in ("expand", "depthwise", "project"))
    return BlockNames(
        (expand, f"{expand}_BN"),
        (depthwise, f"{depthwise}_BN"),
        (project, f"{project}_BN"),
        f"{block}add",
    )


def efficientnet_lite0(
    input_image: Tensor, stage5: bool = True, train_bn: bool | None = None, norm: str | Norm = "batch"
) -> list[Tensor]:
    """Build EfficientNet-Lite0 without its classifier.

    Layers are named as those of EfficientNet-B0 in `keras.applications`. The published ImageNet weights
    expect images with a mean of 127 subtracted from each channel: `MEAN_PIXEL = (127, 127, 127)`.

    Args:
        input_image: [B, H, W, channels], mean subtracted; H and W are multiples of 32.
        stage5: Whether to return C5.
        train_bn, norm: See `mrcnn.network.normalization`.

    Returns:
        C1 to C5 with 16, 24, 40, 112 and 320 channels and strides 2, 4, 8, 16 and 32. C5 is None without
        `stage5`.
    """
    norm_layer = normalization(norm, train_bn)
    x = input_image * EFFICIENTNET_LITE_SCALE
    x = conv_norm(x, 32, 3, ("stem_conv", "stem_bn"), use_bias=False, norm=norm_layer, strides=2)
    x = layers.ReLU(6.0, name="stem_activation")(x)
    stages = []
    for group, (kernel_size, expansion, channels, repeats, first_stride) in enumerate(EFFICIENTNET_GROUPS, 1):
        if first_stride == 2:
            stages.append(x)
        for repeat in range(repeats):
            names = _efficientnet_names(f"block{group}{chr(ord('a') + repeat)}_")
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(x, names, expansion, channels, kernel_size, stride, norm_layer)
    stages.append(x)
    return stages if stage5 else [*stages[:-1], None]


def _efficientnet_names(block: str) -> BlockNames:
    return BlockNames(
        (f"{block}expand_conv", f"{block}expand_bn"),
        (f"{block}dwconv", f"{block}bn"),
        (f"{block}project_conv", f"{block}project_bn"),
        f"{block}add",
    )


def _inverted_residual(
    x: Tensor, names: BlockNames, expansion: int, channels: int, kernel_size: int, stride: int, norm: Norm
) -> Tensor:
    """Add a block that expands, filters each channel separately, and projects (MobileNetV2, figure 4)."""
    inputs, width = x, x.shape[-1]
    if expansion > 1:
        x = conv_norm(x, expansion * width, 1, names.expand, use_bias=False, norm=norm)
        x = layers.ReLU(6.0, name=f"{names.expand[0]}_relu")(x)
    depthwise = DepthwiseConv2D(
        kernel_size, strides=stride, padding="same", use_bias=False, name=names.depthwise[0]
    )
    x = norm(names.depthwise[1])(depthwise(x))
    x = layers.ReLU(6.0, name=f"{names.depthwise[0]}_relu")(x)
    x = conv_norm(x, channels, 1, names.project, use_bias=False, norm=norm)
    if stride == 1 and width == channels:
        x = layers.Add(name=names.add)([inputs, x])
    return x

"""Backbones, which compute the feature maps C1 to C5 of an image.

The layers of ResNet-50 and ResNet-101 (He et al., 2015) have the names that the published weights use.
`light_backbones` has backbones for machines without a GPU.

Axes: B images, H and W pixels, h and w cells, c channels.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from keras import layers

from mrcnn.backend import keras_internals, layer_graph
from mrcnn.network.conv_norm import Strides, conv_norm
from mrcnn.network.convolution import Conv2D, MaxPooling2D
from mrcnn.network.light_backbones import efficientnet_lite0, mobilenet_v2
from mrcnn.network.normalization import Norm, normalization
from mrcnn.typing import Tensor

Backbone = Callable[..., list[Tensor]]

LIGHT_BACKBONES = {"mobilenetv2": mobilenet_v2, "efficientnetlite0": efficientnet_lite0}


@dataclass(frozen=True)
class ResNetSize:
    """Where the ResNets differ.

    Attributes:
        stage4_blocks: Number of blocks of stage 4. The other stages have 3, 4 and 3 blocks.
        groups: Groups of channels of the 3x3 convolutions (ResNeXt, figure 3c).
        width: Channels of the 3x3 convolutions of stage 2. Each further stage has twice as many.
    """

    stage4_blocks: int
    groups: int = 1
    width: int = 64


RESNETS = {
    "resnet50": ResNetSize(6),
    "resnet101": ResNetSize(23),
    "resnext101_32x8d": ResNetSize(23, groups=32, width=32 * 8),
}


@dataclass(frozen=True)
class ResNetStyle:
    """The details in which implementations of ResNet differ.

    Attributes:
        use_bias: Whether convolutions have biases even though a batch norm follows.
        symmetric: Whether strided convolutions and pooling pad all sides equally.
        stride_in_3x3: Whether the 3x3 convolution of a block has the stride (ResNet v1.5), rather than the
            first 1x1 convolution.
        groups: Groups of channels of the 3x3 convolution.
    """

    use_bias: bool = True
    symmetric: bool = False
    stride_in_3x3: bool = False
    groups: int = 1


RESNET_STYLES = {
    "keras": ResNetStyle(),
    "caffe": ResNetStyle(use_bias=False, symmetric=True),
    "pytorch": ResNetStyle(use_bias=False, symmetric=True, stride_in_3x3=True),
}


def identity_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: tuple[int, int, int],
    stage: int,
    block: str,
    use_bias: bool = True,
    train_bn: bool | None = True,
    norm: str | Norm = "batch",
    style: ResNetStyle | None = None,
) -> Tensor:
    """Add a bottleneck block with an identity shortcut (ResNet, figure 5). It keeps the shape of its input.

    Args:
        input_tensor: [B, h, w, c].
        kernel_size: Side of the second convolution's kernel; the others are 1x1.
        filters: Channels of the three convolutions.
        stage, block: Parts of the layer names, such as 2 and "a".
        use_bias: Whether convolutions have biases.
        train_bn, norm: See `mrcnn.network.normalization`.
        style: Overrides `use_bias`.
    """
    return _bottleneck(
        input_tensor,
        input_tensor,
        kernel_size,
        filters,
        f"{stage}{block}",
        strides=1,
        style=style or ResNetStyle(use_bias),
        norm=normalization(norm, train_bn),
    )


def conv_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: tuple[int, int, int],
    stage: int,
    block: str,
    strides: Strides = (2, 2),
    use_bias: bool = True,
    train_bn: bool | None = True,
    norm: str | Norm = "batch",
    style: ResNetStyle | None = None,
) -> Tensor:
    """Add a bottleneck block with a projection shortcut. By default the first 1x1 convolution has the stride.

    The arguments are those of `identity_block`. The output has filters[2] channels and is `strides` times
    smaller.
    """
    block_name, norm_layer = f"{stage}{block}", normalization(norm, train_bn)
    style = style or ResNetStyle(use_bias)
    shortcut = conv_norm(
        input_tensor,
        filters[2],
        1,
        (f"res{block_name}_branch1", f"bn{block_name}_branch1"),
        use_bias=style.use_bias,
        norm=norm_layer,
        strides=strides,
    )
    return _bottleneck(
        input_tensor,
        shortcut,
        kernel_size,
        filters,
        block_name,
        strides=strides,
        style=style,
        norm=norm_layer,
    )


def _bottleneck(
    x: Tensor,
    shortcut: Tensor,
    kernel_size: int,
    filters: tuple[int, int, int],
    block_name: str,
    *,
    strides: Strides,
    style: ResNetStyle,
    norm: Norm,
) -> Tensor:
    """Build the three convolutions of a block and the sum with its shortcut."""
    stride_1x1, stride_3x3 = (1, strides) if style.stride_in_3x3 else (strides, 1)
    convolutions = (("2a", 1, stride_1x1), ("2b", kernel_size, stride_3x3), ("2c", 1, 1))
    for width, (branch, side, stride) in zip(filters, convolutions, strict=True):
        names = (f"res{block_name}_branch{branch}", f"bn{block_name}_branch{branch}")
        x = conv_norm(
            x,
            width,
            side,
            names,
            use_bias=style.use_bias,
            norm=norm,
            strides=stride,
            symmetric=style.symmetric,
            groups=style.groups if branch == "2b" else 1,
        )
        if branch != "2c":
            x = layers.ReLU()(x)
    return layers.ReLU(name=f"res{block_name}_out")(layers.Add()([x, shortcut]))


def resnet_graph(
    input_image: Tensor,
    architecture: str,
    stage5: bool = False,
    train_bn: bool | None = True,
    norm: str | Norm = "batch",
    style: str = "keras",
) -> list[Tensor]:
    """Build ResNet-50, ResNet-101 or ResNeXt-101 (ResNet, table 1).

    Args:
        input_image: [B, H, W, channels]; H and W are multiples of 32.
        architecture: One of RESNETS.
        stage5: Whether to build C5.
        train_bn, norm: See `mrcnn.network.normalization`.
        style: One of RESNET_STYLES.

    Returns:
        C1 to C5 with 64, 256, 512, 1024 and 2048 channels and strides 4, 4, 8, 16 and 32. C5 is None without
        `stage5`.

    Raises:
        ValueError: If `architecture` is another name.
    """
    if architecture not in RESNETS:
        raise ValueError(
            f"`architecture` must be one of {sorted(RESNETS)}. Received: architecture={architecture!r}"
        )
    size = RESNETS[architecture]
    details = dataclasses.replace(RESNET_STYLES[style], groups=size.groups)
    x = layers.ZeroPadding2D(3)(input_image)
    x = Conv2D(64, 7, strides=2, use_bias=details.use_bias, name="conv1")(x)
    x = layers.ReLU()(normalization(norm, train_bn)("bn_conv1")(x))
    c1 = MaxPooling2D(3, strides=2, padding="same", symmetric=details.symmetric)(x)
    stage = functools.partial(_resnet_stage, norm=normalization(norm, train_bn), style=details)
    c2 = stage(c1, 2, 3, size.width, 1)
    c3 = stage(c2, 3, 4, 2 * size.width, 2)
    c4 = stage(c3, 4, size.stage4_blocks, 4 * size.width, 2)
    c5 = stage(c4, 5, 3, 8 * size.width, 2) if stage5 else None
    return [c1, c2, c3, c4, c5]


def _resnet_stage(
    x: Tensor, stage: int, block_count: int, width: int, stride: int, *, norm: Norm, style: ResNetStyle
) -> Tensor:
    filters = (width, width, 64 * 2**stage)
    x = conv_block(x, 3, filters, stage, "a", strides=stride, norm=norm, style=style)
    for number in range(1, block_count):
        block = chr(ord("a") + number)
        x = identity_block(x, 3, filters, stage, block, norm=norm, style=style)
    return x


def backbone_stages(
    input_image: Tensor,
    backbone: str | Backbone,
    train_bn: bool | None,
    norm: str | Norm = "batch",
    resnet_style: str = "keras",
) -> list[Tensor]:
    """Build a backbone and return C2 to C5.

    Args:
        input_image: [B, H, W, channels].
        backbone: One of RESNETS, one of LIGHT_BACKBONES, or a function f(input_image, stage5=True,
            train_bn=...) that returns C1 to C5. C1 is not used. Layers without a name get the same names
            in each network, as in a new process.
        train_bn, norm: See `mrcnn.network.normalization`. A function chooses its own normalization layers.
        resnet_style: One of RESNET_STYLES.

    Raises:
        ValueError: If the backbone is unknown, or the function does not return five maps.
    """
    if callable(backbone):
        # Weights are stored, read and copied by the names of layers.
        above = [call.operation.name for call in layer_graph.calls_between([input_image])]
        with keras_internals.numbers_of_a_new_process(above):
            stages = backbone(input_image, stage5=True, train_bn=train_bn)
    elif backbone in LIGHT_BACKBONES:
        stages = LIGHT_BACKBONES[backbone](input_image, stage5=True, train_bn=train_bn, norm=norm)
    else:
        stages = resnet_graph(
            input_image, backbone, stage5=True, train_bn=train_bn, norm=norm, style=resnet_style
        )
    if len(stages) != 5:
        raise ValueError(
            f"The function `BACKBONE` must return five feature maps, C1 to C5. Received: {len(stages)} maps"
        )
    return list(stages[1:])

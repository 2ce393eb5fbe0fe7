"""Backbones: an image to the feature maps C1 to C5, each half the size of the one before from C2 on.

ResNet-50 and ResNet-101 (He et al. 2015) with the layer names of the published weights, and MobileNetV2
(Sandler et al. 2018) for machines without a GPU.
"""

from collections.abc import Callable
from typing import Any

from keras import layers

from mrcnn.network.convolution import Conv2D, DepthwiseConv2D
from mrcnn.network.normalization import Norm, normalization
from mrcnn.network.pooling import MaxPooling2D

Tensor = Any
Backbone = Callable[..., list[Tensor]]

# Blocks of stage 4, the only stage in which the two ResNets differ.
RESNET_STAGE4_BLOCKS = {"resnet50": 6, "resnet101": 23}

# MobileNetV2, table 2: expansion, channels, blocks, stride of the first block.
MOBILENET_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_norm(
    x: Tensor, filters: int, kernel: int, names: tuple[str, str], use_bias, norm: Norm, stride=1
) -> Tensor:
    x = Conv2D(filters, kernel, strides=stride, padding="same", use_bias=use_bias, name=names[0])(x)
    return norm(names[1])(x)


def identity_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: tuple[int, int, int],
    stage: int,
    block: str,
    use_bias: bool = True,
    train_bn: bool | None = True,
    norm: str = "batch",
) -> Tensor:
    """Bottleneck block whose shortcut is its input (ResNet, figure 5).

    filters: channels of the three convolutions; stage and block give the layers' names. Shape is kept.
    """
    layer = normalization(norm, train_bn)
    return _bottleneck(
        input_tensor, input_tensor, kernel_size, filters, f"{stage}{block}", 1, use_bias, layer
    )


def conv_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: tuple[int, int, int],
    stage: int,
    block: str,
    strides: tuple[int, int] | int = (2, 2),
    use_bias: bool = True,
    train_bn: bool | None = True,
    norm: str = "batch",
) -> Tensor:
    """Bottleneck block with a projection as shortcut; the stride is in the first 1x1 convolution.

    As `identity_block`; the output has filters[2] channels and is `strides` times smaller.
    """
    name, layer = f"{stage}{block}", normalization(norm, train_bn)
    names = (f"res{name}_branch1", f"bn{name}_branch1")
    shortcut = _conv_norm(input_tensor, filters[2], 1, names, use_bias, layer, strides)
    return _bottleneck(input_tensor, shortcut, kernel_size, filters, name, strides, use_bias, layer)


def _bottleneck(x, shortcut, kernel_size, filters, name, strides, use_bias, norm: Norm) -> Tensor:
    steps = (("2a", 1, strides), ("2b", kernel_size, 1), ("2c", 1, 1))
    for width, (part, kernel, stride) in zip(filters, steps, strict=True):
        names = (f"res{name}_branch{part}", f"bn{name}_branch{part}")
        x = _conv_norm(x, width, kernel, names, use_bias, norm, stride)
        if part != "2c":
            x = layers.ReLU()(x)
    return layers.ReLU(name=f"res{name}_out")(layers.Add()([x, shortcut]))


def resnet_graph(
    input_image: Tensor,
    architecture: str,
    stage5: bool = False,
    train_bn: bool | None = True,
    norm: str = "batch",
) -> list[Tensor]:
    """ResNet-50 or ResNet-101 (ResNet, table 1).

    input_image: [B, H, W, channels], H and W multiples of 64. Returns C1 to C5 with 64, 256, 512, 1024 and
    2048 channels and strides 4, 4, 8, 16, 32; C5 is None without stage5.
    Raises ValueError for another architecture.
    """
    if architecture not in RESNET_STAGE4_BLOCKS:
        raise ValueError(
            f"architecture must be one of {sorted(RESNET_STAGE4_BLOCKS)}. "
            f"Received: architecture={architecture!r}"
        )
    x = layers.ZeroPadding2D(3)(input_image)
    x = Conv2D(64, 7, strides=2, name="conv1")(x)
    x = layers.ReLU()(normalization(norm, train_bn)("bn_conv1")(x))
    c1 = MaxPooling2D(3, strides=2, padding="same")(x)
    how = {"train_bn": train_bn, "norm": norm}
    c2 = _resnet_stage(c1, 2, 3, 64, 1, how)
    c3 = _resnet_stage(c2, 3, 4, 128, 2, how)
    c4 = _resnet_stage(c3, 4, RESNET_STAGE4_BLOCKS[architecture], 256, 2, how)
    c5 = _resnet_stage(c4, 5, 3, 512, 2, how) if stage5 else None
    return [c1, c2, c3, c4, c5]


def _resnet_stage(x: Tensor, stage: int, blocks: int, width: int, stride: int, how: dict) -> Tensor:
    filters = (width, width, 4 * width)
    x = conv_block(x, 3, filters, stage, "a", strides=stride, **how)
    for number in range(1, blocks):
        x = identity_block(x, 3, filters, stage, chr(ord("a") + number), **how)
    return x


def mobilenet_v2(
    input_image: Tensor, stage5: bool = True, train_bn: bool | None = None, norm: str = "batch"
) -> list[Tensor]:
    """MobileNetV2 (table 2), without its classifier.

    input_image: [B, H, W, channels], mean already subtracted. Returns C1 to C5 with 16, 24, 32, 96 and 320
    channels and strides 2, 4, 8, 16, 32. Layers are named as in `keras.applications`, so that its ImageNet
    weights fit by name.
    """
    layer = normalization(norm, train_bn)
    x = input_image * (1 / 127.5)  # not layers.Rescaling, which needs TensorFlow on every backend
    x = _conv_norm(x, 32, 3, ("Conv1", "bn_Conv1"), False, layer, 2)
    x = layers.ReLU(6.0, name="Conv1_relu")(x)
    stages = []
    block = 0
    for expansion, channels, repeats, first_stride in MOBILENET_GROUPS:
        if first_stride == 2:
            stages.append(x)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(x, expansion, channels, stride, block, layer)
            block += 1
    stages.append(x)
    return stages if stage5 else [*stages[:-1], None]


def _inverted_residual(x, expansion: int, channels: int, stride: int, block: int, norm: Norm) -> Tensor:
    """Expand, filter each channel by itself, project (MobileNetV2, figure 4)."""
    name = f"block_{block}_" if block else "expanded_conv_"
    inputs, width = x, x.shape[-1]
    if expansion > 1:
        names = (f"{name}expand", f"{name}expand_BN")
        x = _conv_norm(x, expansion * width, 1, names, False, norm)
        x = layers.ReLU(6.0, name=f"{name}expand_relu")(x)
    x = DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}depthwise")(x)
    x = norm(f"{name}depthwise_BN")(x)
    x = layers.ReLU(6.0, name=f"{name}depthwise_relu")(x)
    x = _conv_norm(x, channels, 1, (f"{name}project", f"{name}project_BN"), False, norm)
    if stride == 1 and width == channels:
        x = layers.Add(name=f"{name}add")([inputs, x])
    return x


def backbone_stages(
    input_image: Tensor, backbone: str | Backbone, train_bn: bool | None, norm: str = "batch"
) -> list[Tensor]:
    """C2 to C5 of a backbone given by name, or by a function.

    backbone: "resnet50", "resnet101", "mobilenetv2", or a callable f(input_image, stage5=True,
    train_bn=...) that returns five maps, of which the first is not used. norm: "batch" or "group"; a
    function normalises as it likes.
    Raises ValueError for another name or number of maps.
    """
    if callable(backbone):
        stages = backbone(input_image, stage5=True, train_bn=train_bn)
    elif backbone == "mobilenetv2":
        stages = mobilenet_v2(input_image, stage5=True, train_bn=train_bn, norm=norm)
    else:
        stages = resnet_graph(input_image, backbone, stage5=True, train_bn=train_bn, norm=norm)
    if len(stages) != 5:
        raise ValueError(f"BACKBONE must return five maps, C1 to C5. Received: {len(stages)} maps")
    return list(stages[1:])

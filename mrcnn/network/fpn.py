"""Feature pyramid network: five maps of equal depth from the stages of the backbone (FPN, section 3)."""

import functools

from keras import layers

from mrcnn.network.convolution import Conv2D
from mrcnn.network.normalization import Norm
from mrcnn.typing import Tensor


def feature_pyramid(stages: list[Tensor], channels: int, norm: Norm | None = None) -> list[Tensor]:
    """Build the pyramid levels P2 to P6 from C2 to C5.

    The convolutions have no activation. P6 takes every second cell of P5.

    Args:
        stages: C2, C3, C4 and C5, each [B, h, w, c] with half the height and width of the one before.
        channels: Channels of every level.
        norm: Constructor of the normalization layers that follow each convolution, or None for none.

    Returns:
        P2 to P6, each [B, h, w, channels].
    """
    c2, c3, c4, c5 = stages
    convolution = functools.partial(_convolution, channels=channels, norm=norm)
    p5 = convolution(c5, kernel_size=1, name="fpn_c5p5")
    p4 = _merge(p5, convolution(c4, kernel_size=1, name="fpn_c4p4"), 4)
    p3 = _merge(p4, convolution(c3, kernel_size=1, name="fpn_c3p3"), 3)
    p2 = _merge(p3, convolution(c2, kernel_size=1, name="fpn_c2p2"), 2)
    p2, p3, p4, p5 = (
        convolution(merged, kernel_size=3, name=f"fpn_p{level}")
        for level, merged in ((2, p2), (3, p3), (4, p4), (5, p5))
    )
    p6 = layers.MaxPooling2D(pool_size=1, strides=2, name="fpn_p6")(p5)
    return [p2, p3, p4, p5, p6]


def _convolution(x: Tensor, *, channels: int, kernel_size: int, name: str, norm: Norm | None) -> Tensor:
    x = Conv2D(channels, kernel_size, padding="same", use_bias=norm is None, name=name)(x)
    return x if norm is None else norm(f"{name}_bn")(x)


def _merge(coarser: Tensor, lateral: Tensor, level: int) -> Tensor:
    """Add the upsampled coarser level and the lateral connection from the backbone (FPN, figure 3)."""
    upsampled = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(coarser)
    return layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])

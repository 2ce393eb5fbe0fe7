"""Feature pyramid network: five maps of equal depth from the stages of the backbone (FPN, section 3)."""

from keras import layers

from mrcnn.network.convolution import Conv2D
from mrcnn.typing import Tensor


def feature_pyramid(stages: list[Tensor], channels: int) -> list[Tensor]:
    """P2 to P6 from C2 to C5.

    There is no activation. P6 takes every second cell of P5.

    Args:
        stages: C2, C3, C4 and C5, each [B, h, w, c] with half the height and width of the one before.
        channels: Channels of every level.

    Returns:
        P2 to P6, each [B, h, w, channels].
    """
    c2, c3, c4, c5 = stages
    p5 = Conv2D(channels, 1, name="fpn_c5p5")(c5)
    p4 = _merge(p5, c4, channels, 4)
    p3 = _merge(p4, c3, channels, 3)
    p2 = _merge(p3, c2, channels, 2)
    p2, p3, p4, p5 = (
        Conv2D(channels, 3, padding="same", name=f"fpn_p{level}")(merged)
        for level, merged in ((2, p2), (3, p3), (4, p4), (5, p5))
    )
    p6 = layers.MaxPooling2D(pool_size=1, strides=2, name="fpn_p6")(p5)
    return [p2, p3, p4, p5, p6]


def _merge(coarser: Tensor, stage: Tensor, channels: int, level: int) -> Tensor:
    """The coarser level, upsampled, plus the lateral connection from the backbone (FPN, figure 3)."""
    upsampled = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(coarser)
    lateral = Conv2D(channels, 1, name=f"fpn_c{level}p{level}")(stage)
    return layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])

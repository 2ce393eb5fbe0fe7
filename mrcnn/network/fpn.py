"""Feature pyramid network: five maps of equal depth from the backbone's stages (FPN, section 3)."""

from typing import Any

from keras import layers

from mrcnn.network.convolution import Conv2D

Tensor = Any


def feature_pyramid(stages: list[Tensor], channels: int) -> list[Tensor]:
    """P2 to P6 from C2 to C5.

    stages: C2, C3, C4, C5, each [B, h, w, c] with half the height and width of the one before.
    Returns P2 to P6, [B, h, w, channels] each. There is no activation; P6 takes every second cell of P5.
    """
    c2, c3, c4, c5 = stages
    p5 = Conv2D(channels, 1, name="fpn_c5p5")(c5)
    p4 = _merge(p5, c4, channels, "4")
    p3 = _merge(p4, c3, channels, "3")
    p2 = _merge(p3, c2, channels, "2")
    p2, p3, p4, p5 = (
        Conv2D(channels, 3, padding="same", name=f"fpn_p{level}")(merged)
        for level, merged in ((2, p2), (3, p3), (4, p4), (5, p5))
    )
    p6 = layers.MaxPooling2D(pool_size=1, strides=2, name="fpn_p6")(p5)
    return [p2, p3, p4, p5, p6]


def _merge(above: Tensor, stage: Tensor, channels: int, level: str) -> Tensor:
    """The level above, twice as large, plus the backbone's stage brought to the same depth."""
    name_above = f"fpn_p{int(level) + 1}upsampled"
    larger = layers.UpSampling2D(2, name=name_above)(above)
    lateral = Conv2D(channels, 1, name=f"fpn_c{level}p{level}")(stage)
    return layers.Add(name=f"fpn_p{level}add")([larger, lateral])

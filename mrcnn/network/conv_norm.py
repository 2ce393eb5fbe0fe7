"""A convolution and its normalization, the building block of all backbones.

Axes: B images, h and w cells, C channels.
"""

from mrcnn.network.convolution import Conv2D
from mrcnn.network.normalization import Norm
from mrcnn.typing import Tensor

Strides = tuple[int, int] | int


def conv_norm(
    x: Tensor,
    filters: int,
    kernel_size: int,
    names: tuple[str, str],
    *,
    use_bias: bool,
    norm: Norm,
    strides: Strides = 1,
    symmetric: bool = False,
    groups: int = 1,
) -> Tensor:
    """Convolve with padding "same" and normalize.

    Args:
        x: [B, h, w, c].
        filters: Output channels, C.
        kernel_size: Side of the kernel.
        names: Names of the convolution and of the normalization layer.
        use_bias: Whether the convolution has a bias.
        norm: See `mrcnn.network.normalization`.
        strides: Stride of the convolution.
        symmetric: See `mrcnn.network.convolution.Conv2D`.
        groups: Groups of channels, each with its own filters.

    Returns:
        [B, h / strides, w / strides, C].
    """
    conv_name, norm_name = names
    conv = Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        symmetric=symmetric,
        groups=groups,
        use_bias=use_bias,
        name=conv_name,
    )
    return norm(norm_name)(conv(x))

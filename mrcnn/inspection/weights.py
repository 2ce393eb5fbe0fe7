"""Histograms of weight tensors. Suspicious tensors have a red title."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.visualize import figures
from mrcnn.visualize.weight_statistics import LayeredModel, WeightStatistics
from mrcnn.visualize.weight_statistics import weight_statistics as weight_statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("kernel", "depthwise_kernel", "bias")  # tensors of convolutions and dense layers, not of batch norm
COLUMNS = 4


def draw_weight_histograms(model: LayeredModel, layer_regex: str = ".*", bins: int = 50) -> Figure:
    """Draw histograms of the kernels and biases of layers, including those of the RPN.

    Tensors that look dead, constant or exploding have a red title; see `WeightStatistics`.

    Args:
        model: A `MaskRCNN` of either mode.
        layer_regex: Regular expression that the full name of a layer must match.
        bins: Number of bins of each histogram.

    Returns:
        The figure.

    Raises:
        ValueError: If no layer matches.
    """
    tensors = [
        tensor
        for tensor in weight_statistics(model)
        if tensor.kind in KINDS and re.fullmatch(layer_regex, tensor.layer)
    ]
    if not tensors:
        raise ValueError(
            "`layer_regex` must match the whole name of a convolution or dense layer, such as "
            f"'rpn_.*'. Received: layer_regex={layer_regex!r}"
        )
    rows = -(-len(tensors) // COLUMNS)
    figure, axes = figures.pyplot().subplots(
        rows, COLUMNS, figsize=(14, 2.2 * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(tensors) :]:
        ax.axis("off")
    for ax, tensor in zip(axes.flat, tensors, strict=False):
        _draw_histogram(ax, tensor, bins)
    return figures.finish(figure, show=False)


def _draw_histogram(ax: Axes, tensor: WeightStatistics, bins: int) -> None:
    is_suspicious = tensor.is_constant or tensor.is_exploding
    finite = tensor.values[np.isfinite(tensor.values)]
    ax.hist(finite.ravel(), bins=bins)
    ax.set_title(tensor.name, fontsize=8, color="red" if is_suspicious else "black", parse_math=False)
    ax.tick_params(labelsize=7)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(figures.pyplot().MaxNLocator(3))
        axis.get_offset_text().set_fontsize(7)

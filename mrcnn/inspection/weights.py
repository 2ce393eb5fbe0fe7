"""Step 5, weights: histograms of whole tensors, and a table that flags what looks wrong."""

import re
from typing import Any

from mrcnn.visualize import figures
from mrcnn.visualize.weight_statistics import WeightStatistics
from mrcnn.visualize.weight_statistics import weight_statistics as weight_statistics

KINDS = ("kernel", "depthwise_kernel", "bias")  # of layers that compute, as against normalisation
COLUMNS = 4


def draw_weight_histograms(model: Any, layer_regex: str = ".*", bins: int = 50) -> Any:
    """Draw histograms of all values of the kernels and biases of layers whose whole name matches.

    model: a `MaskRCNN` of either mode. The RPN's layers are among them. Tensors that look dead, constant or
    exploding have a red title, see `WeightStatistics`.

    Returns the figure. Raises ValueError if no layer matches.
    """
    chosen = [
        tensor
        for tensor in weight_statistics(model)
        if tensor.kind in KINDS and re.fullmatch(layer_regex, tensor.layer)
    ]
    if not chosen:
        raise ValueError(
            "layer_regex must match the name of a convolution or dense layer. "
            f"Received: layer_regex={layer_regex!r}"
        )
    rows = -(-len(chosen) // COLUMNS)
    figure, axes = figures.pyplot().subplots(
        rows, COLUMNS, figsize=(14, 2.2 * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(chosen) :]:
        ax.axis("off")
    for ax, tensor in zip(axes.flat, chosen, strict=False):
        _draw_histogram(ax, tensor, bins)
    return figures.finish(figure, show=False)


def _draw_histogram(ax: Any, tensor: WeightStatistics, bins: int) -> None:
    suspicious = tensor.is_constant or tensor.is_exploding
    finite = tensor.values[abs(tensor.values) < float("inf")]
    ax.hist(finite.ravel(), bins=bins)
    ax.set_title(tensor.name, fontsize=8, color="red" if suspicious else "black")
    ax.tick_params(labelsize=7)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(figures.pyplot().MaxNLocator(3))
        axis.get_offset_text().set_fontsize(7)

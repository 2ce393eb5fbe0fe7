"""Numbers of every weight tensor of a network, and what looks wrong about them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

EXPLODING = 1000  # the largest trained weight that is believed


@dataclass(frozen=True)
class WeightStatistics:
    """One weight tensor.

    layer: "conv1"; kind: "kernel"; layer_class: such as "Conv2D". values: the tensor itself.
    """

    layer: str
    kind: str
    layer_class: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """Layer and kind, as "conv1/kernel"."""
        return f"{self.layer}/{self.kind}"

    @property
    def low(self) -> float:
        """The smallest value; NaN if there is one."""
        return float(self.values.min())

    @property
    def high(self) -> float:
        """The largest value; NaN if there is one."""
        return float(self.values.max())

    @property
    def std(self) -> float:
        """The standard deviation of all values."""
        return float(self.values.std())

    @property
    def is_constant(self) -> bool:
        """Whether all values are one; biases of convolutions are left out, they start as zeros."""
        starts_as_zeros = self.kind == "bias" and "Conv" in self.layer_class
        return self.low == self.high and not starts_as_zeros

    @property
    def is_dead(self) -> bool:
        """Whether all values are zero, so that nothing passes."""
        return self.is_constant and self.low == 0

    @property
    def is_exploding(self) -> bool:
        """Whether a value is beyond 1000 or not finite."""
        return not (abs(self.low) <= EXPLODING and abs(self.high) <= EXPLODING)


def weight_statistics(model: Any) -> list[WeightStatistics]:
    """Statistics of every weight tensor of a `MaskRCNN`, the RPN's layers one by one, in model order."""
    layers = [part for layer in model.get_trainable_layers() for part in getattr(layer, "layers", [layer])]
    return [
        WeightStatistics(layer.name, _kind(variable), type(layer).__name__, values)
        for layer in layers
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True)
        if values.size
    ]


def _kind(variable: Any) -> str:
    """ "kernel" of "conv1/kernel:0" and of "kernel"."""
    return variable.name.split("/")[-1].split(":")[0]

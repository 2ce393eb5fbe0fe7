"""Compute statistics of every weight tensor of a network, and detect suspicious tensors."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

EXPLODING = 1000  # weights beyond this are suspicious; trained ones stay far below


class LayeredModel(Protocol):
    """A model that lists its layers with weights, such as `MaskRCNN`."""

    def get_trainable_layers(self) -> list[Any]:
        """Return the Keras layers with weights, in model order."""


@dataclass(frozen=True)
class WeightStatistics:
    """One weight tensor and its statistics.

    Attributes:
        layer: Name of the layer, such as "conv1".
        kind: Name of the tensor in its layer, such as "kernel".
        layer_class: Class name of the layer, such as "Conv2D".
        values: The tensor itself.
    """

    layer: str
    kind: str
    layer_class: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """Layer and kind, such as "conv1/kernel"."""
        return f"{self.layer}/{self.kind}"

    @property
    def low(self) -> float:
        """The smallest value; NaN if any value is NaN."""
        return float(self.values.min())

    @property
    def high(self) -> float:
        """The largest value; NaN if any value is NaN."""
        return float(self.values.max())

    @property
    def std(self) -> float:
        """The standard deviation of all values."""
        return float(self.values.std())

    @property
    def is_constant(self) -> bool:
        """Whether all values are equal. Biases of convolutions are exempt, as they start at zero."""
        starts_as_zeros = self.kind == "bias" and "Conv" in self.layer_class
        return self.low == self.high and not starts_as_zeros

    @property
    def is_dead(self) -> bool:
        """Whether all values are zero, so that the tensor lets no signal through."""
        return self.is_constant and self.low == 0

    @property
    def is_exploding(self) -> bool:
        """Whether the magnitude of a value exceeds 1000, or a value is not finite."""
        return not (abs(self.low) <= EXPLODING and abs(self.high) <= EXPLODING)


def weight_statistics(model: LayeredModel) -> list[WeightStatistics]:
    """Compute statistics of every weight tensor of a `MaskRCNN`, in model order.

    The layers inside the RPN are listed separately.
    """
    layers = [part for layer in model.get_trainable_layers() for part in getattr(layer, "layers", [layer])]
    return [
        WeightStatistics(layer.name, _kind(variable), type(layer).__name__, values)
        for layer in layers
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True)
        if values.size
    ]


def _kind(variable: Any) -> str:
    """Return "kernel" for "conv1/kernel:0" and for "kernel"."""
    return str(variable.name).split("/")[-1].split(":")[0]

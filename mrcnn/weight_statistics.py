"""Numbers of every weight tensor of a network, and what looks wrong about them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

EXPLODING = 1000  # the largest trained weight that is believed


@dataclass(frozen=True)
class WeightStatistics:
    """One weight tensor. name: "conv1/kernel". layer_class: of its layer, such as "Conv2D".

    shape, low, high, mean, std: of all its values. values: the tensor itself.
    """

    name: str
    layer_class: str
    values: np.ndarray

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
        is_bias = self.name.endswith("bias") and self.layer_class.startswith("Conv")
        return self.low == self.high and not is_bias

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
    return [
        WeightStatistics(name, layer_class, values)
        for layer in model.get_trainable_layers()
        for name, layer_class, values in _tensors(layer)
        if values.size
    ]


def _tensors(layer: Any) -> list[tuple[str, str, np.ndarray]]:
    """Name, layer class and values of each tensor of a layer, or of the layers of a model."""
    parts = [part for part in getattr(layer, "layers", [layer]) if part.weights]
    return [
        (f"{part.name}/{variable.name.split('/')[-1].split(':')[0]}", type(part).__name__, values)
        for part in parts
        for variable, values in zip(part.weights, part.get_weights(), strict=True)
    ]

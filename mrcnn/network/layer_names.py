"""Names of the layers of a backbone of your own.

Weights are stored, read and copied by the names of layers. Keras numbers layers without a name on from one
network to the next, so that the same function would build layers of other names each time.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mrcnn.backend import layer_graph
from mrcnn.typing import Tensor


def number_layers(first: Tensor, last: Sequence[Tensor]) -> None:
    """Number the layers without a name of their own from 0 on, in the order in which they were made.

    They get the names that they would have in the first network of a process: "conv2d", "conv2d_1" and so on.
    Only kinds of layers that have weights are numbered.

    Args:
        first: A symbolic tensor.
        last: The symbolic tensors that the layers compute from it.
    """
    calls = layer_graph.calls_between(last, {id(first)})
    operations = list({id(call.operation): call.operation for call in calls}.values())
    kinds: dict[str, list[Any]] = {}
    for operation in operations:
        kind, _ = _split(operation.name)
        if kind.replace("_", "") == type(operation).__name__.lower():
            kinds.setdefault(kind, []).append(operation)
    for kind, members in kinds.items():
        if any(getattr(member, "weights", None) for member in members):
            _rename(kind, members)


def _rename(kind: str, layers: Iterable[Any]) -> None:
    """Name layers of one kind KIND, KIND_1, KIND_2 and so on by their present numbers."""
    for index, layer in enumerate(sorted(layers, key=lambda layer: _split(layer.name)[1])):
        layer.name = f"{kind}_{index}" if index else kind


def _split(name: str) -> tuple[str, int]:
    """Return the name without the number that Keras adds, and this number."""
    kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return kind, int(number or 0)

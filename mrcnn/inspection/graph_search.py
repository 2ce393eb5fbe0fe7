"""Looking inside a network: values by name, and one line per array."""

import re
from typing import Any

import keras
import numpy as np
from keras import layers

from mrcnn.network.proposals import ProposalLayer

# How far `ancestor` walks up a graph.
MOST_VISITED = 5000


class ProposalSteps(layers.Layer):
    """The intermediate results of a ProposalLayer, as symbolic tensors.

    Called with the inputs of `layer`; returns the dict of `ProposalLayer.steps`.
    """

    def __init__(self, layer: ProposalLayer, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.layer = layer

    def call(self, inputs):
        return self.layer.steps(inputs)

    def compute_output_spec(self, inputs):
        batch, anchors = inputs[0].shape[:2]
        kept = min(self.layer.pre_nms_limit, anchors or self.layer.pre_nms_limit)
        boxes = keras.KerasTensor((batch, kept, 4), "float32")
        count = self.layer.proposal_count
        return {
            "pre_nms_anchors": boxes,
            "refined_anchors": keras.KerasTensor((batch, kept, 4), "float32"),
            "refined_anchors_clipped": keras.KerasTensor((batch, kept, 4), "float32"),
            "rpn_non_max_suppression": keras.KerasTensor((batch, count), "int32"),
            "proposals": keras.KerasTensor((batch, count, 4), "float32"),
        }


def log(text: str, array: np.ndarray | None = None) -> None:
    """Print a line; with an array its shape, smallest and largest value and dtype besides."""
    if array is not None:
        array = np.asarray(array)
        text = f"{text:<25}shape: {array.shape!s:<20}  "
        if array.size:
            text += f"min: {array.min():10.5f}  max: {array.max():10.5f}"
        else:
            text += f"min: {'':10}  max: {'':10}"
        text += f"  {array.dtype}"
    print(text)


def ancestor(tensor: Any, name: str, known: dict[layers.Layer, dict[str, Any]] | None = None) -> Any:
    """A symbolic tensor by name, among those that `tensor` is computed from; None if there is none.

    tensor: an output of a layer. name: "ROI/pre_nms_anchors:0", "ROI/refined_anchors:0",
    "ROI/refined_anchors_clipped:0" or "ROI/rpn_non_max_suppression:0" (and the same with
    /NonMaxSuppressionV2:0 or V3:0) for the steps of the proposal layer; else the name of a layer, whose
    output is given. A suffix such as _1 behind the layer's name and :0 are ignored.
    known: the steps of the proposal layers that were asked for before; filled here, so that several steps
    fetched together are one computation.
    """
    known = {} if known is None else known
    parts = re.sub(r":\d+$", "", name).split("/")
    for operation, inputs, output in _upstream(tensor):
        if operation.name not in (parts[0], re.sub(r"_\d+$", "", parts[0])):
            continue
        if isinstance(operation, ProposalLayer) and len(parts) > 1:
            if operation not in known:
                known[operation] = ProposalSteps(operation)(inputs)
            return known[operation].get(parts[1])
        return output
    return None


def _upstream(tensor: Any):
    """(operation, its input tensors, its output tensor) from a symbolic tensor upwards."""
    waiting: list[Any] = [tensor]
    seen: set[int] = set()
    while waiting and len(seen) < MOST_VISITED:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        operation, node_index, _ = current._keras_history
        if operation is None:
            continue
        node = operation._inbound_nodes[node_index]
        inputs = list(node.input_tensors)
        yield operation, inputs, current
        waiting.extend(inputs)

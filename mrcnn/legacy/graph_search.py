"""Look up tensors of a network by the names that the notebooks of the Keras 2 library use."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from mrcnn.backend import keras_internals
from mrcnn.network.proposals import Proposals
from mrcnn.typing import Tensor

# How many tensors `ancestor` visits at most.
MAX_VISITED = 5000
NMS_STEP = "rpn_non_max_suppression"

# The steps of each proposal layer by name; see `ProposalSteps`.
Steps = dict[layers.Layer, dict[str, Tensor]]


class ProposalSteps(layers.Layer):
    """The intermediate results of a layer that chooses proposals, as symbolic tensors.

    Call with the inputs of that layer. Returns the dict of `Proposals.steps`.

    Args:
        layer: A ProposalLayer or a LevelProposalLayer.
    """

    def __init__(self, layer: Proposals, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.layer = layer

    def call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        return self.layer.steps(inputs)

    def compute_output_spec(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        batch, count = inputs[0].shape[0], self.layer.proposal_count
        kept = self.layer.pre_nms_count([x.shape for x in inputs])
        return {
            "pre_nms_anchor_ix": keras.KerasTensor((batch, kept), "int32"),
            "pre_nms_anchors": keras.KerasTensor((batch, kept, 4), "float32"),
            "refined_anchors": keras.KerasTensor((batch, kept, 4), "float32"),
            "refined_anchors_clipped": keras.KerasTensor((batch, kept, 4), "float32"),
            NMS_STEP: keras.KerasTensor((batch, count), "int32"),
            "proposals": keras.KerasTensor((batch, count, 4), "float32"),
        }


def ancestor(tensor: Tensor, name: str, known: Steps | None = None) -> Tensor:
    """Find a symbolic tensor by name upstream of `tensor`.

    Args:
        tensor: An output of a layer.
        name: The name of a layer, whose output is returned. For the steps of the proposal layer:
            "ROI/pre_nms_anchor_ix:0", "ROI/pre_nms_anchors:0", "ROI/refined_anchors:0",
            "ROI/refined_anchors_clipped:0" or "ROI/rpn_non_max_suppression:0" (also with
            /NonMaxSuppressionV2:0 or V3:0 behind it). A suffix of the layer's name such as _1, and :0, are
            ignored.
        known: The steps of proposal layers from earlier calls. New ones are added, so that steps fetched
            together are computed only once.

    Returns:
        The tensor, or None if no tensor has this name.
    """
    known = {} if known is None else known
    parts = re.sub(r":\d+$", "", name).split("/")
    for operation, inputs, output in _upstream(tensor):
        if operation.name not in (parts[0], re.sub(r"_\d+$", "", parts[0])):
            continue
        if isinstance(operation, Proposals) and len(parts) > 1:
            if operation not in known:
                known[operation] = ProposalSteps(operation)(inputs)
            return known[operation].get(parts[1])
        return output
    return None


def without_padding(
    arrays: Mapping[str, np.ndarray], outputs: Iterable[tuple[str, Tensor]], known: Steps
) -> dict[str, np.ndarray]:
    """Return the values of tensors, without padding after the rows that NMS keeps, as in the Keras 2 library.

    Args:
        arrays: The values by label, each with a batch axis.
        outputs: The labels and their symbolic tensors.
        known: The `known` of `ancestor`.

    Returns:
        The same arrays. For a batch of one image, "ROI/rpn_non_max_suppression" has one axis and only the
        rows that are kept, best first.
    """
    padded = {id(steps[NMS_STEP]) for steps in known.values()}
    values = dict(arrays)
    for label, tensor in outputs:
        if id(tensor) in padded and len(values[label]) == 1:
            rows = values[label][0]
            # Unused slots are 0. Row 0 has the highest score, so that NMS keeps it first.
            values[label] = rows[: 1 + np.count_nonzero(rows[1:])]
    return values


def _upstream(tensor: Tensor) -> Iterator[tuple[Any, list[Tensor], Tensor]]:
    """Yield (operation, its input tensors, its output tensor) from a symbolic tensor upward."""
    waiting: list[Tensor] = [tensor]
    visited: set[int] = set()
    while waiting and len(visited) < MAX_VISITED:
        output = waiting.pop()
        if id(output) in visited:
            continue
        visited.add(id(output))
        operation = keras_internals.producer(output)
        if operation is None:
            continue
        inputs = list(keras_internals.producing_call(output).input_tensors)
        yield operation, inputs, output
        waiting.extend(inputs)

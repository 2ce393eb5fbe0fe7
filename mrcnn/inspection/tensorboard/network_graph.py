"""The graph of a network as TensorBoard draws it: one box per part of the paper, with its layers inside."""

from typing import Any

import keras
from tensorboard.compat.proto import attr_value_pb2, graph_pb2, node_def_pb2

from mrcnn.backend import keras_internals
from mrcnn.inspection.feature_maps import LATERALS

# The first layers of each part. Every other layer belongs to the part of its first input.
FIRST_LAYERS = {
    **dict.fromkeys(LATERALS.values(), "pyramid"),
    "rpn_model": "rpn",
    "anchors": "proposals",
    "ROI": "proposals",
    "rpn_targets": "targets",
    "proposal_targets": "targets",
    "roi_align_classifier": "box_head",
    "mrcnn_detection": "detections",
    "roi_align_mask": "mask_head",
}
# The part of the layers that follow the inputs.
AFTER_IMAGE, AFTER_GROUND_TRUTH = "backbone", "targets"


def network_graph(network: keras.Model) -> graph_pb2.GraphDef:
    """Convert a functional model to a graph of its layers and their connections.

    A model inside the model, such as the RPN, is one node.

    Returns:
        A graph whose nodes are named "part/layer", with the parts inputs, backbone, pyramid, rpn, proposals,
        targets, box_head, detections and mask_head.
    """
    parents = {operation.name: _parents(operation) for operation in network.operations}
    parts: dict[str, str] = {}
    for name in parents:
        _find_part(name, parents, parts)
    nodes = [_node(operation, parents, parts) for operation in network.operations]
    return graph_pb2.GraphDef(node=nodes)


def _parents(operation: Any) -> list[str]:
    """Return the names of the operations whose outputs an operation takes, each once."""
    calls = keras_internals.calls_of(operation)
    tensors = [tensor for call in calls for tensor in call.input_tensors]
    return list(dict.fromkeys(keras_internals.producer(tensor).name for tensor in tensors))


def _find_part(name: str, parents: dict[str, list[str]], parts: dict[str, str]) -> str:
    """Return the part that an operation belongs to. `parts` collects those of all operations on the way."""
    if name not in parts:
        if name in FIRST_LAYERS:
            parts[name] = FIRST_LAYERS[name]
        elif not parents[name]:
            parts[name] = "inputs"
        else:
            parent = parents[name][0]
            part = _find_part(parent, parents, parts)
            if part == "inputs":
                part = AFTER_IMAGE if parent == "input_image" else AFTER_GROUND_TRUTH
            parts[name] = part
    return parts[name]


def _node(operation: Any, parents: dict[str, list[str]], parts: dict[str, str]) -> node_def_pb2.NodeDef:
    shape = str(getattr(operation, "output_shape", ""))
    name = operation.name
    return node_def_pb2.NodeDef(
        name=f"{parts[name]}/{name}",
        op=type(operation).__name__,
        input=[f"{parts[parent]}/{parent}" for parent in parents[name]],
        attr={"output": attr_value_pb2.AttrValue(s=shape.encode())} if shape else {},
    )

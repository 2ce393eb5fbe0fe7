"""The network as TensorBoard draws it: a box for each part of the paper's figure, layers inside."""

import re
from typing import Any

import keras
from tensorboard.compat.proto import attr_value_pb2, graph_pb2, node_def_pb2

# The part that a layer belongs to by its name; a layer of another name goes on with the part of its input.
PARTS = (
    (r"input_.*", "inputs"),
    (r"(proposal|rpn)_targets|norm_gt_boxes|target_.*", "targets"),
    (r"fpn_.*", "pyramid"),
    (r"rpn_.*", "rpn"),
    (r"(ROI|anchors)", "proposals"),
    (r"(mrcnn_mask|roi_align_mask).*", "mask_head"),
    (r"mrcnn_detection", "detections"),
    (r"(mrcnn_|roi_align_classifier|pool_).*", "box_head"),
)
AFTER_IMAGE, AFTER_TRUTH = "backbone", "targets"


def network_graph(network: keras.Model) -> graph_pb2.GraphDef:
    """The layers of a functional model and their connections, in the parts of PARTS.

    Models inside the model (the RPN) are one node.
    """
    parents = {operation.name: _parents(operation) for operation in network.operations}
    places: dict[str, str] = {}
    for name in parents:
        _place(name, parents, places)
    nodes = [_node(operation, parents, places) for operation in network.operations]
    return graph_pb2.GraphDef(node=nodes)


def _parents(operation: Any) -> list[str]:
    """Names of the operations whose outputs an operation takes, each once."""
    tensors = [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]
    return list(dict.fromkeys(tensor._keras_history.operation.name for tensor in tensors))


def _place(name: str, parents: dict[str, list[str]], places: dict[str, str]) -> str:
    """The part that an operation belongs to."""
    if name not in places:
        by_name = [part for pattern, part in PARTS if re.fullmatch(pattern, name)]
        if by_name:
            places[name] = by_name[0]
        else:
            before = parents[name][0]
            part = _place(before, parents, places)
            if part == "inputs":
                part = AFTER_IMAGE if before == "input_image" else AFTER_TRUTH
            places[name] = part
    return places[name]


def _node(operation: Any, parents: dict[str, list[str]], places: dict[str, str]) -> node_def_pb2.NodeDef:
    shape = str(getattr(operation, "output_shape", ""))
    name = operation.name
    return node_def_pb2.NodeDef(
        name=f"{places[name]}/{name}",
        op=type(operation).__name__,
        input=[f"{places[parent]}/{parent}" for parent in parents[name]],
        attr={"output": attr_value_pb2.AttrValue(s=shape.encode())} if shape else {},
    )

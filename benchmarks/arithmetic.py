"""Arithmetic of a network by part, counted from the layers of its real graph, 2 for a multiply-add.

Convolutions and matrix products count. Norms, activations, RoIAlign and NMS do not: they move memory.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

PARTS = ("backbone", "FPN", "RPN", "box head", "mask head")
PREFIXES = {"fpn_": "FPN", "rpn_": "RPN", "mrcnn_mask": "mask head", "mrcnn_": "box head"}
# Layers whose window is placed at each cell of the input; all others at each cell of the output.
PLACED_ON_INPUT = ("RoiConv2DTranspose", "Conv2DTranspose")


def of_graph(
    network: keras.Model, sides: Sequence[int], batch: int, mask_places: int | None = None
) -> dict[str, float]:
    """Arithmetic of one forward pass by part of the network, in GFLOP.

    network: a network of `mrcnn.network.graphs`; sides: height and width of its image; batch: images;
    mask_places: RoIs an image that the mask head runs on, where the graph leaves that open.
    """
    counted = dict.fromkeys(PARTS, 0.0)

    def count(layer, *inputs, **options):
        if isinstance(layer, keras.Model):
            clone(layer, inputs[0])
        outputs = layer(*inputs, **options)
        if hasattr(layer, "kernel"):
            placed = inputs[0] if type(layer).__name__ in PLACED_ON_INPUT else outputs
            places = math.prod(mask_places if side is None else side for side in placed.shape[:-1])
            counted[part_of(layer.name)] += 2e-9 * math.prod(layer.kernel.shape) * places
        return outputs

    def clone(model, inputs):
        keras.models.clone_model(
            model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=count
        )

    clone(network, keras.tree.map_structure(lambda tensor: _fixed(tensor, sides, batch), network.input))
    return counted


def of_training(
    network: keras.Model, sides: Sequence[int], batch: int, mask_places: int | None
) -> dict[str, float]:
    """As `of_graph`, for a step: forward, gradients of the inputs, gradients of the weights.

    The RPN's backward pass computes its window anew, and the two gradients, at few places only.
    """
    forward = of_graph(network, sides, batch, mask_places)
    rpn = network.get_layer("rpn_model")
    of_place = sum(2e-9 * math.prod(layer.kernel.shape) for layer in rpn.layers if hasattr(layer, "kernel"))
    places = batch * network.get_layer("rpn_gradient").most
    return {
        part: forward[part] + 3 * places * of_place if part == "RPN" else 3 * forward[part] for part in PARTS
    }


def of_inference(network: keras.Model, config: Any, sides: Sequence[int], batch: int) -> dict[str, float]:
    """As `of_graph`, for an inference network and the masks that detections need.

    Those are DETECTION_MAX_INSTANCES masks an image, the last layer for each one's own class only.
    """
    counted = of_graph(network, sides, batch)
    kernel = network.get_layer("mrcnn_mask").kernel.shape
    masks = batch * config.DETECTION_MAX_INSTANCES * math.prod(config.MASK_SHAPE)
    others = (config.NUM_CLASSES - 1) / config.NUM_CLASSES
    counted["mask head"] -= 2e-9 * math.prod(kernel) * masks * others
    return counted


def part_of(layer_name: str) -> str:
    """The part of the network that a layer belongs to, by the layer's name."""
    return next((part for prefix, part in PREFIXES.items() if layer_name.startswith(prefix)), "backbone")


def _fixed(tensor: Any, sides: Sequence[int], batch: int) -> Any:
    """An input like a network's own, with the numbers filled in that it leaves open."""
    shape = (*sides, tensor.shape[-1]) if tensor.name == "input_image" else tensor.shape[1:]
    return keras.Input(batch_shape=(batch, *shape), dtype=tensor.dtype, name=tensor.name)

"""Arithmetic of a network by part, counted from the layers of its graph. A multiply-add counts as 2.

Convolutions and matrix products count. Norms, activations, ROIAlign and NMS do not: moving memory dominates
them.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

from mrcnn.config import Config

PARTS = ("backbone", "FPN", "RPN", "box head", "mask head")
PREFIXES = {"fpn_": "FPN", "rpn_": "RPN", "mrcnn_mask": "mask head", "mrcnn_": "box head"}


def of_graph(
    network: keras.Model, sides: Sequence[int], batch: int, mask_slots: int | None = None
) -> dict[str, float]:
    """Count one forward pass.

    Args:
        network: A network of `mrcnn.network.graphs`.
        sides: Height and width of its image in pixels.
        batch: Number of images.
        mask_slots: RoIs per image that the mask head runs on, where the graph leaves the number open.

    Returns:
        {part of the network: GFLOP}.
    """
    counts = dict.fromkeys(PARTS, 0.0)

    def count(layer, *inputs, **options):
        if isinstance(layer, keras.Model):
            clone(layer, inputs[0])
        outputs = layer(*inputs, **options)
        if hasattr(layer, "kernel"):
            # A transposed convolution applies its kernel at each cell of the input.
            cells = inputs[0] if type(layer).__name__ == "Conv2DTranspose" else outputs
            applications = math.prod(mask_slots if side is None else side for side in cells.shape[:-1])
            counts[part_of(layer.name)] += 2e-9 * math.prod(layer.kernel.shape) * applications
        return outputs

    def clone(model, inputs):
        keras.models.clone_model(
            model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=count
        )

    clone(network, keras.tree.map_structure(lambda tensor: _fixed(tensor, sides, batch), network.input))
    return counts


def of_training(
    network: keras.Model, config: Config, sides: Sequence[int], batch: int, mask_slots: int | None
) -> dict[str, float]:
    """Count one training step: the forward pass, and the gradients of inputs and weights.

    The gradients of the RPN count for the anchors of its loss and the positive RoIs only: the backward pass
    skips all other locations, and computes the forward pass anew at these.

    Args:
        network, sides, batch, mask_slots: See `of_graph`.
        config: Read for the numbers of anchors and RoIs.

    Returns:
        {part of the network: GFLOP}.
    """
    forward = of_graph(network, sides, batch, mask_slots)
    rpn = network.get_layer("rpn_model")
    per_location = sum(
        2e-9 * math.prod(layer.kernel.shape) for layer in rpn.layers if hasattr(layer, "kernel")
    )
    positives = int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO)
    locations = batch * (config.RPN_TRAIN_ANCHORS_PER_IMAGE + positives)
    return {
        part: forward[part] + 3 * locations * per_location if part == "RPN" else 3 * forward[part]
        for part in PARTS
    }


def of_inference(network: keras.Model, config: Config, sides: Sequence[int], batch: int) -> dict[str, float]:
    """Count the forward pass of an inference network with the masks that detections need.

    These are DETECTION_MAX_INSTANCES masks per image; the last layer runs for the class of each one only.

    Args:
        network, sides, batch: See `of_graph`.
        config: Read for the numbers of detections and classes.

    Returns:
        {part of the network: GFLOP}.
    """
    counts = of_graph(network, sides, batch)
    kernel = network.get_layer("mrcnn_mask").kernel.shape
    cells = batch * config.DETECTION_MAX_INSTANCES * math.prod(config.MASK_SHAPE)
    other_classes = (config.NUM_CLASSES - 1) / config.NUM_CLASSES
    counts["mask head"] -= 2e-9 * math.prod(kernel) * cells * other_classes
    return counts


def part_of(layer_name: str) -> str:
    """Return the part of the network that a layer belongs to, by the layer's name."""
    return next((part for prefix, part in PREFIXES.items() if layer_name.startswith(prefix)), "backbone")


def _fixed(tensor: Any, sides: Sequence[int], batch: int) -> Any:
    """An input of the network with a known batch and image size."""
    shape = (*sides, tensor.shape[-1]) if tensor.name == "input_image" else tensor.shape[1:]
    return keras.Input(batch_shape=(batch, *shape), dtype=tensor.dtype, name=tensor.name)

"""A variant of detection that the library does not have, to measure what it would bring.

`benchmarks.nucleus_recipe --detect "second pass"` measures it with the weights of a trained row.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

import mrcnn
from mrcnn.config import Config
from mrcnn.inference.mask_branch import LEVELS
from mrcnn.network import box_ops, parts
from mrcnn.network.graphs import Graph
from mrcnn.typing import Tensor


class RefinedBoxes(layers.Layer):
    """Move each RoI by the deltas of its best class, as an RoI of the second pass.

    Call with [rois [B, N, 4], scores [B, N, classes], deltas [B, N, classes, 4]]. Returns [B, N, 4].
    Boxes are normalized. An RoI whose best class is the background stays in its place.
    """

    def __init__(self, bbox_std_dev: np.ndarray, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bbox_std_dev = np.array(bbox_std_dev, "float32")

    def call(self, inputs: list[Tensor]) -> Tensor:
        rois, scores, deltas = inputs
        class_ids = ops.argmax(scores, axis=2)
        own_deltas = box_ops.select_class(deltas, class_ids) * ops.convert_to_tensor(self.bbox_std_dev)
        moved = ops.clip(box_ops.apply_box_deltas(rois, own_deltas), 0.0, 1.0)
        return ops.where((class_ids > 0)[..., None], moved, rois)


class SecondPass(mrcnn.MaskRCNN):
    """A model whose box head sees each RoI again where its first pass has moved it.

    This is Cascade R-CNN (Cai and Vasconcelos, 2018) at its least: two stages of one head, which was trained
    for the first. The scores are the mean of both, as in its section 4.
    """

    def build(self, mode: str, config: Config) -> keras.Model:
        network = super().build(mode, config)
        if mode == "inference":
            self._graph = with_second_pass(self._graph, config)
        return network


def with_second_pass(graph: Graph, config: Config) -> Graph:
    """Return an inference graph whose detections are those of a second pass through the same box head."""
    outputs, meta = graph.outputs, graph.inputs["input_image_meta"]
    pyramid = [outputs[level] for level in LEVELS]
    first = [outputs["mrcnn_class"], outputs["mrcnn_bbox"]]
    box_head = keras.Model([outputs["ROI"], meta, *pyramid], first, name="box_head")
    rois = RefinedBoxes(config.BBOX_STD_DEV, name="refined_boxes")([outputs["ROI"], *first])
    scores, deltas = box_head([rois, meta, *pyramid])
    detect = parts.detection_layer(config)
    detections = detect([rois, layers.Average(name="mean_scores")([first[0], scores]), deltas, meta])
    return Graph(graph.inputs, outputs | {"mrcnn_detection": detections})


VARIANTS: dict[str, type[mrcnn.MaskRCNN]] = {"second pass": SecondPass}

"""Two variants of detection that the library does not have, to measure what they would bring.

`benchmarks.nucleus_recipe --detect "soft-NMS"` and `--detect "second pass"` measure them with the weights of
a trained row.
"""

import copy
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import mrcnn
from mrcnn.config import Config
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.inference.mask_branch import LEVELS
from mrcnn.network import box_ops, parts
from mrcnn.network.graphs import Graph
from mrcnn.results import Detections
from mrcnn.typing import Image, Tensor

SIGMA = 0.5  # Soft-NMS (Bodla et al., 2017), section 3: the width of the Gaussian
# Boxes that overlap more than this are the same box: they only cost time.
SAME_BOX = 0.9


def soft_scores(boxes: np.ndarray, scores: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Return the scores of Soft-NMS: each box lowers the scores of the boxes that overlap it.

    Args:
        boxes: Boxes of one class, [N, (y1, x1, y2, x2)].
        scores: [N].
        sigma: A box of IoU u with a better one keeps exp(-u * u / sigma) of its score.

    Returns:
        float32 [N].
    """
    kept = np.exp(-(compute_overlaps(boxes, boxes) ** 2) / sigma)
    scores = np.array(scores, np.float32)
    remaining = np.ones(len(scores), bool)
    for _ in scores:
        best = int(np.argmax(np.where(remaining, scores, -1.0)))
        remaining[best] = False
        scores[remaining] *= kept[best, remaining]
    return scores


class SoftNMS(mrcnn.MaskRCNN):
    """A model whose detections lower the scores of those that overlap them, instead of suppressing them."""

    def __init__(self, mode: str, config: Config, *args: Any, **kwargs: Any) -> None:
        self._limits = config.DETECTION_MIN_CONFIDENCE, config.DETECTION_MAX_INSTANCES
        config = copy.copy(config)
        config.DETECTION_NMS_THRESHOLD = SAME_BOX
        config.DETECTION_MAX_INSTANCES = config.POST_NMS_ROIS_INFERENCE
        super().__init__(mode, config, *args, **kwargs)

    def detect(self, images: Image | Iterable[Image], *args: Any, **kwargs: Any) -> list[Detections]:
        return [self._softened(found) for found in super().detect(images, *args, **kwargs)]

    def _softened(self, found: Detections) -> Detections:
        lowest, most = self._limits
        for class_id in np.unique(found["class_ids"]):
            rows = found["class_ids"] == class_id
            found["scores"][rows] = soft_scores(found["rois"][rows], found["scores"][rows])
        order = np.argsort(-found["scores"], kind="stable")
        return found.select(order[found["scores"][order] >= (lowest or 0.0)][:most])


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


VARIANTS: dict[str, type[mrcnn.MaskRCNN]] = {"soft-NMS": SoftNMS, "second pass": SecondPass}

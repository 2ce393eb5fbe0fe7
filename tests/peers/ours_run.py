"""Run our network with torchvision's weights and compare its results with theirs."""

import contextlib

import keras
import numpy as np

from mrcnn import backend, config
from mrcnn.inference import outputs
from mrcnn.inference.inputs import mold_inputs
from mrcnn.model import MaskRCNN

PRESETS = {
    "torchvision": config.TorchvisionConfig,
    "torchvision-v2": config.TorchvisionV2Config,
    "detectron2": config.Detectron2Config,
}
PYRAMID = ("P2", "P3", "P4", "P5", "P6")


def build(kind, weights, folder, mode="inference", **settings):
    """A model with the preset of a kind, changed settings, and the weights of a file."""
    preset = PRESETS[kind]()
    for name, value in settings.items():
        setattr(preset, name, value)
    model = MaskRCNN(mode, preset, str(folder))
    model.load_weights(str(weights))
    return model


class Runner:
    """Every result of the plain inference graph for one image, under the names of torchvision_run.py.

    Args:
        model: A MaskRCNN in inference mode.
        compiled: Whether to compile the plain graph, which pays off for many or large images.
    """

    def __init__(self, model, compiled=True):
        self.model = model
        graph = model._graph
        network = keras.Model(graph.inputs, graph.outputs)
        self._call = backend.compiled(network) if compiled else network

    def __call__(self, image):
        model = self.model
        (molded,) = mold_inputs([image], model.config)
        shape = molded.pixels.shape
        values = self._call(
            {
                "input_image": molded.pixels[None].astype("float32"),
                "input_image_meta": molded.meta[None].astype("float32"),
                "input_anchors": model.get_anchors(shape)[None],
            }
        )
        arrays = {name: backend.to_numpy(value) for name, value in values.items()}
        count = outputs.count_detections(arrays["mrcnn_detection"][0])
        rows = arrays["mrcnn_detection"][0, :count]
        ids = rows[:, 4].astype(int)
        sides = np.tile(shape[:2], 2)
        where = (molded.original_shape, shape, molded.window, True)
        std = 255 * np.array([0.229, 0.224, 0.225])
        exact = outputs.exact_boxes(rows[:, :4], *where)
        (result,) = model.detect([image])
        return {
            "image": (molded.pixels / std)[None],
            **{level: arrays[level] for level in PYRAMID},
            "rpn_logits": _ratios_reversed(arrays["rpn_class_logits"][0, :, 1:])[None, :, 0],
            "rpn_deltas": _ratios_reversed(arrays["rpn_bbox"][0])[:, [1, 0, 3, 2]].reshape(1, -1),
            "proposals": (arrays["ROI"][0] * sides)[:, [1, 0, 3, 2]],
            "boxes": exact[:, [1, 0, 3, 2]],
            "labels": ids,
            "scores": rows[:, 5],
            "molded_boxes": (rows[:, :4] * sides)[:, [1, 0, 3, 2]],
            "molded_masks": arrays["mrcnn_mask"][0, np.arange(count), :, :, ids][:, None],
            "masks": result["masks"].transpose(2, 0, 1)[_same_order(rows, exact, result)],
        }


def _same_order(rows, boxes, result):
    """For each detection of the plain graph its index in the result of `detect`, which has as many.

    Scores that nearly tie may be in another order there.
    """
    distance = 1e4 * np.abs(rows[:, 5, None] - result["scores"])
    distance += np.abs(boxes[:, None] - result["rois"]).max(axis=2)
    distance += 1e9 * (rows[:, 4, None] != result["class_ids"])
    index = []
    for row in distance:
        row[index] = np.inf
        index.append(int(row.argmin()))
    return index


def _ratios_reversed(values):
    return values.reshape(-1, 3, values.shape[-1])[:, ::-1].reshape(values.shape)


def box_iou(boxes1, boxes2):
    """IoU of every pair of boxes (x1, y1, x2, y2)."""
    low = np.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = np.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes1, boxes2)]
    return intersection / np.maximum(areas[0][:, None] + areas[1][None] - intersection, 1e-9)


def found_share(theirs, ours, pixels=0.05):
    """Share of their boxes that ours hold within some pixels, in any order."""
    distance = np.abs(theirs[:, None] - ours[None]).max(axis=2)
    return float((distance.min(axis=1) <= pixels).mean())


def matched(theirs, ours, pixels=2):
    """Pairs of detections of the same class: index of theirs, index of ours, each used once.

    Detections whose scores nearly tie may change places, so the nearest box of the class counts if it is near
    enough.
    """
    pairs, free = [], set(range(len(ours["labels"])))
    for index, (box, label) in enumerate(zip(theirs["boxes"], theirs["labels"], strict=True)):
        same = [other for other in free if ours["labels"][other] == label]
        if not same:
            continue
        distances = np.abs(ours["boxes"][same] - box).max(axis=1)
        other = same[int(distances.argmin())]
        if distances.min() < pixels:
            pairs.append((index, other))
            free.discard(other)
    return np.array(pairs, int).reshape(-1, 2)


def compare(theirs, ours):
    """Differences of all results, as a dict of numbers."""
    report = {}
    for name in ("image", *PYRAMID, "rpn_logits", "rpn_deltas"):
        report[name] = float(np.abs(theirs[name] - ours[name]).max())
    report["proposals found"] = found_share(theirs["proposals"], ours["proposals"])
    pairs = matched(theirs, ours)
    report["detections"] = len(theirs["labels"])
    report["classes"] = len(set(theirs["labels"].tolist()))
    report["lost"] = len(theirs["labels"]) - len(pairs)
    report["extra"] = len(ours["labels"]) - len(pairs)
    first, second = pairs.T
    with contextlib.suppress(ValueError):  # nothing matched
        report["boxes, pixels"] = float(np.abs(theirs["boxes"][first] - ours["boxes"][second]).max())
        report["scores"] = float(np.abs(theirs["scores"][first] - ours["scores"][second]).max())
        report["masks 28x28"] = float(
            np.abs(theirs["molded_masks"][first] - ours["molded_masks"][second]).max()
        )
    if len(ours["masks"]) == len(ours["labels"]):
        ious = mask_ious(theirs["masks"][first], ours["masks"][second])
        report["mask IoU, least"] = float(ious.min(initial=1.0))
        report["masks below 0.99"] = int((ious < 0.99).sum())
    return report


def mask_ious(masks1, masks2):
    """IoU of the masks bool [N, h, w] of each pair; 1 for two empty ones."""
    intersection = (masks1 & masks2).sum(axis=(1, 2))
    union = (masks1 | masks2).sum(axis=(1, 2))
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))

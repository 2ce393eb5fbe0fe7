"""From pictures to detections: mold, run the compiled graphs, bring the results back to each picture.

The masks are a second call, for the detections that exist and each one's own class only: the numbers are
those of the whole graph, which computes every class for every possible detection.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import calls as execution
from mrcnn.backend import torch_ops
from mrcnn.fast import fold_batch_norm, inplace_relu, native_roi_align
from mrcnn.geometry import boxes, images, masks
from mrcnn.geometry import preprocessing as pictures_geometry
from mrcnn.geometry.image_meta import compose_image_meta
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.network import graphs

# Where each shape is compiled by itself, the mask head is compiled for these numbers of detections; larger
# ones are multiples of the last.
MASK_BATCHES = (1, 4, 8, 16, 24, 32)

# How detect() gives masks: of the whole picture, inside their boxes, or as run lengths.
MASK_FORMS = ("full", "cropped", "rle")

Detection = dict[str, np.ndarray]


def whole_image_config(config: Any) -> Any:
    """A copy of a training Config for detection in one whole image at a time, padded where training crops."""
    config = copy.deepcopy(config)
    config.GPU_COUNT = config.IMAGES_PER_GPU = 1
    if config.IMAGE_RESIZE_MODE == "crop":
        config.IMAGE_RESIZE_MODE = "pad64"
    return config


def mold_inputs(pictures: Sequence[np.ndarray], config: Any) -> tuple[list, list, list]:
    """Resize each picture for the network, subtract the mean and describe it.

    pictures: [h, w, channels], [h, w] for grey, uint8, uint16 or float. Returns lists: molded float images
    [H, W, channels], image metas [12 + classes], windows (y1, x1, y2, x2) in pixels of the molded image.
    Raises ValueError for a picture whose channels do not fit or whose molded sides are no multiples of 64.
    """
    molded, metas, windows = [], [], []
    no_classes = np.zeros([config.NUM_CLASSES], dtype=np.int32)
    for picture in pictures:
        picture = pictures_geometry.as_network_image(picture, config)
        image, window, scale, _, _ = images.resize_image(
            picture,
            min_dim=config.IMAGE_MIN_DIM,
            min_scale=config.IMAGE_MIN_SCALE,
            max_dim=config.IMAGE_MAX_DIM,
            mode=config.IMAGE_RESIZE_MODE,
        )
        images.check_molded_size(image.shape)
        molded.append(images.mold_image(image, config))
        metas.append(compose_image_meta(0, picture.shape, image.shape, window, scale, no_classes))
        windows.append(window)
    return molded, metas, windows


def place_in_image(
    detections: np.ndarray,
    own_masks: np.ndarray,
    original_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, MaskCrops]:
    """Bring one image's detections from the molded image back to the picture.

    detections: [D, 6] normalised, zero rows at the end; own_masks: [N or more, h, w], probabilities of each
    detection's own class; original_shape: (h, w, ...) of the picture; image_shape: of the molded image;
    window: (y1, x1, y2, x2) pixels of the molded image.
    Returns boxes int32 [N, 4] pixels, class ids int32 [N], scores float32 [N], and the masks in their boxes.
    """
    count = count_detections(detections)
    rows = detections[:count]
    class_ids, scores = rows[:, 4].astype(np.int32), rows[:, 5]
    wy1, wx1, wy2, wx2 = boxes.norm_boxes(np.asarray(window), image_shape[:2])
    shift = np.array([wy1, wx1, wy1, wx1])
    scale = np.array([wy2 - wy1, wx2 - wx1, wy2 - wy1, wx2 - wx1])
    pixel_boxes = boxes.denorm_boxes((rows[:, :4] - shift) / scale, original_shape[:2])

    kept = np.flatnonzero((pixel_boxes[:, 2:] > pixel_boxes[:, :2]).all(axis=1))
    crops = tuple(masks.unmold_crop(own_masks[index], pixel_boxes[index]) for index in kept)
    placed = MaskCrops((original_shape[0], original_shape[1]), pixel_boxes[kept], crops)
    return pixel_boxes[kept], class_ids[kept], scores[kept], placed


def masks_in_form(crops: MaskCrops, form: str) -> Any:
    """Masks as `MaskRCNN.detect` gives them: form is one of MASK_FORMS.

    "full": bool [h, w, N]. "cropped": the MaskCrops. "rle": N dicts of size [h, w] and counts, COCO's
    compressed run lengths as text, ready for JSON. Raises ValueError for another form.
    """
    check_mask_form(form)
    if form == "full":
        return crops.whole()
    if form == "cropped":
        return crops

    from pycocotools import mask as run_lengths

    size = [int(side) for side in crops.shape]
    records = [{"size": size, "counts": counts} for counts in crops.run_lengths()]
    encoded = run_lengths.frPyObjects(records, *size) if records else []
    return [{"size": size, "counts": code["counts"].decode("ascii")} for code in encoded]


def check_mask_form(form: str) -> None:
    """Raise ValueError if masks have no such form."""
    if form not in MASK_FORMS:
        raise ValueError(f"masks must be one of {MASK_FORMS}. Received: masks={form!r}")


def count_detections(detections: np.ndarray) -> int:
    """How many leading rows of [D, 6] detections are no padding."""
    empty = np.flatnonzero(detections[:, 4] == 0)
    return int(empty[0]) if len(empty) else len(detections)


def _faster_layers(network: keras.Model) -> dict[str, keras.Layer]:
    """Twins of a network's layers, by name, that the backend runs faster and training could not use."""
    if execution.uses_native_kernels():
        return native_roi_align.replacements(network)
    return inplace_relu.replacements(network) if torch_ops.serve() else {}


class Detector:
    """The compiled detector of one inference model.

    graph: a graph of `graphs.inference_graph`; model: the model with its layers; config: its Config.
    device_count: devices that share each batch, in whose scope this is made.
    """

    def __init__(self, graph: graphs.Graph, model: keras.Model, config: Any, device_count: int = 1):
        self.config = config
        self.device_count = device_count
        found = {name: graph.outputs[name] for name in ("mrcnn_detection", "P2", "P3", "P4", "P5")}
        masks_graph = graphs.own_mask_graph(model, config)
        networks = [keras.Model(graph.inputs, found), keras.Model(masks_graph.inputs, masks_graph.outputs)]
        self._networks = [
            fold_batch_norm.FoldedNetwork(network, _faster_layers(network)) for network in networks
        ]
        self._find = execution.compiled(self._networks[0].model)
        self._outline = execution.compiled(self._networks[1].model, open_shapes=True)
        execution.give_back_host_memory()

    def run(
        self,
        molded: Sequence[np.ndarray],
        metas: Sequence[np.ndarray],
        anchors_of: Callable[[tuple[int, ...]], np.ndarray],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Detections [D, 6] and own-class masks [N, h, w] of each molded image, in order.

        molded: images of any sizes; metas: their image metas; anchors_of: from the shape of an image to its
        anchors [A, 4] normalised. Images of one size run together, and each size compiles once.
        """
        for network in self._networks:
            network.refresh()
        by_shape: dict[tuple, list[int]] = {}
        for index, image in enumerate(molded):
            by_shape.setdefault(image.shape, []).append(index)
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for shape, indices in by_shape.items():
            images, their_metas = [molded[i] for i in indices], [metas[i] for i in indices]
            found.update(zip(indices, self._run_size(images, their_metas, anchors_of(shape)), strict=True))
        return [found[index] for index in range(len(molded))]

    def _run_size(self, molded: list, metas: list, anchors: np.ndarray) -> Iterator[tuple]:
        """Batches of config.IMAGES_PER_GPU for each device, the last one filled up."""
        images_each = min(self.config.IMAGES_PER_GPU, -(-len(molded) // self.device_count))
        size = images_each * self.device_count
        for start in range(0, len(molded), size):
            here = range(start, min(start + size, len(molded)))
            rows = [*here, *[here[-1]] * (size - len(here))]
            detections, own_masks = self._run_batch(
                np.stack([molded[row] for row in rows]).astype(np.float32),
                np.stack([metas[row] for row in rows]).astype(np.float32),
                np.broadcast_to(anchors, (size, *anchors.shape)),
            )
            for row in range(len(here)):
                yield detections[row], own_masks[row]

    def _run_batch(self, molded, metas, anchors) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._find({"input_image": molded, "input_image_meta": metas, "input_anchors": anchors})
        detections = execution.to_numpy(outputs.pop("mrcnn_detection"))
        most = max(count_detections(rows) for rows in detections)
        if not most:
            return detections, np.zeros((len(detections), 0, *self.config.MASK_SHAPE), np.float32)
        places = self._mask_places(most)
        chosen = np.zeros((len(detections), places, 6), np.float32)
        chosen[:, : detections.shape[1]] = detections[:, :places]
        masks_of = self._outline({**outputs, "input_image_meta": metas, "detections": chosen})
        return detections, execution.to_numpy(masks_of["mrcnn_mask"])

    def _mask_places(self, count: int) -> int:
        """How many masks to compute for `count` detections: a few sizes where each is compiled by itself."""
        if self.config.TRAIN_BN is True:  # every place is part of the batch's statistics
            return self.config.DETECTION_MAX_INSTANCES
        if self.device_count == 1 and not execution.compiles_with_xla():
            return count
        for places in MASK_BATCHES:
            if count <= places:
                return places
        return -(-count // MASK_BATCHES[-1]) * MASK_BATCHES[-1]

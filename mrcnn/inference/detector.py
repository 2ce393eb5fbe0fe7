"""The detector: it prepares inputs, runs the compiled network and converts the outputs.

The network runs in two compiled calls. The box network computes the detections and the pyramid; then the mask
network computes one mask per detection (see `mask_branch`).

Axes: B images of a batch, A anchors, D slots for detections, N detections of one image, h and w cells of a
mask.
"""

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mrcnn import backend
from mrcnn.geometry import preprocessing
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.inference import outputs
from mrcnn.inference.inputs import MoldedImage, mold_inputs, on_ladder
from mrcnn.inference.mask_branch import LEVELS, mask_branch
from mrcnn.inference.outputs import Detections, count_detections
from mrcnn.inference.test_time_augmentation import detect_with_options
from mrcnn.network.graphs import Graph
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config

try:
    from mrcnn import fast
except ImportError:
    if importlib.util.find_spec("mrcnn.fast"):
        raise
    fast = None  # type: ignore[assignment]  # the package works without the folder, only slower

# XLA compiles the mask network for these numbers of detections; larger ones are multiples of the last.
MASK_SLOTS = (1, 4, 8, 16, 24, 32)

# Number of most recently used sizes that stay compiled, if each size of molded images compiles separately.
KEPT_SIZES = 16

# Settings that the network holds as constants of a layer: layer, attribute, setting.
LAYER_SETTINGS = (
    ("ROI", "nms_threshold", "RPN_NMS_THRESHOLD"),
    ("ROI", "pre_nms_limit", "PRE_NMS_LIMIT"),
    ("ROI", "proposal_count", "POST_NMS_ROIS_INFERENCE"),
    ("mrcnn_detection", "min_confidence", "DETECTION_MIN_CONFIDENCE"),
    ("mrcnn_detection", "nms_threshold", "DETECTION_NMS_THRESHOLD"),
    ("mrcnn_detection", "max_instances", "DETECTION_MAX_INSTANCES"),
)


def update_layer_settings(model: keras.Model, config: "Config") -> bool:
    """Update the LAYER_SETTINGS of an inference model from its Config.

    Returns:
        Whether a setting changed. If so, compiled calls still use the old value.

    Raises:
        ValueError: If the changed Config is not valid. The model then keeps its settings.
    """
    changes = []
    for layer_name, attribute, setting in LAYER_SETTINGS:
        layer = model.get_layer(layer_name)
        value = getattr(config, setting)
        if value != getattr(layer, attribute):
            changes.append((layer, attribute, value))
    if changes:
        config.validate()
    for layer, attribute, value in changes:
        setattr(layer, attribute, value)
    return bool(changes)


@dataclass
class _Networks:
    """The box network and the mask network, compiled for one size of molded images or for all.

    Attributes:
        is_compiled: Whether a call has returned, so that other threads need not wait for the compiler.
    """

    boxes: Callable[..., dict[str, Any]]
    masks: Callable[..., dict[str, Any]]
    is_compiled: bool = False


class Detector:
    """The compiled detector of one inference model.

    It always uses the current weights of the model. Several threads may use it at once.

    Args:
        graph: The graph of the model, from `graphs.inference_graph`.
        model: The Keras model of that graph.
        config: The Config of the model.
        anchors: The anchors of that Config.
        device_count: Devices that share each batch. Create the detector in their scope.
    """

    def __init__(
        self,
        graph: Graph,
        model: keras.Model,
        config: "Config",
        anchors: AnchorCache,
        device_count: int = 1,
    ) -> None:
        self.config = config
        self.anchors = anchors
        self.device_count = device_count
        self._input_shape = graph.inputs["input_image"].shape[1:]
        box_outputs = {name: graph.outputs[name] for name in ("mrcnn_detection", *LEVELS)}
        branch = mask_branch(model, config)
        self._box_model, self._refresh_boxes = _faster(keras.Model(graph.inputs, box_outputs), config)
        self._mask_model, self._refresh_masks = _faster(keras.Model(branch.inputs, branch.outputs), config)
        self._lock = threading.Lock()
        self.compile()
        backend.give_back_host_memory()

    def compile(self) -> None:
        """Recompile at the next call, with the current settings of the layers."""
        self._networks: OrderedDict[tuple[int, ...] | None, _Networks] = OrderedDict()

    def _takes_all_sizes(self) -> bool:
        """Return whether one compilation serves molded images of all sizes."""
        return backend.sizes_may_vary() and self.device_count == 1

    def _networks_of(self, shape: tuple[int, ...]) -> _Networks:
        """The networks for molded images of one shape. Call it with the lock held."""
        takes_all_sizes = self._takes_all_sizes()
        key = None if takes_all_sizes else shape
        if key not in self._networks:
            open_sides = takes_all_sizes and None in self._input_shape
            self._networks[key] = _Networks(
                backend.compiled(self._box_model, open_shapes=open_sides),
                backend.compiled(self._mask_model, open_shapes=True),
            )
            if len(self._networks) > KEPT_SIZES:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return self._networks[key]

    def detect(
        self,
        images: Sequence[Image],
        mask_form: str = "full",
        show: Callable[[Sequence[MoldedImage]], None] | None = None,
        config: "Config | None" = None,
    ) -> list[Detections]:
        """Detect in images of any sizes, with the options of the Config.

        Args:
            images: Arrays [height, width, channels], or gray [height, width].
            mask_form: One of `outputs.MASK_FORMS`.
            show: A function to call with the molded images of the first view of each image.
            config: Settings of the images and of the batches, in place of those of the model.

        Returns:
            The detections of each image, in order.
        """
        views_to_show = [] if show is None else [show]
        config = config or self.config

        def detect_view(view: Sequence[Image]) -> list[Detections]:
            molded = mold_inputs(view, config)
            if views_to_show:
                views_to_show.pop()(molded)
            return self.detect_molded(molded, config.IMAGES_PER_GPU)

        results = detect_with_options(detect_view, images, config)
        return [outputs.with_mask_form(detections, mask_form) for detections in results]

    def detect_molded(
        self, molded: Sequence[MoldedImage], images_per_device: int | None = None
    ) -> list[Detections]:
        """Detect in molded images of any sizes.

        Images of one size run together, in batches of IMAGES_PER_GPU per device. TensorFlow compiles once for
        all sizes, PyTorch never. JAX, XLA and several devices compile for each size, and keep KEPT_SIZES;
        for them, images are padded to few sizes (see `inputs.on_ladder`).

        Args:
            molded: The images.
            images_per_device: Images per device in a batch; IMAGES_PER_GPU by default.

        Returns:
            The detections of each image, in order, with masks as MaskCrops.

        Raises:
            ValueError: If an image does not have the size that the network was built for, or its values are
                not finite or beyond `preprocessing.LARGEST_VALUE`.
        """
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for image in molded:
            self._check_shape(image.pixels.shape)
            preprocessing.check_values(image.pixels)
        if None in self._input_shape and not self._takes_all_sizes():
            molded = [on_ladder(image, self.config) for image in molded]
        for index, image in enumerate(molded):
            by_shape.setdefault(image.pixels.shape, []).append(index)
        with self._lock:
            self._refresh_boxes()
            self._refresh_masks()
        results: dict[int, Detections] = {}
        for shape, indices in by_shape.items():
            same_size = [molded[index] for index in indices]
            with self._lock:
                networks = self._networks_of(shape)
            # The first call compiles, which is work for one thread.
            with nullcontext() if networks.is_compiled else self._lock:
                raw = list(self._run(networks, same_size, images_per_device or self.config.IMAGES_PER_GPU))
                networks.is_compiled = True
            for index, image, (detections, class_masks) in zip(indices, same_size, raw, strict=True):
                results[index] = outputs.unmold(detections, class_masks, image)
        return [results[index] for index in range(len(molded))]

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        fits = len(shape) == 3 and all(
            expected in (None, side) for expected, side in zip(self._input_shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                "The molded image must have the shape for which the network was built, "
                f"{self._input_shape}. Received: {shape}. Build a new MaskRCNN after you change an "
                "IMAGE_* setting."
            )

    def _run(
        self, networks: _Networks, molded: Sequence[MoldedImage], most: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield detections [D, 6] and masks [N, h, w] of images of one size, at most `most` per device.

        The last batch is filled up.
        """
        shape = molded[0].pixels.shape
        anchors = self.anchors.normalized(shape)
        images_per_device = min(most, -(-len(molded) // self.device_count))
        batch_size = images_per_device * self.device_count
        for start in range(0, len(molded), batch_size):
            part = molded[start : start + batch_size]
            batch = [*part, *[part[-1]] * (batch_size - len(part))]
            detections, class_masks = self._run_batch(
                networks,
                np.stack([image.pixels for image in batch]).astype(np.float32),
                np.stack([image.meta for image in batch]).astype(np.float32),
                np.broadcast_to(anchors, (batch_size, *anchors.shape)),
            )
            yield from zip(detections[: len(part)], class_masks[: len(part)], strict=True)

    def _run_batch(
        self, networks: _Networks, pixels: np.ndarray, metas: np.ndarray, anchors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Detections [B, D, 6] and their masks [B, slots, h, w] of one batch."""
        values = networks.boxes({"input_image": pixels, "input_image_meta": metas, "input_anchors": anchors})
        detections = backend.to_numpy(values.pop("mrcnn_detection"))
        count = max(count_detections(rows) for rows in detections)
        if count == 0:
            return detections, np.zeros((len(detections), 0, *self.config.MASK_SHAPE), np.float32)
        slots = self._mask_slots(count)
        rows = np.zeros((len(detections), slots, 6), np.float32)
        rows[:, : detections.shape[1]] = detections[:, :slots]
        mask_values = networks.masks({**values, "input_image_meta": metas, "detections": rows})
        return detections, backend.to_numpy(mask_values["mrcnn_mask"])

    def _mask_slots(self, count: int) -> int:
        """Return how many masks to compute for `count` detections: one of few numbers if each compiles."""
        if self.config.TRAIN_BN is True:  # batch norm takes its statistics over all slots
            return self.config.DETECTION_MAX_INSTANCES
        if self.device_count == 1 and not backend.compiles_with_xla():
            return count
        return padded_slot_count(count)


def padded_slot_count(count: int) -> int:
    """Return the smallest of the MASK_SLOTS, or multiple of the last one, that holds `count` detections."""
    for slots in MASK_SLOTS:
        if count <= slots:
            return slots
    return -(-count // MASK_SLOTS[-1]) * MASK_SLOTS[-1]


def _faster(network: keras.Model, config: "Config") -> tuple[keras.Model, Callable[[], None]]:
    """Return the network with fast paths, and a function that copies changed weights to it."""
    if fast is None or not config.FAST_PATHS:
        return network, lambda: None
    return fast.for_inference(network)

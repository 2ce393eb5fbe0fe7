"""The detector: it prepares inputs, runs the compiled network and converts the outputs.

The network runs in two compiled calls. The box network computes the detections and the pyramid; then the mask
network computes one mask per detection (see `mask_branch`).

Axes: B images of a batch, A anchors, D slots for detections, N detections of one image, h and w cells of a
mask.
"""

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mrcnn import backend
from mrcnn.errors import IMAGE_ERRORS
from mrcnn.geometry import preprocessing
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.inference import outputs
from mrcnn.inference.compiling import announced
from mrcnn.inference.inputs import MoldedImage, as_image, mold_inputs, on_ladder
from mrcnn.inference.mask_branch import LEVELS, mask_branch
from mrcnn.inference.outputs import count_detections
from mrcnn.inference.reduced_images import ReducedImage
from mrcnn.inference.test_time_augmentation import detect_with_options, has_options
from mrcnn.network.graphs import Graph
from mrcnn.results.detections import Detections
from mrcnn.threads import default_threads, in_order
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

# An image of a stream waits for others of its size until so many batches of other images have overtaken it.
WINDOW_BATCHES = 4

# Settings that the network holds as constants of a layer: layer, attribute, setting.
LAYER_SETTINGS = (
    ("ROI", "nms_threshold", "RPN_NMS_THRESHOLD"),
    ("ROI", "pre_nms_limit", "PRE_NMS_LIMIT"),
    ("ROI", "proposal_count", "POST_NMS_ROIS_INFERENCE"),
    ("mrcnn_detection", "min_confidence", "DETECTION_MIN_CONFIDENCE"),
    ("mrcnn_detection", "nms_threshold", "DETECTION_NMS_THRESHOLD"),
    ("mrcnn_detection", "max_instances", "DETECTION_MAX_INSTANCES"),
    ("mrcnn_detection", "soft_nms_sigma", "SOFT_NMS_SIGMA"),
)


def update_layer_settings(model: keras.Model, config: "Config") -> bool:
    """Update LAYER_SETTINGS and DETECTIONS_PER_CLASS of an inference model from its Config.

    Returns:
        Whether a setting changed. If so, compiled calls still use the old value.

    Raises:
        ValueError: If the changed Config is not valid. The model then keeps its settings.
    """
    values = [(layer, attribute, getattr(config, setting)) for layer, attribute, setting in LAYER_SETTINGS]
    values.append(("mrcnn_detection", "per_class", config.conventions().detections_per_class))
    layers = {layer.name: layer for layer in model.layers}  # once: Keras makes this list at each access
    changes = []
    for layer_name, attribute, value in values:
        layer = layers[layer_name]
        if value != getattr(layer, attribute):
            changes.append((layer, attribute, value))
    if changes:
        config.validate("inference")
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


@dataclass
class _Output:
    """What the network found in one image.

    Attributes:
        index: The number of the image.
        image: The image, or the error of an image that cannot be used, without the rest.
        detections: [D, 6].
        class_masks: [N, h, w].
    """

    index: int
    image: MoldedImage | Exception
    detections: np.ndarray = field(default_factory=lambda: np.zeros((0, 6), np.float32))
    class_masks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


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
        self._xla = _xla_choice(config)
        box_outputs = {name: graph.outputs[name] for name in ("mrcnn_detection", *LEVELS)}
        branch = mask_branch(model, config)
        self._box_model, self._refresh_boxes = _faster(keras.Model(graph.inputs, box_outputs), config)
        self._mask_model, self._refresh_masks = _faster(keras.Model(branch.inputs, branch.outputs), config)
        self._lock = threading.Lock()
        self.compile()
        backend.give_back_host_memory()
        if backend.RUNS_EAGERLY:  # feature maps come and go layer by layer
            backend.keep_host_memory(large_blocks=True)

    def compile(self) -> None:
        """Recompile at the next call, with the current settings of the layers."""
        self._networks: OrderedDict[tuple[int, ...] | None, _Networks] = OrderedDict()

    def _takes_all_sizes(self) -> bool:
        """Return whether one compilation serves molded images of all sizes."""
        return backend.sizes_may_vary(self._xla) and self.device_count == 1

    def _networks_of(self, shape: tuple[int, ...]) -> _Networks:
        """Return the networks for molded images of one shape. Call it with the lock held."""
        takes_all_sizes = self._takes_all_sizes()
        key = None if takes_all_sizes else shape
        if key not in self._networks:
            open_sides = takes_all_sizes and None in self._input_shape
            self._networks[key] = _Networks(
                backend.compiled(self._box_model, open_shapes=open_sides, xla=self._xla),
                backend.compiled(self._mask_model, open_shapes=True, xla=self._xla),
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
        config = config or self.config
        batch_size = config.IMAGES_PER_GPU * self.device_count
        views_to_show = [] if show is None else [show]

        def mold(image: Image) -> MoldedImage:
            return self._checked(mold_inputs([image], config)[0])

        def detect_view(view: Sequence[Image], form: str = "cropped") -> list[Detections]:
            molded: Iterable[MoldedImage] = self._prepared(mold, view, batch_size, len(view))
            if views_to_show:
                molded = list(molded)
                views_to_show.pop()(molded)
            return list(self._detected(molded, len(view), batch_size, mask_form=form))

        if not has_options(config):
            return detect_view(images, mask_form)
        results = detect_with_options(detect_view, images, config)
        return [outputs.with_mask_form(detections, mask_form) for detections in results]

    def stream(
        self,
        images: Iterable[Image | ReducedImage | Callable[[], Image | ReducedImage]],
        mask_form: str = "full",
        *,
        with_errors: bool = False,
    ) -> Iterator[Any]:
        """Detect in any number of images, of which a few are in memory at a time.

        The network runs in the thread of the caller. Other threads read and prepare the next images, and
        paste the masks of the last ones.

        Args:
            images: Arrays or reduced images, or functions that return one, which are called in threads.
            mask_form: One of `outputs.MASK_FORMS`.
            with_errors: Whether to yield the error of an image that cannot be used, and to go on.

        Yields:
            The detections of each image, in order.
        """

        def caught(function: Callable[[Any], Any], item: Any) -> Any:
            try:
                return function(item)
            except IMAGE_ERRORS as error:
                if not with_errors:
                    raise
                return error

        def read(image: Any) -> Any:
            return as_image(image() if callable(image) else image)

        def mold(image: Any) -> MoldedImage:
            return self._checked(mold_inputs([read(image)], self.config)[0])

        def detect(image: Any) -> Detections:
            return self.detect([read(image)], mask_form)[0]

        if has_options(self.config):
            yield from map(partial(caught, detect), images)
            return
        batch_size = self.config.IMAGES_PER_GPU * self.device_count
        molded = self._prepared(partial(caught, mold), images, batch_size)
        window = WINDOW_BATCHES * batch_size
        yield from self._detected(molded, None, batch_size, mask_form=mask_form, window=window)

    def detect_molded(
        self, molded: Sequence[MoldedImage], images_per_device: int | None = None
    ) -> list[Detections]:
        """Detect in molded images of any sizes.

        Images of one size run together, in batches of IMAGES_PER_GPU per device. TensorFlow compiles once for
        all sizes, PyTorch never. JAX, XLA and several devices compile for each size, and keep KEPT_SIZES.
        With PAD_TO_FEW_SIZES, images are then padded to few sizes (see `inputs.on_ladder`).

        Args:
            molded: The images.
            images_per_device: Images per device in a batch; IMAGES_PER_GPU by default.

        Returns:
            The detections of each image, in order, with masks as MaskCrops.

        Raises:
            ValueError: If an image does not have the size that the network was built for, or its values are
                not finite or beyond `preprocessing.LARGEST_VALUE`.
        """
        checked = [self._checked(image) for image in molded]
        batch_size = (images_per_device or self.config.IMAGES_PER_GPU) * self.device_count
        return list(self._detected(checked, len(checked), batch_size))

    def _detected(
        self,
        molded: Iterable[MoldedImage | Exception],
        count: int | None,
        batch_size: int,
        *,
        mask_form: str = "cropped",
        window: int | None = None,
    ) -> Iterator[Any]:
        """Yield the detections of each image, in order; of an error, the error.

        Args:
            molded: The images, checked.
            count: Their number, if it is known.
            batch_size: Images of a full batch, on all devices.
            mask_form: One of `outputs.MASK_FORMS`.
            window: See `_network_outputs`.
        """

        def finish(item: _Output) -> tuple[int, Detections | Exception]:
            if isinstance(item.image, Exception):
                return item.index, item.image
            found = outputs.unmold(item.detections, item.class_masks, item.image)
            return item.index, outputs.with_mask_form(found, mask_form)

        raw = self._network_outputs(molded, batch_size, window)
        finished = map(finish, raw) if count == 1 else in_order(finish, raw, ahead=batch_size + 1)
        waiting: dict[int, Detections | Exception] = {}
        following = 0
        for index, found in finished:
            waiting[index] = found
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    def _network_outputs(
        self, molded: Iterable[MoldedImage | Exception], batch_size: int, window: int | None = None
    ) -> Iterator["_Output"]:
        """Run the network as soon as a batch of images of one size is complete.

        Args:
            molded: See `_detected`.
            batch_size: Images of a full batch, on all devices.
            window: The most images by which others may overtake an image that waits for its batch; None if
                that does not matter.
        """
        with self._lock:
            self._refresh_boxes()
            self._refresh_masks()
        waiting: dict[tuple[int, ...], list[tuple[int, MoldedImage]]] = {}  # by size, in order
        filled: set[tuple[int, ...]] = set()

        def run(shape: tuple[int, ...]) -> Iterator[_Output]:
            group = waiting.pop(shape)
            smallest = -(-len(group) // self.device_count) * self.device_count
            return self._run(group, batch_size if shape in filled else smallest)

        for index, image in enumerate(molded):
            if isinstance(image, Exception):
                yield _Output(index, image)
                continue
            shape = image.pixels.shape
            group = waiting.setdefault(shape, [])
            group.append((index, image))
            if len(group) == batch_size:
                filled.add(shape)
                yield from run(shape)
            late = [shape for shape, group in waiting.items() if window and index - group[0][0] >= window]
            for shape in late:
                yield from run(shape)
        for shape in list(waiting):
            yield from run(shape)

    def _prepared(
        self, mold: Callable[[Any], Any], images: Iterable[Any], batch_size: int, count: int | None = None
    ) -> Iterator[Any]:
        """Mold images, in threads unless there is one image alone; a batch is ready beside those in work."""
        if count == 1:
            return map(mold, images)
        return in_order(mold, images, ahead=default_threads() + batch_size)

    def _checked(self, image: MoldedImage) -> MoldedImage:
        """Return a molded image that the network can take, padded where PAD_TO_FEW_SIZES says so."""
        self._check_shape(image.pixels.shape)
        preprocessing.check_values(image.pixels)
        if self.config.PAD_TO_FEW_SIZES and None in self._input_shape and not self._takes_all_sizes():
            return on_ladder(image, self.config)
        return image

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

    def _run(self, group: Sequence[tuple[int, MoldedImage]], batch_size: int) -> Iterator["_Output"]:
        """Run the network on images of one size, with their numbers, in a batch that is filled up."""
        images = [image for _, image in group]
        batch = [*images, *[images[-1]] * (batch_size - len(images))]
        shape = images[0].pixels.shape
        anchors = self.anchors.normalized(shape)
        with self._lock:
            networks = self._networks_of(shape)
        with nullcontext() if networks.is_compiled else self._compiling(shape):
            detections, class_masks = self._run_batch(
                networks,
                np.stack([image.pixels for image in batch]).astype(np.float32, copy=False),
                np.stack([image.meta for image in batch]).astype(np.float32, copy=False),
                np.broadcast_to(anchors, (batch_size, *anchors.shape)),
            )
            networks.is_compiled = True
        for row, (index, image) in enumerate(group):
            yield _Output(index, image, detections[row], class_masks[row])

    @contextmanager
    def _compiling(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Return the context of the first call, which compiles. That is work for one thread."""
        with self._lock, nullcontext() if backend.RUNS_EAGERLY else announced(shape):
            yield

    def _run_batch(
        self, networks: _Networks, pixels: np.ndarray, metas: np.ndarray, anchors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return detections [B, D, 6] and their masks [B, slots, h, w] of one batch."""
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
        if self.device_count == 1 and backend.sizes_may_vary(self._xla):
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
    return fast.for_inference(network, xla=_xla_choice(config))


def _xla_choice(config: "Config") -> bool | None:
    """Return whether to compile detection with XLA; see `backend.compiles_with_xla`."""
    return None if backend.RUNS_EAGERLY else config.JIT_COMPILE

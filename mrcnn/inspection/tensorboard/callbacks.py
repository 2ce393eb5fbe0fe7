"""Callbacks that show more of a training in TensorBoard than the losses and the learning rate.

`MaskRCNN.train` always writes the losses by name, for training and validation, and the learning rate. To add
more, pass these callbacks as `custom_callbacks`: all from `tensorboard_callbacks`, or some of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import keras
import numpy as np

from mrcnn import backend
from mrcnn.checkpoints import weights
from mrcnn.data.generator import DataGenerator
from mrcnn.errors import IMAGE_ERRORS, LeftOutWarning
from mrcnn.geometry import masks as mask_geometry
from mrcnn.inspection.tensorboard.event_files import EventFile
from mrcnn.inspection.tensorboard.network_graph import network_graph
from mrcnn.visualize import overlays
from mrcnn.visualize.captions import with_heading
from mrcnn.visualize.weight_statistics import weight_statistics

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset
    from mrcnn.model import MaskRCNN

LARGEST_SIDE = 640  # pixels of an image in an event file
SMALLEST_SIDE = 320  # smaller images are magnified, so that captions are legible


class EventCallback(keras.callbacks.Callback):
    """Base class of callbacks that write to an event file at the end of epochs.

    The file is in the subfolder `folder` of the model's run folder. If several processes train together, only
    the first one writes.

    Args:
        model: The MaskRCNN that trains.
        every: Number of epochs between writes.
    """

    folder = ""

    def __init__(self, model: MaskRCNN, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be a number of epochs, at least 1. Received: every={every}")
        self.mask_rcnn = model
        self.every = every
        self._events: EventFile | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the event file, and close that of a training that has ended with an error."""
        self.on_train_end()
        if self.mask_rcnn.devices.is_first_process:
            self._events = EventFile(f"{self.mask_rcnn.log_dir}/{self.folder}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the events after every `every`-th epoch; `epoch` counts from 0."""
        if (epoch + 1) % self.every == 0 and self._events is not None:
            self.write(self._events, epoch)
            self._events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def write(self, events: EventFile, epoch: int) -> None:
        """Write the events of an epoch, counted from 0."""
        raise NotImplementedError


class DetectionImages(EventCallback):
    """Write images of the ground truth beside the detections.

    The inference network is built once. Before each use, the weights of the training network are copied to it
    by layer name. An image that cannot be drawn is left out from then on, with a warning.

    Args:
        model: The MaskRCNN that trains.
        dataset: A prepared Dataset, usually the validation set.
        image_ids: Ids of images of the dataset. By default `limit` evenly spaced ids.
        limit: Number of images if `image_ids` is not given.
        config: Config of the inference network; by default that of `MaskRCNN.inference_model`.
        every: Number of epochs between writes.
    """

    folder = "detections"

    def __init__(
        self,
        model: MaskRCNN,
        dataset: Dataset,
        image_ids: Sequence[int] | None = None,
        *,
        limit: int = 4,
        config: Config | None = None,
        every: int = 1,
    ):
        super().__init__(model, every)
        self.dataset = dataset
        known = np.asarray(dataset.image_ids)
        spaced = np.linspace(0, len(known) - 1, min(limit, len(known))).astype(int)
        self.image_ids = list(known[spaced] if image_ids is None else image_ids)
        self.config = config
        self.detector: MaskRCNN | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the event file and build the inference network."""
        super().on_train_begin(logs)
        if self.detector is None:
            self.detector = self.mask_rcnn.inference_model(self.config)

    def write(self, events: EventFile, epoch: int) -> None:
        """Write one image per id.

        Warns:
            LeftOutWarning: If images cannot be drawn, with their number and the first error.
        """
        assert self.detector is not None  # on_train_begin builds it
        self.detector.copy_weights(self.mask_rcnn)
        broken: dict[int, Exception] = {}
        for image_id in self.image_ids:
            tag = f"ground truth and detections/{self.dataset.image_info[image_id]['id']}"
            try:
                drawn = self.draw(image_id)
            except IMAGE_ERRORS as error:
                broken[image_id] = error
            else:
                events.add_image(tag, drawn, epoch)
        if broken:
            warnings.warn(
                f"{len(broken)} of {len(self.image_ids)} images cannot be drawn, and are left out of "
                f"TensorBoard. The first error is: {next(iter(broken.values()))}",
                LeftOutWarning,
                stacklevel=2,
            )
            self.image_ids = [image_id for image_id in self.image_ids if image_id not in broken]

    def draw(self, image_id: int) -> np.ndarray:
        """Draw ground truth and detections side by side, or stacked if the image is wide.

        Returns:
            An RGB image [H, W, 3], uint8.

        Raises:
            DataError, OSError: If the image or its masks cannot be read, or the image does not fit the
                network.
        """
        assert self.detector is not None  # on_train_begin builds it
        image = self.dataset.load_image(image_id)
        masks, class_ids = self.dataset.load_mask(image_id)
        names = self.dataset.class_names
        result = self.detector.detect([image])[0]
        height, width = image.shape[:2]
        scale = max(1, round(SMALLEST_SIDE / max(height, width)))
        truth = overlays.overlay_instances(
            image, mask_geometry.extract_bboxes(masks), masks, class_ids, names, scale=scale
        )
        detected = overlays.overlay_instances(
            image,
            result["rois"],
            result["masks"],
            result["class_ids"],
            names,
            result["scores"],
            scale=scale,
        )
        parts = [
            with_heading(_shrink(part, LARGEST_SIDE), heading)
            for part, heading in ((truth, "ground truth"), (detected, "detections"))
        ]
        return np.concatenate(parts, axis=0 if width > height else 1)


class WeightHistograms(EventCallback):
    """Write a histogram of all values of every weight tensor, the RPN's included.

    Args:
        model: The MaskRCNN that trains.
        every: Number of epochs between writes.
    """

    folder = "weights"

    def write(self, events: EventFile, epoch: int) -> None:
        """Write one histogram per tensor."""
        for tensor in weight_statistics(self.mask_rcnn):
            events.add_histogram(tensor.name, tensor.values, epoch)


class GradientHistograms(EventCallback):
    """Write a histogram of the gradient of the loss for every trainable weight, for one batch.

    Each time, this takes a forward and a backward pass, and once a compilation on TensorFlow and JAX. Nothing
    is written if several devices share a batch.

    Args:
        model: The MaskRCNN that trains.
        dataset: A prepared Dataset. Its first batch is used every time.
        every: Number of epochs between writes.
    """

    folder = "gradients"

    def __init__(self, model: MaskRCNN, dataset: Dataset, every: int = 1):
        super().__init__(model, every)
        self.dataset = dataset
        self._gradients: Any = None
        self.batch: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the event file, load the batch and prepare the gradients."""
        count = self.mask_rcnn.devices.count
        if count > 1:
            warnings.warn(
                "GradientHistograms writes nothing if several devices share a batch. Received: "
                f"GPU_COUNT={count}. To see gradients, train on one device.",
                stacklevel=2,
            )
            return
        super().on_train_begin(logs)
        network = self.mask_rcnn.keras_model
        batches = DataGenerator(self.dataset, self.mask_rcnn.config, shuffle=False, steps=1)
        self.batch = batches[0][0]

        def loss(inputs: Mapping[str, Any]) -> Any:
            return network.total_loss(network.weighted_losses(inputs, network(inputs, training=True)))

        self._gradients = backend.loss_gradients(network, loss)

    def gradients(self) -> list[np.ndarray | None]:
        """Compute the gradients of the batch, in the order of the network's trainable variables."""
        return self._gradients(self.batch)

    def write(self, events: EventFile, epoch: int) -> None:
        """Write one histogram per tensor that the loss depends on."""
        network = self.mask_rcnn.keras_model
        names = {
            id(variable): name.split(":")[0]
            for named in weights.model_weights(network).values()
            for name, variable in named.items()
        }
        for variable, gradient in zip(network.trainable_variables, self.gradients(), strict=True):
            if gradient is not None:
                events.add_histogram(f"{names[id(variable)]} (gradient)", gradient, epoch)


class NetworkGraph(EventCallback):
    """Write the graph of the network once: backbone, pyramid, RPN and heads as boxes of their layers.

    Args:
        model: The MaskRCNN that trains.
    """

    folder = "graph"

    def __init__(self, model: MaskRCNN):
        super().__init__(model)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the event file and write the graph."""
        super().on_train_begin(logs)
        if self._events is not None:
            self._events.add_graph(network_graph(self.mask_rcnn.keras_model))
            self._events.flush()

    def write(self, events: EventFile, epoch: int) -> None:
        """Write nothing: the graph does not change."""


def tensorboard_callbacks(
    model: MaskRCNN,
    dataset: Dataset,
    *,
    images: int = 4,
    weights: bool = True,
    gradients: bool = False,
    graph: bool = True,
    every: int = 1,
) -> list[EventCallback]:
    """Make callbacks that show a training in TensorBoard, for `model.train(..., custom_callbacks=...)`.

    Args:
        model: The MaskRCNN that trains.
        dataset: A prepared Dataset, usually the validation set.
        images: Number of images with detections; 0 for none.
        weights: Whether to write histograms of the weights.
        gradients: Whether to write histograms of the gradients.
        graph: Whether to write the graph of the network.
        every: Number of epochs between writes.

    Returns:
        The callbacks.
    """
    callbacks: list[EventCallback] = []
    if images:
        callbacks.append(DetectionImages(model, dataset, limit=images, every=every))
    if weights:
        callbacks.append(WeightHistograms(model, every))
    if gradients:
        callbacks.append(GradientHistograms(model, dataset, every))
    if graph:
        callbacks.append(NetworkGraph(model))
    return callbacks


def _shrink(image: np.ndarray, largest_side: int) -> np.ndarray:
    """Return the image, resized if its longer side exceeds this length."""
    factor = largest_side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(length * factor)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

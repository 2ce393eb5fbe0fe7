"""Step 6, TensorBoard: what training can show beyond the losses and the learning rate.

`MaskRCNN.train` always writes the losses by name, for training and validation, and the learning rate. These
callbacks add to it; pass them, or all of them from `tensorboard_callbacks`, as custom_callbacks.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import keras
import numpy as np

from mrcnn import backend
from mrcnn.checkpoints import weights
from mrcnn.data.generator import DataGenerator
from mrcnn.geometry import masks as mask_geometry
from mrcnn.inspection.tensorboard.event_files import EventFile
from mrcnn.inspection.tensorboard.network_graph import network_graph
from mrcnn.visualize import captions, overlays
from mrcnn.visualize.weight_statistics import weight_statistics

LARGEST_SIDE = 640  # pixels of a picture in an event file
SMALLEST_SIDE = 320  # smaller pictures are magnified, so that labels are legible


class EventCallback(keras.callbacks.Callback):
    """Write something into an event file at the end of epochs.

    model: the MaskRCNN that trains; the file lies in the sub-folder `folder` of its run folder.
    every: epochs from one time to the next. Of several processes that train together the first writes.
    """

    folder = ""

    def __init__(self, model: Any, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be a number of epochs from 1 on. Received: every={every}")
        self.mask_rcnn = model
        self.every = every
        self._events: EventFile | None = None

    def on_train_begin(self, logs=None):
        if self.mask_rcnn.devices.is_first_process:
            self._events = EventFile(f"{self.mask_rcnn.log_dir}/{self.folder}")

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every == 0 and self._events is not None:
            self.write(self._events, epoch)
            self._events.flush()

    def on_train_end(self, logs=None):
        if self._events is not None:
            self._events.close()
            self._events = None

    def write(self, events: EventFile, epoch: int) -> None:
        """Add what there is to see after an epoch, counted from 0."""
        raise NotImplementedError


class DetectionImages(EventCallback):
    """Pictures of the truth and of what the network finds, after each epoch.

    model, every: see EventCallback. dataset: a prepared Dataset, as a rule the validation set. image_ids: of
    that dataset; by default `limit` ids at equal distances.
    config: of the inference network; by default that of `MaskRCNN.inference_model`. The network is built once
    and gets the weights by layer name.
    """

    folder = "detections"

    def __init__(
        self,
        model: Any,
        dataset: Any,
        image_ids: Sequence[int] | None = None,
        limit: int = 4,
        config: Any = None,
        every: int = 1,
    ):
        super().__init__(model, every)
        self.dataset = dataset
        known = np.asarray(dataset.image_ids)
        places = np.linspace(0, len(known) - 1, min(limit, len(known))).astype(int)
        self.image_ids = list(known[places] if image_ids is None else image_ids)
        self.config = config
        self._detector: Any = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self._detector is None:
            self._detector = self.mask_rcnn.inference_model(self.config)

    def write(self, events: EventFile, epoch: int) -> None:
        """Add a picture for each image."""
        self._detector.copy_weights(self.mask_rcnn)
        for image_id in self.image_ids:
            tag = f"truth and detections/{self.dataset.image_info[image_id]['id']}"
            events.add_image(tag, self.picture(image_id), epoch)

    def picture(self, image_id: int) -> np.ndarray:
        """Truth and detections beside each other, a wide image's one above the other, uint8 RGB [H, W, 3]."""
        image = self.dataset.load_image(image_id)
        masks, class_ids = self.dataset.load_mask(image_id)
        names = self.dataset.class_names
        found = self._detector.detect([image])[0]
        height, width = image.shape[:2]
        scale = max(1, round(SMALLEST_SIDE / max(height, width)))
        truth = overlays.overlay_instances(
            image, mask_geometry.extract_bboxes(masks), masks, class_ids, names, scale=scale
        )
        detected = overlays.overlay_instances(
            image,
            found["rois"],
            found["masks"],
            found["class_ids"],
            names,
            found["scores"],
            scale=scale,
        )
        parts = [
            captions.with_heading(_at_most(picture, LARGEST_SIDE), heading)
            for picture, heading in ((truth, "truth"), (detected, "detections"))
        ]
        return np.concatenate(parts, axis=0 if width > height else 1)


class WeightHistograms(EventCallback):
    """Histograms of every weight tensor, whole, the RPN's among them, after each epoch."""

    folder = "weights"

    def write(self, events: EventFile, epoch: int) -> None:
        """Add a histogram for each tensor."""
        for tensor in weight_statistics(self.mask_rcnn):
            events.add_histogram(tensor.name, tensor.values, epoch)


class GradientHistograms(EventCallback):
    """Histograms of the loss's gradient by each weight that trains, for one batch, after each epoch.

    dataset: a prepared Dataset; the batch is its first, the same each time. Costs a forward and a backward
    pass, and on TensorFlow and JAX one compilation.
    """

    folder = "gradients"

    def __init__(self, model: Any, dataset: Any, every: int = 1):
        super().__init__(model, every)
        self.dataset = dataset
        self._gradients: Any = None
        self._batch: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs=None):
        if self.mask_rcnn.devices.count > 1:
            warnings.warn("There are no gradient histograms where devices share a batch.", stacklevel=2)
            return
        super().on_train_begin(logs)
        network = self.mask_rcnn.keras_model
        batches = DataGenerator(self.dataset, self.mask_rcnn.config, shuffle=False, steps=1)
        self._batch = batches[0][0]

        def loss(inputs):
            return network.total_loss(network.weighted_losses(inputs, network(inputs, training=True)))

        self._gradients = backend.loss_gradients(network, loss)

    def write(self, events: EventFile, epoch: int) -> None:
        """Add a histogram for each tensor that the loss depends on."""
        network = self.mask_rcnn.keras_model
        names = {
            id(variable): name.split(":")[0]
            for named in weights.model_weights(network).values()
            for name, variable in named.items()
        }
        gradients = self._gradients(self._batch)
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            if gradient is not None:
                events.add_histogram(f"{names[id(variable)]} (gradient)", gradient, epoch)


class NetworkGraph(EventCallback):
    """The graph of the network, once: backbone, pyramid, RPN and heads as boxes, their layers inside."""

    folder = "graph"

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self._events is not None:
            self._events.add_graph(network_graph(self.mask_rcnn.keras_model))
            self._events.flush()

    def write(self, events: EventFile, epoch: int) -> None:
        """Nothing: the graph stays as it is."""


def tensorboard_callbacks(
    model: Any,
    dataset: Any,
    images: int = 4,
    weights: bool = True,
    gradients: bool = False,
    graph: bool = True,
    every: int = 1,
) -> list[EventCallback]:
    """Callbacks that show a training in TensorBoard: `model.train(..., custom_callbacks=these)`.

    model: the MaskRCNN that trains. dataset: a prepared Dataset, as a rule the validation set. images: how
    many pictures of detections, 0 for none. weights, gradients, graph: whether to write those. every: epochs
    from one time to the next.
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


def _at_most(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture, made smaller where a side is longer."""
    factor = side / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = [max(1, round(length * factor)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

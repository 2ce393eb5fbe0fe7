"""Targets of the mask head: the target of each positive RoI, the prediction, and the loss of each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import backend, visualize
from mrcnn.inspection.tensors import NetworkInput
from mrcnn.network.losses import EPSILON
from mrcnn.typing import Boxes, ClassIds
from mrcnn.visualize import figures
from mrcnn.visualize.boxes import SOLID
from mrcnn.visualize.captions import class_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN

OUTPUTS = ("output_rois", "target_class_ids", "target_mask", "mrcnn_mask")


@dataclass(frozen=True)
class MaskLosses:
    """The mask loss of the positive RoIs of one image, pixel by pixel.

    Attributes:
        input: The image as the network received it.
        rois: The positive RoIs [P, 4], int32 in its pixels, y2 and x2 exclusive.
        class_ids: Class ids [P] of their objects.
        targets: Mask targets [P, 28, 28] from 0 to 1: the object's mask inside the RoI. They are rounded to 0
            or 1, except with CONVENTIONS = "torchvision".
        predictions: Predicted probabilities [P, 28, 28] for the class of the object. The masks of other
            classes do not count in the loss.
        pixel_losses: Binary cross-entropy [P, 28, 28] of each pixel.
    """

    input: NetworkInput
    rois: Boxes
    class_ids: ClassIds
    targets: np.ndarray
    predictions: np.ndarray
    pixel_losses: np.ndarray

    @property
    def roi_losses(self) -> np.ndarray:
        """The mean over the pixels of each RoI [P]."""
        return np.mean(self.pixel_losses, axis=(1, 2))

    @property
    def loss(self) -> float:
        """The mask loss of this image: the mean over all pixels of all positive RoIs; 0 without any."""
        return float(self.pixel_losses.mean()) if len(self.pixel_losses) else 0.0


def mask_losses(model: MaskRCNN, batch: Mapping[str, np.ndarray], index: int = 0) -> MaskLosses:
    """Run the training network on a batch and compute the mask loss of one image, pixel by pixel.

    The network samples the RoIs and makes their targets as in training (Mask R-CNN, sections 3 and 3.1).
    Batch norm uses its stored statistics, and no weight changes.

    Args:
        model: A MaskRCNN in training mode.
        batch: The inputs of the training network by name, such as `DataGenerator(dataset, config)[0][0]`.
        index: Index of the image in the batch.

    Raises:
        ValueError: If the model is not in training mode.
    """
    if model.mode != "training":
        raise ValueError(
            "mask_losses() needs a model in training mode, because only that one has targets. Received: "
            f'model.mode={model.mode!r}. Build one with the same weights: MaskRCNN("training", config, '
            "model_dir), then load_weights(path) or copy_weights(model)."
        )
    outputs = model.keras_model(dict(batch), training=False)
    rois, class_ids, targets, predictions = (backend.to_numpy(outputs[name])[index] for name in OUTPUTS)
    positive = np.flatnonzero(class_ids[: len(targets)] > 0)
    class_ids, targets = class_ids[positive], targets[positive]
    predictions = predictions[positive, :, :, class_ids]
    network_input = NetworkInput.from_molded(
        batch["input_image"][index], batch["input_image_meta"][index], model.config
    )
    return MaskLosses(
        input=network_input,
        rois=network_input.pixels(rois[positive]),
        class_ids=class_ids,
        targets=targets,
        predictions=predictions,
        pixel_losses=binary_cross_entropy(targets, predictions),
    )


def binary_cross_entropy(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Compute -t log(p) - (1 - t) log(1 - p) for each target t and prediction p.

    Args:
        targets: Array of numbers from 0 to 1.
        predictions: Probabilities p of the same shape.

    Returns:
        The loss of each element, float32. Probabilities are limited as in the network's loss.
    """
    targets = targets.astype(np.float32)
    probabilities = np.clip(predictions.astype(np.float32), EPSILON, 1.0 - EPSILON)
    losses: np.ndarray = -(targets * np.log(probabilities) + (1.0 - targets) * np.log(1.0 - probabilities))
    return losses


def draw_mask_losses(losses: MaskLosses, class_names: Sequence[str], limit: int = 3) -> Figure:
    """Draw, for the positive RoIs with the largest loss: the RoI, its target, the prediction, the loss.

    Args:
        losses: The result of `mask_losses`.
        class_names: A name for each class id, the background first.
        limit: Largest number of RoIs to draw.

    Returns:
        The figure, with four panels per RoI.
    """
    rows = np.argsort(-losses.roi_losses, kind="stable")[:limit]
    figure, axes = figures.panels((1, 1), max(len(rows), 1), 4, side=3)
    height, width = losses.targets.shape[1:3]
    highest = losses.pixel_losses.max(initial=1e-6)
    for (on_image, target, prediction, loss), row in zip(axes, rows, strict=False):
        visualize.draw_boxes(
            losses.input.image,
            boxes=losses.rois[row : row + 1],
            visibilities=[SOLID],
            title=f"positive RoI: {class_name(losses.class_ids[row], class_names)}",
            ax=on_image,
        )
        target.imshow(losses.targets[row], cmap="gray", vmin=0, vmax=1)
        target.set_title(f"target, {height} x {width}")
        prediction.imshow(losses.predictions[row], cmap="gray", vmin=0, vmax=1)
        prediction.set_title("prediction for this class")
        artist = loss.imshow(losses.pixel_losses[row], cmap="inferno", vmin=0, vmax=highest)
        loss.set_title(f"cross-entropy, mean {losses.roi_losses[row]:.3f}")
        figure.colorbar(artist, ax=loss, shrink=0.8)
    return figures.finish(figure, show=False)

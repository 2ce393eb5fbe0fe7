"""SavedModel and LiteRT, written by Keras' exporters on TensorFlow.

A single Keras model pads the images, subtracts the mean, makes anchors and image meta, detects, computes the
masks of the detections, and converts boxes to pixels.

Axes: B images, h and w image, H and W molded image, D detections.
"""

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import layers, ops

from mrcnn import backend
from mrcnn.export import litert_precision
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.inference.mask_branch import LEVELS, mask_branch
from mrcnn.network import parts
from mrcnn.runtime.metadata import FILE_NAME, INPUT, OUTPUTS, Metadata
from mrcnn.typing import Shape, Tensor

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


class MoldImages(layers.Layer):
    """Pad images, and subtract the mean.

    Call with images [B, h, w, C]. Returns molded images [B, H, W, C] and image metas [B, 12 + classes], which
    hold the size and the window.

    Args:
        canvas: (H, W), or None for the next multiples.
        multiple: What H and W are multiples of if `canvas` is None.
        mean: MEAN_PIXEL.
        centered: Pad on all sides with black. Otherwise pad on the right and at the bottom with the mean.
        num_classes: Classes including the background.
    """

    def __init__(
        self,
        canvas: tuple[int, int] | None,
        multiple: int,
        mean: np.ndarray,
        *,
        centered: bool,
        num_classes: int,
    ) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.canvas, self.multiple, self.num_classes = canvas, multiple, num_classes
        self.centered = centered
        self.mean = np.asarray(mean, np.float32)

    def call(self, images: Tensor) -> tuple[Tensor, Tensor]:
        batch, height, width, channels = ops.shape(images)
        sides = [-(-side // self.multiple) * self.multiple for side in (height, width)]
        if self.canvas is not None:
            sides = list(self.canvas)
        top, left = ((sides[0] - height) // 2, (sides[1] - width) // 2) if self.centered else (0, 0)
        padding = (top, sides[0] - height - top), (left, sides[1] - width - left)
        pixels, mean = ops.cast(images, "float32"), ops.convert_to_tensor(self.mean)
        if self.centered:
            pixels = backend.pad_images(pixels, *padding) - mean
        else:
            pixels = backend.pad_images(pixels - mean, *padding)
        pixels = ops.reshape(pixels, (batch, *sides, images.shape[-1]))
        numbers = [0, height, width, channels, *sides, channels, top, left, top + height, left + width, 1]
        meta = ops.pad(backend.float_vector(numbers), ((0, self.num_classes),))
        return pixels, ops.broadcast_to(meta[None], (batch, 12 + self.num_classes))

    def compute_output_spec(self, images: Tensor) -> tuple[Tensor, Tensor]:
        sides = self.canvas or (None, None)
        return (
            keras.KerasTensor((images.shape[0], *sides, images.shape[-1]), "float32"),
            keras.KerasTensor((images.shape[0], 12 + self.num_classes), "float32"),
        )


class UsedSlots(layers.Layer):
    """Detections without the slots that no image of the batch fills; at least one slot is left.

    Call with detections [B, slots, 6]. Returns [B, D, 6].
    """

    def call(self, detections: Tensor) -> Tensor:
        counts = ops.sum(ops.cast(detections[..., 4] > 0.0, "int32"), axis=1)
        return backend.first_rows(detections, ops.maximum(ops.max(counts), 1))

    def compute_output_spec(self, detections: Tensor) -> Tensor:
        return keras.KerasTensor((detections.shape[0], None, 6), "float32")


class ToPixels(layers.Layer):
    """The outputs of an exported file, without the masks, from detections [B, D, 6] and image metas.

    Args:
        half_open: Whether normalized boxes are half-open; see `geometry.boxes`.
    """

    def __init__(self, half_open: bool) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.half_open = half_open

    def call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        detections, image_meta = inputs
        class_ids = ops.cast(detections[..., 4], "int32")
        is_used = class_ids > 0
        height, width, _ = ops.unstack(image_meta[0, meta_fields.IMAGE_SHAPE], num=3)
        top, left, _, _ = ops.unstack(image_meta[0, meta_fields.WINDOW], num=4)
        sides = ops.stack([height, width, height, width])
        if self.half_open:
            boxes = detections[..., :4] * sides
        else:
            boxes = detections[..., :4] * (sides - 1.0) + ops.convert_to_tensor(
                np.array([0, 0, 1, 1], "float32")
            )
        boxes = boxes - ops.stack([top, left, top, left])
        return {
            "boxes": ops.where(is_used[..., None], boxes, 0.0),
            "class_ids": class_ids,
            "scores": detections[..., 5],
            "count": ops.sum(ops.cast(is_used, "int32"), axis=1),
        }

    def compute_output_spec(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        slots = inputs[0].shape[:2]
        return {
            "boxes": keras.KerasTensor((*slots, 4), "float32"),
            "class_ids": keras.KerasTensor(slots, "int32"),
            "scores": keras.KerasTensor(slots, "float32"),
            "count": keras.KerasTensor(slots[:1], "int32"),
        }


class Masked(layers.Layer):
    """Masks [B, D, h, w], zero in slots without a class id [B, D]."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        masks, class_ids = inputs
        return ops.where(class_ids[:, :, None, None] > 0, masks, 0.0)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return input_shape[0]


def whole_network(model: "MaskRCNN", metadata: Metadata, batch: int | None = None) -> keras.Model:
    """Return a Keras model from images to the outputs of an exported file.

    It shares the layers of `model`.

    Args:
        model: A model in inference mode.
        metadata: The description of the file.
        batch: Images of a batch; None for any number.
    """
    config, network = model.config, model.keras_model
    size = metadata.size or (None, None)
    shape = (batch, *size, config.IMAGE_CHANNEL_COUNT)
    images = keras.Input(batch_shape=shape, dtype=metadata.dtype, name=INPUT)
    mold = MoldImages(
        metadata.canvas,
        metadata.multiple,
        config.MEAN_PIXEL,
        centered=metadata.padding == "center",
        num_classes=config.NUM_CLASSES,
    )
    pixels, image_meta = mold(images)
    anchors = parts.anchors(pixels, config)

    pyramid = dict(zip(LEVELS, network.get_layer("roi_align_classifier").input[2:], strict=True))
    detection = network.get_layer("mrcnn_detection").output
    boxes = keras.Model(network.inputs, {"mrcnn_detection": detection, **pyramid})
    branch = mask_branch(network, config)
    masks = keras.Model(branch.inputs, branch.outputs)

    values = boxes([pixels, image_meta, anchors])
    detections = UsedSlots(dtype="float32")(values.pop("mrcnn_detection"))
    found = masks({**values, "input_image_meta": image_meta, "detections": detections})
    outputs = ToPixels(config.conventions().half_open_boxes)([detections, image_meta])
    outputs["masks"] = Masked(dtype="float32", autocast=False)([found["mrcnn_mask"], outputs["class_ids"]])
    return keras.Model(images, {name: outputs[name] for name in OUTPUTS})


def write_saved_model(model: "MaskRCNN", path: Path, metadata: Metadata) -> None:
    """Write a SavedModel with the signature `serving_default`, and the metadata in its assets.extra."""
    _require_tensorflow("saved_model")
    _export(whole_network(model, metadata), path, "tf_saved_model")
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / FILE_NAME).write_text(metadata.to_json(), encoding="utf-8")


def write_litert(model: "MaskRCNN", path: Path, metadata: Metadata) -> None:
    """Write a LiteRT file, with the metadata in an archive at its end, as LiteRT's own metadata are.

    It takes one image at a time: LiteRT has no operators for some layers if both the numbers of images and of
    detections vary.
    """
    _require_tensorflow("litert")
    _export(whole_network(model, metadata, batch=1), path, "litert")
    if metadata.precision != "float32":
        litert_precision.reduce(path, metadata.precision)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FILE_NAME, metadata.to_json())


def _export(network: keras.Model, path: Path, format: str) -> None:
    (images,) = network.inputs
    signature = [keras.InputSpec(shape=images.shape, dtype=images.dtype, name=INPUT)]
    network.export(os.fspath(path), format=format, verbose=False, input_signature=signature)


def _require_tensorflow(format: str) -> None:
    if not backend.MAKES_TENSORFLOW_GRAPHS:
        raise ValueError(
            f"The format {format!r} needs Keras on TensorFlow. Set the environment variable "
            'KERAS_BACKEND=tensorflow, or export with format="onnx", which works on every backend.'
        )

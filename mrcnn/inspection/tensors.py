"""Fetch values of the inference network for one image, and the image as the network receives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry.boxes import denorm_boxes, norm_boxes
from mrcnn.geometry.image_meta import parse_image_meta
from mrcnn.geometry.preprocessing import mold_image
from mrcnn.geometry.value_range import scaled, value_range
from mrcnn.typing import Boxes, Image, Tensor

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN


@dataclass(frozen=True)
class NetworkInput:
    """An image as the network receives it. Boxes of all steps are in pixels of this image.

    Attributes:
        image: The molded image with its mean added again, uint8 [H, W, channels]: resized and padded.
        meta: Its image meta [12 + classes].
        window: The part (y1, x1, y2, x2) that is not padding, int32.
        half_open: Whether normalized boxes are half-open; see `mrcnn.geometry.boxes`.
    """

    image: np.ndarray
    meta: np.ndarray
    window: np.ndarray
    half_open: bool = False

    @classmethod
    def from_molded(cls, molded: np.ndarray, meta: np.ndarray, config: Config) -> NetworkInput:
        """Make a NetworkInput from a molded image [H, W, channels] and its image meta [12 + classes]."""
        pixels = np.rint(molded + np.asarray(config.MEAN_PIXEL))
        return cls(
            image=np.clip(pixels, 0, 255).astype(np.uint8),
            meta=meta,
            window=parse_image_meta(meta[np.newaxis])["window"][0],
            half_open=config.conventions().half_open_boxes,
        )

    def pixels(self, normalized: np.ndarray, rounded: bool = True) -> Boxes:
        """Convert normalized boxes [..., 4] to pixels of the image, whole ones if `rounded`."""
        return denorm_boxes(normalized, self.image.shape[:2], self.half_open, rounded)

    def normalized(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes [..., 4] in pixels of the image to normalized boxes, float32."""
        return norm_boxes(boxes, self.image.shape[:2], self.half_open)


def fetch(
    model: MaskRCNN,
    image: Image,
    outputs: Mapping[str, Tensor],
    image_meta: np.ndarray | None = None,
) -> tuple[NetworkInput, dict[str, np.ndarray]]:
    """Run the inference network on one image.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image [h, w, channels], which this function resizes, or, with `image_meta`, an
            image from `load_image_gt`, which is already resized. In both cases this function subtracts the
            mean.
        outputs: Symbolic tensors by label.
        image_meta: The image meta [12 + classes] of an image of `load_image_gt`.

    Returns:
        The image as the network received it, and the values by label, without the batch axis if they have
        one.

    Raises:
        ValueError: If the model is in training mode, or a tensor is None (see `MaskRCNN.run_graph`).
    """
    if image_meta is None:
        molded, metas, _ = model.mold_inputs([image])
    else:
        image = np.asarray(image)
        image = scaled(image, value_range(image, model.config))
        molded = mold_image(image[np.newaxis], model.config)
        metas = np.asarray(image_meta)[np.newaxis]
    values = model.run_graph(molded, list(outputs.items()), image_metas=metas)
    network_input = NetworkInput.from_molded(molded[0], metas[0], model.config)
    return network_input, {label: value[0] if value.ndim > 1 else value for label, value in values.items()}


def applied_deltas(outputs: np.ndarray, factors: Sequence[float] | np.ndarray, config: Config) -> np.ndarray:
    """Return the deltas that the network applies to boxes: its outputs times factors, with a limit.

    CONVENTIONS set the limit of log dh and log dw; "keras2" has none.

    Args:
        outputs: [N, 4], the outputs of the RPN or of the box head.
        factors: RPN_BBOX_STD_DEV or BBOX_STD_DEV.
        config: The Config of the network.

    Returns:
        float32 [N, (dy, dx, log dh, log dw)].
    """
    deltas: np.ndarray = outputs * np.asarray(factors, np.float32)
    limit = config.conventions().delta_limit
    if limit is not None:
        deltas[:, 2:] = np.minimum(deltas[:, 2:], limit)
    return deltas


def layer_outputs(model: MaskRCNN, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Look up the symbolic outputs of layers: {label: layer name} gives {label: tensor}."""
    return {label: model.keras_model.get_layer(name).output for label, name in names.items()}

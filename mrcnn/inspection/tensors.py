"""Values of the running network for one picture, and that picture as the network saw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.geometry import images
from mrcnn.geometry.image_meta import WINDOW


@dataclass(frozen=True)
class Seen:
    """A picture as the network saw it. Boxes of all steps are pixels of this picture.

    picture: uint8 [H, W, channels], resized and padded. meta: its image meta [12 + classes].
    window: int (y1, x1, y2, x2), the part that is no padding.
    """

    picture: np.ndarray
    meta: np.ndarray
    window: np.ndarray


def fetch(
    model: Any, image: np.ndarray, outputs: Mapping[str, Any], image_meta: np.ndarray | None = None
) -> tuple[Seen, dict[str, np.ndarray]]:
    """Run the inference network on one picture.

    model: a MaskRCNN of mode "inference". image: [h, w, channels], resized here; with image_meta
    [12 + classes] it is one of `load_image_gt`, which is resized already, and its mean is subtracted here.
    outputs: label to symbolic tensor.
    Returns the picture as seen and label to value, without the axis of the batch.
    Raises ValueError as `MaskRCNN.run_graph` does.
    """
    if image_meta is None:
        molded, metas, _ = model.mold_inputs([image])
    else:
        molded = images.mold_image(np.asarray(image)[np.newaxis], model.config)
        metas = np.asarray(image_meta)[np.newaxis]
    values = model.run_graph(molded, list(outputs.items()), image_metas=metas)
    pixels = np.rint(molded[0] + np.asarray(model.config.MEAN_PIXEL))
    seen = Seen(
        picture=np.clip(pixels, 0, 255).astype(np.uint8),
        meta=metas[0],
        window=np.rint(metas[0, WINDOW]).astype(np.int32),
    )
    return seen, {label: value[0] for label, value in values.items()}


def layer_outputs(model: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """The symbolic outputs of layers: label to layer name gives label to tensor."""
    return {label: model.keras_model.get_layer(name).output for label, name in names.items()}

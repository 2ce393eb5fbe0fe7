"""Feature maps: the outputs of layers for one image, by the names of the layers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mrcnn.backend import keras_internals
from mrcnn.inspection import tensors
from mrcnn.typing import Image
from mrcnn.visualize import figures
from mrcnn.visualize.overlays import to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrcnn.model import MaskRCNN

PYRAMID = {level: f"fpn_p{level}" for level in (2, 3, 4, 5)}
# The layer that takes the output of a backbone stage into the pyramid.
LATERALS = {level: f"fpn_c{level}p{level}" for level in (2, 3, 4, 5)}


@dataclass(frozen=True)
class Activations:
    """Outputs of layers for one image.

    Attributes:
        input: The image as the network received it.
        maps: The output of each layer by its name, without the batch axis.
    """

    input: tensors.NetworkInput
    maps: dict[str, np.ndarray]


def layer_activations(
    model: MaskRCNN,
    image: Image,
    names: Sequence[str] | None = None,
    image_meta: np.ndarray | None = None,
) -> Activations:
    """Fetch the outputs of layers for one image.

    Args:
        model: A MaskRCNN in inference mode.
        image: An original image, or one from `load_image_gt` with `image_meta`; see `tensors.fetch`.
        names: Names of layers of `model.keras_model`. By default the last layer of each backbone stage, and
            the levels of the pyramid.
        image_meta: The image meta of an image from `load_image_gt`.

    Raises:
        ValueError: If no layer has one of the names. The error suggests similar names.
    """
    names = [*stage_names(model), *PYRAMID.values()] if names is None else list(names)
    known = [layer.name for layer in model.keras_model.layers]
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                "`names` must be names of layers of model.keras_model. "
                f"Received: {name!r}. Similar names: {similar}"
            )
    outputs = tensors.layer_outputs(model, {name: name for name in names})
    network_input, values = tensors.fetch(model, image, outputs, image_meta)
    return Activations(network_input, values)


def stage_names(model: MaskRCNN) -> list[str]:
    """Find the last layer of each backbone stage C2 to C5, for any backbone."""
    laterals = [model.keras_model.get_layer(name) for name in LATERALS.values()]
    return [keras_internals.producer(layer.input).name for layer in laterals]


def draw_activations(
    activations: Activations, channels: int | Sequence[int] = 6, names: Sequence[str] | None = None
) -> Figure:
    """Draw feature maps, one row per layer. The first column is the image at the resolution of the map.

    Args:
        activations: The result of `layer_activations`.
        channels: Which channels to draw, or how many: those of the largest standard deviation.
        names: Names of layers in `activations.maps`; by default all whose output is a map [h, w, channels].

    Returns:
        The figure.
    """
    maps = {name: activations.maps[name] for name in names or activations.maps}
    maps = {name: values for name, values in maps.items() if values.ndim == 3}
    image = activations.input.image
    columns = channels if isinstance(channels, int) else len(channels)
    figure, axes = figures.panels(image.shape, len(maps), columns + 1, side=2.2)
    for row, (name, values) in zip(axes, maps.items(), strict=True):
        height, width, depth = values.shape
        small = cv2.resize(to_rgb(image), (width, height), interpolation=cv2.INTER_AREA)
        row[0].imshow(small)
        row[0].set_title(f"{name}\n{height} x {width} x {depth}", fontsize=9, parse_math=False)
        if isinstance(channels, int):
            drawn = np.argsort(-values.std(axis=(0, 1)), kind="stable")[:channels]
        else:
            drawn = np.asarray(channels)
        for ax, channel in zip(row[1:], drawn, strict=False):
            ax.imshow(values[..., channel], cmap="viridis")
            ax.set_title(f"channel {channel}", fontsize=9)
    return figures.finish(figure, show=False)

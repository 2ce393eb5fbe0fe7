"""Step 4, feature maps: what named layers answer to a picture."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mrcnn.inspection import tensors
from mrcnn.visualize import figures
from mrcnn.visualize.overlays import to_rgb

PYRAMID = ("fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5")
LATERAL = "fpn_c{level}p{level}"  # the layer that takes in a stage of the backbone


@dataclass(frozen=True)
class Activations:
    """seen: the picture. maps: layer name to its output without the axis of the batch."""

    seen: tensors.Seen
    maps: dict[str, np.ndarray]


def layer_activations(
    model: Any,
    image: np.ndarray,
    names: Sequence[str] | None = None,
    image_meta: np.ndarray | None = None,
) -> Activations:
    """Fetch the outputs of layers for one picture.

    names: of layers of model.keras_model; by default the last layers of the backbone's stages and the
    pyramid's levels. model, image, image_meta: see `tensors.fetch`.
    Raises ValueError for a name that no layer has, with the nearest ones.
    """
    names = [*stage_names(model), *PYRAMID] if names is None else list(names)
    known = [layer.name for layer in model.keras_model.layers]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(f"names must be names of layers. Received: {name!r}. Near ones are {near}.")
    outputs = tensors.layer_outputs(model, {name: name for name in names})
    seen, values = tensors.fetch(model, image, outputs, image_meta)
    return Activations(seen, values)


def stage_names(model: Any) -> list[str]:
    """The last layers of the backbone's stages C2 to C5, whatever the backbone."""
    laterals = [model.keras_model.get_layer(LATERAL.format(level=level)) for level in (2, 3, 4, 5)]
    return [layer.input._keras_history.operation.name for layer in laterals]


def draw_activations(
    found: Activations, channels: int | Sequence[int] = 6, names: Sequence[str] | None = None
) -> Any:
    """Draw feature maps, a row for each layer: those of the given channels, or of the liveliest ones.

    channels: how many, or which. The liveliest are those of the largest standard deviation.
    names: of layers of `found.maps`, by default all whose output is a map [h, w, channels].

    Returns the figure. The first column is the picture at the resolution of the maps.
    """
    maps = {name: found.maps[name] for name in names or found.maps if found.maps[name].ndim == 3}
    number = channels if isinstance(channels, int) else len(channels)
    figure, axes = figures.panels(found.seen.picture.shape, len(maps), number + 1, side=2.2)
    for row, (name, values) in zip(axes, maps.items(), strict=True):
        height, width, depth = values.shape
        small = cv2.resize(to_rgb(found.seen.picture), (width, height), interpolation=cv2.INTER_AREA)
        row[0].imshow(small)
        row[0].set_title(f"{name}\n{height} x {width} x {depth}", fontsize=9)
        if isinstance(channels, int):
            chosen = np.argsort(-values.std(axis=(0, 1)), kind="stable")[:channels]
        else:
            chosen = np.asarray(channels)
        for ax, channel in zip(row[1:], chosen, strict=False):
            ax.imshow(values[..., channel], cmap="viridis")
            ax.set_title(f"channel {channel}", fontsize=9)
    return figures.finish(figure, show=False)

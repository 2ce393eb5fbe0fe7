"""Methods of `MaskRCNN` that search its graph and compute any part of it."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mrcnn import backend
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.legacy import graph_search
from mrcnn.legacy.log import log
from mrcnn.network.graphs import Graph
from mrcnn.typing import Boxes, Image, Tensor

if TYPE_CHECKING:
    from mrcnn.config import Config


class GraphMethods:
    """Mixin of `mrcnn.model.MaskRCNN`."""

    keras_model: keras.Model
    _graph: Graph

    @functools.cached_property
    def _proposal_steps(self) -> graph_search.Steps:
        return {}

    @functools.cached_property
    def _anchors(self) -> AnchorCache:
        return AnchorCache(self.config)

    @functools.cached_property
    def _graph_calls(self) -> dict[tuple[tuple[str, int], ...], Callable[..., dict[str, Tensor]]]:
        return {}

    mold_inputs: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
    config: "Config"
    _own_anchors: Boxes | None = None
    _require_mode: Callable[[str, str], None]
    _update_settings: Callable[[], None]

    @property
    def anchors(self) -> Boxes:
        """Anchors float64 [A, (y1, x1, y2, x2)] in pixels of the last molded image; at first of IMAGE_SHAPE.

        Setting it replaces what programs read here, not the anchors of the network.
        """
        return self._anchors.last() if self._own_anchors is None else self._own_anchors

    @anchors.setter
    def anchors(self, anchors: Boxes) -> None:
        """Replace what programs read."""
        self._own_anchors = anchors

    def get_anchors(self, image_shape: Sequence[int]) -> Boxes:
        """Return the normalized anchors for a molded image; `anchors` gives them in pixels afterwards.

        Args:
            image_shape: (height, width, channels) of the molded image.

        Returns:
            float32 [A, (y1, x1, y2, x2)].
        """
        return self._anchors.normalized(image_shape).copy()

    def ancestor(self, tensor: Tensor, name: str, checked: Any = None) -> Tensor | None:
        """Return the named tensor upstream of a symbolic tensor, or None if there is none.

        Args:
            tensor: A symbolic tensor of the network.
            name: A name that `mrcnn.legacy.graph_search.ancestor` knows.
            checked: Not used.
        """
        return graph_search.ancestor(tensor, name, self._proposal_steps)

    def find_trainable_layer(self, layer: keras.Layer) -> keras.Layer:
        """Return the layer inside (nested) TimeDistributed wrappers."""
        while isinstance(layer, keras.layers.TimeDistributed):
            layer = layer.layer
        return layer

    def get_trainable_layers(self) -> list[keras.Layer]:
        """Return all layers with weights, in the order of the model. The RPN is one of them."""
        layers = [self.find_trainable_layer(layer) for layer in self.keras_model.layers]
        return [layer for layer in layers if layer.get_weights()]

    def run_graph(
        self,
        images: Image | Iterable[Image],
        outputs: Sequence[tuple[str, Tensor]],
        image_metas: np.ndarray | None = None,
    ) -> "OrderedDict[str, np.ndarray]":
        """Compute tensors of the inference network for some images, and print their shapes.

        The first call with a set of outputs compiles it.

        Args:
            images: Images as in `mold_inputs`; with `image_metas`, molded images [N, H, W, channels].
            outputs: Pairs of a label and a symbolic tensor, such as
                ("rpn_class", model.keras_model.get_layer("rpn_class").output).
            image_metas: [N, 12 + classes], or None to mold the images here.

        Returns:
            The arrays by label, with a batch axis. For a single image, "ROI/rpn_non_max_suppression" of
            `ancestor` has one axis and only the rows that NMS keeps.

        Raises:
            ValueError: If the model is in training mode, or a tensor is None.
        """
        self._require_mode("inference", "run_graph")
        missing = [label for label, tensor in outputs if tensor is None]
        if missing:
            raise ValueError(
                f"`outputs` must be pairs of a label and a tensor. Received: None for the labels {missing}. "
                "Check the layer names."
            )
        if image_metas is None:
            molded, image_metas, _ = self.mold_inputs(images)
        else:
            molded = np.asarray(images)
        self._update_settings()
        normalized = self.get_anchors(molded[0].shape)
        values = self._graph_call(outputs)(
            {
                "input_image": molded.astype(np.float32),
                "input_image_meta": np.asarray(image_metas, np.float32),
                "input_anchors": np.broadcast_to(normalized, (len(molded), *normalized.shape)),
            }
        )
        padded = {label: backend.to_numpy(values[label]) for label, _ in outputs}
        arrays = OrderedDict(graph_search.without_padding(padded, outputs, self._proposal_steps))
        for label, array in arrays.items():
            log(label, array)
        return arrays

    def _graph_call(self, outputs: Sequence[tuple[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        """Return the compiled call that computes these tensors, and cache it."""
        key = tuple((label, id(tensor)) for label, tensor in outputs)
        if key not in self._graph_calls:  # the call keeps its tensors alive, so that their ids stay theirs
            model = keras.Model(self._graph.inputs, dict(outputs))
            self._graph_calls[key] = backend.compiled(model)
        return self._graph_calls[key]

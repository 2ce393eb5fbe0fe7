"""The softmax of the RPN over two classes, as two sigmoids.

The score of each of two classes is the sigmoid of the difference of their logits. The backends compute a
softmax anchor by anchor, and a sigmoid for many anchors at once.
"""

import keras
from keras import layers, ops

from mrcnn.backend import layer_graph
from mrcnn.typing import Shape, Tensor

RPN, SOFTMAX = "rpn_model", "rpn_class_xxx"


class SoftmaxOfPairs(layers.Layer):
    """Softmax over two logits, computed as two sigmoids.

    Call with logits [..., 2]. Returns scores of the same shape, equal to those of a softmax up to rounding.
    """

    def call(self, inputs: Tensor) -> Tensor:
        difference = inputs[..., 0] - inputs[..., 1]
        return ops.stack([ops.sigmoid(difference), ops.sigmoid(-difference)], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


def replacements(model: keras.Model) -> dict[str, keras.Model]:
    """Return {name: copy with sigmoids} for the RPN of a model.

    The result is empty if the model has no RPN from `build_rpn_model`.
    """
    return {
        layer.name: _with_sigmoids(layer)
        for layer in model.layers
        if isinstance(layer, keras.Model)
        and layer.name == RPN
        and any(type(inner) is layers.Softmax and inner.name == SOFTMAX for inner in layer.layers)
    }


def _with_sigmoids(rpn: keras.Model) -> keras.Model:
    """Return a copy of an RPN that has sigmoids for its softmax and shares all other layers."""
    softmax = rpn.get_layer(SOFTMAX)
    stand_in = SoftmaxOfPairs(name=SOFTMAX, dtype=softmax.dtype_policy)
    copy = layer_graph.replace_layers(rpn, {SOFTMAX: stand_in})
    copy.name = rpn.name
    return copy

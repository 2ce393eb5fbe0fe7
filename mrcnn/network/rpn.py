"""Region proposal network: objectness and deltas of every anchor (Faster R-CNN, section 3.1)."""

from typing import Any

import keras
from keras import layers, ops

from mrcnn.network.convolution import Conv2D
from mrcnn.typing import Shape, Tensor

SECOND_CONVOLUTION = "rpn_conv_shared2"


def build_rpn_model(
    anchor_stride: int,
    anchors_per_location: int,
    depth: int,
    channels: int = 512,
    convolutions: int = 1,
    objectness_logit: bool = False,
) -> keras.Model:
    """Build the RPN as a separate model, so that all pyramid levels share its weights.

    Call it with a feature map [B, h, w, depth]. It returns logits and scores
    [B, A, (background, foreground)] and deltas [B, A, (dy, dx, log(dh), log(dw))], all float32. The A anchors
    are ordered by row, column and ratio.

    Args:
        anchor_stride: Distance between anchors in cells of the feature map.
        anchors_per_location: Number of anchor ratios.
        depth: Channels of the feature map.
        channels: Channels of the shared convolutions.
        convolutions: Number of shared convolutions, 1 or 2. The second one has stride 1.
        objectness_logit: Whether to fix the logit of the background at 0, so that the score is the sigmoid of
            one logit.
    """
    feature_map = keras.Input((None, None, depth), name="input_rpn_feature_map")
    shared = Conv2D(
        channels,
        3,
        strides=anchor_stride,
        padding="same",
        activation="relu",
        name="rpn_conv_shared",
    )(feature_map)
    if convolutions == 2:
        shared = Conv2D(channels, 3, padding="same", activation="relu", name=SECOND_CONVOLUTION)(shared)
    x = Conv2D(2 * anchors_per_location, 1, dtype="float32", name="rpn_class_raw")(shared)
    logits = layers.Reshape((-1, 2), dtype="float32")(x)
    if objectness_logit:
        logits = ObjectnessLogit(name="rpn_objectness")(logits)
    scores = layers.Softmax(dtype="float32", name="rpn_class_xxx")(logits)
    x = Conv2D(4 * anchors_per_location, 1, dtype="float32", name="rpn_bbox_pred")(shared)
    deltas = layers.Reshape((-1, 4), dtype="float32")(x)
    return keras.Model(feature_map, [logits, scores, deltas], name="rpn_model")


@keras.saving.register_keras_serializable("mrcnn")
class ObjectnessLogit(layers.Layer):
    """Replace the logits of the background with 0.

    Call with logits [B, A, (background, foreground)]. Returns the same shape. The softmax of (0, x) is the
    sigmoid of x, and no gradient reaches the background.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Tensor) -> Tensor:
        foreground = inputs[..., 1:]
        return ops.concatenate([ops.zeros_like(foreground), foreground], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


def apply_rpn(rpn: keras.Model, feature_maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Run the RPN on every pyramid level and join the results.

    Args:
        rpn: A model from `build_rpn_model`.
        feature_maps: P2 to P6, each [B, h, w, C].

    Returns:
        Logits [B, A, 2], scores [B, A, 2] and deltas [B, A, 4] of all anchors, from P2 to P6.
    """
    logits, scores, deltas = zip(*(rpn(feature_map) for feature_map in feature_maps), strict=True)
    return (
        layers.Concatenate(axis=1, dtype="float32", name="rpn_class_logits")(list(logits)),
        layers.Concatenate(axis=1, dtype="float32", name="rpn_class")(list(scores)),
        layers.Concatenate(axis=1, dtype="float32", name="rpn_bbox")(list(deltas)),
    )

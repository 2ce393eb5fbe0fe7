"""Region proposal network: objectness and deltas of every anchor (Faster R-CNN, section 3.1)."""

import keras
from keras import layers

from mrcnn.network.convolution import Conv2D


def build_rpn_model(
    anchor_stride: int, anchors_per_location: int, depth: int, channels: int = 512
) -> keras.Model:
    """The RPN's head as a model of its own, so that all pyramid levels share its weights.

    anchor_stride: cells per anchor; anchors_per_location: number of anchor ratios; depth: channels of the
    feature map; channels: width of the shared convolution.
    Called with [B, h, w, depth] it returns, anchors ordered by row, column, ratio: logits and
    probabilities [B, A, (background, foreground)] and deltas [B, A, (dy, dx, log(dh), log(dw))], float32.
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
    x = Conv2D(2 * anchors_per_location, 1, dtype="float32", name="rpn_class_raw")(shared)
    logits = layers.Reshape((-1, 2), dtype="float32")(x)
    probs = layers.Softmax(dtype="float32", name="rpn_class_xxx")(logits)
    x = Conv2D(4 * anchors_per_location, 1, dtype="float32", name="rpn_bbox_pred")(shared)
    deltas = layers.Reshape((-1, 4), dtype="float32")(x)
    return keras.Model(feature_map, [logits, probs, deltas], name="rpn_model")

"""Layer groups: which layers a training stage changes."""

import difflib
import re
from collections.abc import Iterator

import keras

HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"
# Layers of each backbone stage. ResNet names them by stage; the blocks of MobileNetV2 (block_3_expand) and of
# EfficientNet-Lite0 (block3a_dwconv) are assigned by their stride.
STAGE_LAYERS = {
    3: r"(res3.*)|(bn3.*)|(block_[3-5]_.*)|(block3[a-z]_.*)",
    4: r"(res4.*)|(bn4.*)|(block_([6-9]|1[0-2])_.*)|(block[45][a-z]_.*)",
    5: r"(res5.*)|(bn5.*)|(block_1[3-6]_.*)|(block[67][a-z]_.*)",
}
LAYER_GROUPS = {
    "heads": HEADS,
    "3+": "|".join([*STAGE_LAYERS.values(), HEADS]),
    "4+": "|".join([STAGE_LAYERS[4], STAGE_LAYERS[5], HEADS]),
    "5+": "|".join([STAGE_LAYERS[5], HEADS]),
    "all": ".*",
}


def layer_pattern(layers: str) -> str:
    """Return the regular expression of a layer group.

    Args:
        layers: "heads", "3+", "4+", "5+" or "all". Any other text is returned unchanged, as a regular
            expression of layer names.
    """
    return LAYER_GROUPS.get(layers, layers)


def checked_pattern(model: keras.Model, layers: str) -> str:
    """Return the regular expression of a layer group, and check that it matches a layer of the model.

    Args:
        model: The network to train.
        layers: See `layer_pattern`.

    Raises:
        ValueError: If no full name of a layer with weights matches, or the text is not a regular expression.
    """
    pattern = layer_pattern(layers)
    names = [layer.name for layer in _layers_with_weights(model)]
    try:
        matches = any(re.fullmatch(pattern, name) for name in names)
    except re.error as error:
        raise ValueError(
            f"`layers` must be a layer group or a regular expression. Received: layers={layers!r} ({error})"
        ) from error
    if not matches:
        similar = difflib.get_close_matches(layers, [*LAYER_GROUPS, *names])
        hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        raise ValueError(
            f"`layers` must be one of {list(LAYER_GROUPS)}, or a regular expression that matches the "
            f"whole name of at least one layer. Received: layers={layers!r}, which matches no layer.{hint}"
        )
    return pattern


def _layers_with_weights(model: keras.Model) -> Iterator[keras.Layer]:
    """Return the layers of a model that have weights, including those of nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers_with_weights(layer)
        elif layer.weights:
            yield layer


def set_trainable(model: keras.Model, layer_regex: str) -> list[keras.Layer]:
    """Make the layers whose full name matches trainable, and freeze all others.

    Nested models are searched layer by layer. Layers without weights are not changed.

    Args:
        model: A Keras model.
        layer_regex: A regular expression, such as one of `layer_pattern`.

    Returns:
        The trainable layers, in the order of the model.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True  # otherwise its layers would not count as trainable
    layers = list(_layers_with_weights(model))
    for layer in layers:
        layer.trainable = re.fullmatch(layer_regex, layer.name) is not None
    return [layer for layer in layers if layer.trainable]

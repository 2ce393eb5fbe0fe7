"""Layer groups: which layers a training stage changes."""

import re

import keras

HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"
# Layers of each backbone stage. ResNet names them by stage; MobileNetV2 blocks are assigned by their stride.
STAGE_LAYERS = {
    3: r"(res3.*)|(bn3.*)|(block_[3-5]_.*)",
    4: r"(res4.*)|(bn4.*)|(block_([6-9]|1[0-2])_.*)",
    5: r"(res5.*)|(bn5.*)|(block_1[3-6]_.*)",
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


def set_trainable(model: keras.Model, layer_regex: str) -> list[keras.Layer]:
    """Make exactly those layers trainable whose whole name matches.

    Models inside the model are searched layer by layer. Layers without weights are not changed.

    Args:
        model: A Keras model.
        layer_regex: A regular expression, such as one of `layer_pattern`.

    Returns:
        The trainable layers, in the order of the model.
    """
    trainable = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            trainable += set_trainable(layer, layer_regex)
        elif layer.weights:
            layer.trainable = re.fullmatch(layer_regex, layer.name) is not None
            if layer.trainable:
                trainable.append(layer)
    return trainable

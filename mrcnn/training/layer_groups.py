"""Layer groups: which layers a training stage changes."""

import re

import keras

HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"
# Layers of each backbone stage: ResNet's by number, MobileNetV2's blocks by the stride they work at.
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
    """The regular expression of a group ("heads", "3+", "4+", "5+", "all"); another text is one itself."""
    return LAYER_GROUPS.get(layers, layers)


def set_trainable(model: keras.Model, layer_regex: str) -> list[keras.Layer]:
    """Let exactly the layers train whose whole name matches, models inside the model layer by layer.

    Returns those layers, in model order. Layers without weights are left alone.
    """
    chosen = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            chosen += set_trainable(layer, layer_regex)
        elif layer.weights:
            layer.trainable = re.fullmatch(layer_regex, layer.name) is not None
            if layer.trainable:
                chosen.append(layer)
    return chosen

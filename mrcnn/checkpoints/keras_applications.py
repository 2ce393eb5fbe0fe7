"""ImageNet weights of MobileNetV2 from Keras Applications."""

from pathlib import Path

import keras

from mrcnn.checkpoints import weight_files
from mrcnn.errors import InvalidDataError, reason

# The last convolution of MobileNetV2, which belongs to its classifier, and the normalization after it.
CLASSIFIER_LAYERS = ("Conv_1", "Conv_1_bn")


def write_mobilenet_v2(path: Path, source: Path) -> Path:
    """Convert the MobileNetV2 weights of Keras Applications to a weight file of `mrcnn`.

    Args:
        path: The HDF5 file to write.
        source: The weights of `keras.applications.MobileNetV2(include_top=False)`. Keras reads them in the
            order of its layers, because the names in published files may differ.

    Returns:
        `path`.

    Raises:
        InvalidDataError: If `source` is damaged or does not fit the network.
        OSError: If the file cannot be written.
    """
    try:
        network = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=str(source))
    except Exception as error:  # h5py and Keras raise errors of many kinds
        raise InvalidDataError(
            f"the file does not contain MobileNetV2 weights without the classifier ({reason(error)}). Delete "
            "the file, then load the weights again to download a new copy.",
            file=source,
        ) from error
    layers = {
        layer.name: {
            f"{layer.name}/{weight.name}:0": keras.ops.convert_to_numpy(weight) for weight in layer.weights
        }
        for layer in network.layers
        if layer.weights and layer.name not in CLASSIFIER_LAYERS
    }
    weight_files.write_weight_file(path, layers)
    return path

"""Programs of torch.export, written by Keras on PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

import keras

from mrcnn import backend
from mrcnn.export.keras_formats import whole_network
from mrcnn.inference.inputs import whole_image_config
from mrcnn.runtime.metadata import FILE_NAME, OUTPUTS, Metadata

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


def write(model: "MaskRCNN", path: Path, metadata: Metadata) -> None:
    """Write a program that takes one image at a time on a CPU, with the metadata in the same file.

    Raises:
        ValueError: If Keras runs on another backend, or the file would have to pad images to different sizes.
    """
    if backend.write_torch_program is None:
        raise ValueError(
            'The format "torch" needs Keras on PyTorch. Set the environment variable KERAS_BACKEND=torch '
            'before you start Python, or export with format="onnx", which works on every backend.'
        )
    canvas = metadata.canvas
    if canvas is None:
        raise ValueError(
            f'With format="torch" and IMAGE_RESIZE_MODE = "{model.config.IMAGE_RESIZE_MODE}", all images '
            "must have the same size. Pass it, for example `size=(512, 512)`, or --size 512 512 on the "
            "command line."
        )
    # An example smaller than the canvas, because sizes that are equal in the example stay equal.
    sides = metadata.size or (canvas[0] - 8, canvas[1] - 16)
    example = (1, *sides, model.config.IMAGE_CHANNEL_COUNT)
    with keras.device("cpu"):  # a program only runs on the kind of device on which it was traced
        network = whole_network(_on_cpu(model), metadata, batch=1)
        backend.write_torch_program(network, OUTPUTS, path, {FILE_NAME: metadata.to_json()}, example)


def _on_cpu(model: "MaskRCNN") -> "MaskRCNN":
    """Return a model whose weights are on the CPU: this one, or a copy made in the scope of the CPU."""
    if all(backend.is_on_cpu(variable.value) for variable in model.keras_model.variables):
        return model
    return model.inference_model(whole_image_config(model.config))

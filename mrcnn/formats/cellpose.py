"""The files NAME_seg.npy that Cellpose saves beside an image: a pickled dict with a label image, `masks`."""

import pickle
from typing import Any, BinaryIO

import numpy as np

from mrcnn.errors import InvalidDataError, UnreadableFileError, reason

SUFFIX = "_seg.npy"
# What pickled arrays and numbers of NumPy consist of. The modules depend on its version.
KNOWN = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(0).__reduce_ex__(5)[0],
    "scalar": np.float64(0).__reduce__()[0],
}


def read_seg(stream: BinaryIO, name: str) -> np.ndarray:
    """Return the label image of a file of Cellpose.

    No code of the file runs: only arrays and plain values are read.

    Args:
        stream: The file.
        name: Its name in errors.

    Returns:
        Integers [h, w], or [slices, h, w] of a stack.

    Raises:
        UnreadableFileError: If it is no such file, or damaged.
        InvalidDataError: If its `masks` are no label image.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        read_header(stream)
        masks = np.asarray(_Arrays(stream).load().item()["masks"])
    except Exception as error:  # a damaged pickle may raise any error
        raise UnreadableFileError(
            f"The file is not a readable {SUFFIX} of Cellpose: {reason(error)}", file=name
        ) from error
    masks = masks[0] if masks.ndim == 3 and len(masks) == 1 else masks
    if masks.ndim not in (2, 3) or masks.dtype.kind not in "biu":
        raise InvalidDataError(
            "`masks` must be integers of the shape (height, width) or (slices, height, width). Received: an "
            f"array of shape {masks.shape} and type {masks.dtype}.",
            file=name,
            field="masks",
        )
    return masks


class _Other:
    """Stands for an object of a class that is not needed."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, *_: Any) -> "_Other":
        return self

    def __setstate__(self, _: Any) -> None:
        pass


class _Arrays(pickle.Unpickler):
    """Reads arrays, numbers and plain containers; other objects become an `_Other`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: text.encode("latin1")  # bytes in old pickles
        return KNOWN.get(name, _Other) if module.partition(".")[0] == "numpy" else _Other

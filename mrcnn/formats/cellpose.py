"""The files NAME_seg.npy that Cellpose saves beside an image: a pickled dict with a label image, `masks`."""

import pickle
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from mrcnn.errors import InvalidDataError, UnreadableFileError, reason

SUFFIX = "_seg.npy"
# Types of numbers, as pickles of NumPy have them.
NUMBERS = re.compile(r"[biuf][1248]")


def read_seg(stream: BinaryIO, name: str) -> np.ndarray:
    """Return the label image of a file of Cellpose.

    No code of the file runs: only arrays of numbers and plain values are read. NumPy itself does not read the
    pickle, because it takes what a file says of an array on trust, such as addresses in memory.

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
        masks: np.ndarray = _Arrays(stream).load().values[0]["masks"].numbers()
    except Exception as error:  # a damaged pickle may raise any error
        raise UnreadableFileError(
            f"The file is not a readable {SUFFIX} of Cellpose: {reason(error)}", file=name
        ) from error
    masks = masks[0] if masks.ndim == 3 and len(masks) == 1 else masks
    if masks.ndim not in (2, 3) or masks.dtype.kind not in "biu":
        raise InvalidDataError(
            "`masks` must be integers of the shape (height, width) or (slices, height, width). Received: an "
            f"array of shape {masks.shape} and type {masks.dtype}. Save the masks again with Cellpose.",
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


class _Type:
    """Stands for the type of an array."""

    _order: Any = "="

    def __init__(self, code: str, *_: Any) -> None:
        self._code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def of_numbers(self) -> np.dtype:
        """Return the type. Raise a ValueError if it is not a number type."""
        if not NUMBERS.fullmatch(self._code):
            raise ValueError(
                f"The arrays in the file must hold numbers. Received: an array of type {self._code!r}"
            )
        return np.dtype(self._code).newbyteorder(self._order)


class _Array:
    """Stands for an array. `values` are its bytes, or a list of its objects."""

    values: Any

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self._shape, self._type, self._is_fortran, self.values = state

    def numbers(self) -> np.ndarray:
        """Return the array, which must be one of numbers."""
        stored = self._type.of_numbers()
        flat: np.ndarray = np.frombuffer(self.values, stored)
        values = flat.reshape(self._shape, order="F" if self._is_fortran else "C")
        native: np.ndarray = values.astype(stored.newbyteorder("="))
        return native


def _from_buffer(values: bytes, kind: _Type, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", values))
    return array


class _Arrays(pickle.Unpickler):
    """Reads arrays and plain containers; other objects become an `_Other`."""

    # By name: the modules depend on the version of NumPy.
    KNOWN: Mapping[str, Any] = {"dtype": _Type, "_reconstruct": _Array, "_frombuffer": _from_buffer}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: text.encode("latin1")  # bytes in old pickles
        return self.KNOWN.get(name, _Other) if module.partition(".")[0] == "numpy" else _Other

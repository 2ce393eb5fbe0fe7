"""Read pickles of NumPy arrays, as in Detectron2's model zoo (.pkl), without executing anything."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.checkpoints.foreign.pickles import Call, Global, parse, short
from mrcnn.checkpoints.foreign.states import (
    State,
    check_total,
    damage_named,
    find_state,
    naturals,
    to_float32,
)
from mrcnn.errors import InvalidDataError

MAX_BYTES = 4 * 2**30
# NumPy 2 has renamed numpy.core.
RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
EMPTY = (Global("__builtin__.bytes"), Global("builtins.bytes"))
FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array as a pickle stores it."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]
    is_fortran: bool  # the first axis varies fastest

    def read(self) -> np.ndarray:
        """Return the values as float32."""
        if self.is_fortran:
            return np.ascontiguousarray(to_float32(self.data, self.dtype, self.shape[::-1]).T)
        return to_float32(self.data, self.dtype, self.shape)


def read_numpy_pickle(path: Path) -> State:
    """Read the state dict of a pickle of NumPy arrays.

    Returns:
        {key: float32 array}. Entries that are not arrays of numbers are ignored.

    Raises:
        InvalidDataError: If the file is damaged or holds no state dict.
    """
    with damage_named(path, "pickle of NumPy arrays"):
        if path.stat().st_size > MAX_BYTES:
            raise InvalidDataError(
                f"the file is larger than {MAX_BYTES:,} bytes, more than any model needs. Use a file from "
                "a source that you trust.",
                file=path,
            )
        parsed = parse(io.BytesIO(path.read_bytes()))
        arrays = find_state(path, parsed.value, _as_array)
        check_total(path, [math.prod(array.shape) for array in arrays.values()])
        return {key: array.read() for key, array in arrays.items()}


def _as_array(value: Any) -> Array | None:
    """Return the array that a value in a pickle describes, or None if it describes something else."""
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        return None
    if value.function.name in RECONSTRUCT and value.state is not None:
        _, shape, described, is_fortran, data = value.state
    elif value.function.name in FROM_BUFFER:
        data, described, shape, order = value.arguments
        is_fortran = order == "F"
    else:
        return None
    dtype = _dtype(described)
    if dtype is None:
        return None
    return Array(_bytes(data), dtype, naturals(shape), bool(is_fortran))


def _dtype(described: Any) -> str | None:
    """Return a NumPy dtype of numbers, such as "<f4", or None for other dtypes."""
    if not isinstance(described, Call) or described.function != Global("numpy.dtype"):
        return None
    name = described.arguments[0]
    order = described.state[1] if described.state else "="
    if not isinstance(name, str) or name[:1] not in "fiub" or not name[1:].isdigit():
        return None
    return str(np.dtype(f"{'<' if order == '=' else order}{name}").str)


def _bytes(data: Any) -> bytes:
    """Return the bytes of an array. Protocol 2 of Python 3 stores them as text, Python 2 as a string."""
    if isinstance(data, Call) and data.function == Global("_codecs.encode"):
        data = data.arguments[0]
    elif isinstance(data, Call) and data.function in EMPTY and not data.arguments:
        return b""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"an array whose values are {short(data)}")
    return bytes(data)

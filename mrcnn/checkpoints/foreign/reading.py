"""Read the arrays of weight files of PyTorch and Detectron2. Nothing in a file is executed."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from mrcnn.checkpoints.foreign.detectron2 import read_numpy_pickle
from mrcnn.checkpoints.foreign.pth import MAGIC_NUMBER, read_pth
from mrcnn.checkpoints.foreign.safetensors import read_safetensors
from mrcnn.checkpoints.foreign.states import State
from mrcnn.checkpoints.opening import ZIP_MAGIC, check_file, read_start
from mrcnn.errors import InvalidDataError

PICKLE_START = b"\x80"
LONGEST_MAGIC = 64


@dataclasses.dataclass(frozen=True)
class ReadFile(os.PathLike[str]):
    """A file that has been read. Functions that take its path take this object and do not read it again.

    Attributes:
        path: The file.
        state: {key of the other library: float32 array}; see `read_state`.
    """

    path: Path
    state: State

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


def is_foreign_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts like a pickle, a zip archive or a .safetensors file."""
    return _reader(Path(path)) is not None


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the arrays of a .pth, .safetensors or .pkl file.

    Args:
        path: The file, or a ReadFile, whose `state` is returned.

    Returns:
        {key of the other library: float32 array}.

    Raises:
        MissingFileError, UnreadableFileError, InvalidDataError: See `read_foreign_weights`.
    """
    if isinstance(path, ReadFile):
        return path.state
    path = check_file(path)
    reader = _reader(path)
    if reader is None:
        raise InvalidDataError(
            "the file must be a .pth, .safetensors or .pkl file, but its content is none of these.", file=path
        )
    return reader(path)


def _reader(path: Path) -> Callable[[Path], State] | None:
    start = read_start(path, LONGEST_MAGIC)
    if start.startswith(ZIP_MAGIC):
        return read_pth
    if start.startswith(PICKLE_START):
        return read_pth if _is_old_pth(path) else read_numpy_pickle
    return read_safetensors if start[8:9] == b"{" else None


def _is_old_pth(path: Path) -> bool:
    """Return whether the first pickle is the magic number of PyTorch's older files."""
    encoded = MAGIC_NUMBER.to_bytes(10, "little")
    return encoded in read_start(path, LONGEST_MAGIC)

"""Find and read arrays in HDF5 files from untrusted sources.

HDF5 can read data from other places: external and soft links, external storage and virtual datasets refer to
other files, which may be private or may block forever. Weight files need none of these, so they raise an
error. A few bytes can also declare an array of any size. Shapes are available before data is read, so callers
can check them first.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mrcnn.errors import InvalidDataError

# What h5py raises for damaged files.
DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    MemoryError,
)


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Convert h5py's errors in the block to InvalidDataError with the name of the file."""
    try:
        yield
    except InvalidDataError:
        raise
    except DAMAGE as error:
        raise InvalidDataError(
            f"the file ({path.stat().st_size:,} bytes) is not a complete HDF5 file: {error}. If a download "
            "was interrupted, delete the file and download it again.",
            file=path,
        ) from error


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array of numbers in an open file. Only `read` reads its data.

    Attributes:
        path: The file.
        name: Name of the array, such as "conv1/kernel:0".
        shape: Its shape.
        dataset: The HDF5 dataset that stores it.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dataset: h5py.Dataset

    @property
    def size(self) -> int:
        """Bytes in memory, as float32."""
        return 4 * int(np.prod(self.shape, dtype=object))

    def read(self) -> np.ndarray:
        """Return the values as float32. Values outside its range become infinite."""
        with damage_named(self.path), np.errstate(over="ignore"):
            return self.dataset[()].astype(np.float32)


def find(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return the group or dataset of a name such as "conv1/kernel:0", without following a link.

    Args:
        path: The file, for errors.
        group: Where to start.
        name: Parts of the name, separated by slashes.

    Raises:
        KeyError: If there is no such group or dataset.
        InvalidDataError: If a link or a dataset on the way would read outside the file.
    """
    node = group
    for part in filter(None, name.split("/")):
        if not isinstance(node, h5py.Group):
            raise KeyError(f"{name!r} is not in the file")
        if node.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise InvalidDataError(
                "this is a link to another place, which is not followed because links can read other "
                "files. Weight files need no links. Use a file from a source that you trust.",
                file=path,
                entry=name,
            )
        node = node[part]
    if isinstance(node, h5py.Dataset) and (node.is_virtual or node.external):
        raise InvalidDataError(
            "the data is in another file, which is not read. Weight files hold their own data. Use a file "
            "from a source that you trust.",
            file=path,
            entry=name,
        )
    return node


def find_array(path: Path, group: h5py.Group, name: str) -> StoredArray:
    """Return the array of a name; see `find`. Its data is not read.

    Raises:
        InvalidDataError: If it is not an array of numbers.
    """
    dataset = find(path, group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise InvalidDataError(
            f"a weight must be an array of numbers. Received: {dataset}", file=path, entry=name
        )
    return StoredArray(path, name, tuple(dataset.shape), dataset)

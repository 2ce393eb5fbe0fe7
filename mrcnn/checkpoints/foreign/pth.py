"""Read the tensors of PyTorch files (.pth, .pt) without PyTorch and without executing anything.

`torch.save` writes a pickle that describes the tensors, and their numbers separately: since PyTorch 1.6 as
members of a zip archive, before that one after another in the same file. The weights of torchvision's first
Mask R-CNN have the older format.
"""

import dataclasses
import io
import math
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.checkpoints.foreign.pickles import Call, Global, Persistent, parse, short
from mrcnn.checkpoints.foreign.states import (
    State,
    check_total,
    damage_named,
    find_state,
    item_size,
    natural,
    naturals,
    widen,
)
from mrcnn.checkpoints.opening import ZIP_MAGIC, read_start
from mrcnn.errors import InvalidDataError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
STORAGE_TYPES = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter")
ENCRYPTED = 1  # a flag of zip members
KIND = "PyTorch file"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The location of a tensor's numbers: its storage, and offset, shape and strides in values."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


def read_pth(path: Path) -> State:
    """Read the state dict of a PyTorch file.

    Optimizers, schedules and other objects in a checkpoint are ignored.

    Returns:
        {key: float32 array}.

    Raises:
        InvalidDataError: If the file is damaged or holds no state dict.
    """
    with damage_named(path, KIND):
        is_zip = read_start(path, len(ZIP_MAGIC)) == ZIP_MAGIC
        return _read_zip(path) if is_zip else _read_old(path)


# --- Zip archives ---


def _read_zip(path: Path) -> State:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InvalidDataError(
                "the file is a zip archive, but not a PyTorch file: it has no data.pkl. Load .keras files "
                "with keras.models.load_model.",
                file=path,
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = ">" if _member(path, archive, f"{folder}byteorder", b"little") == b"big" else "<"
        parsed = parse(io.BytesIO(_member(path, archive, pickles[0])))
        tensors = find_state(path, parsed.value, _as_tensor)
        return _arrays(path, tensors, order, lambda key: _member(path, archive, f"{folder}data/{key}"))


def _member(path: Path, archive: zipfile.ZipFile, name: str, default: bytes | None = None) -> bytes:
    """Read a member. It must not be compressed, because a compressed member could have any size."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        if default is None:
            raise
        return default
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED:
        raise InvalidDataError(
            f"{name} is compressed or encrypted, but PyTorch files are neither. Use a file that "
            "torch.save wrote.",
            file=path,
        )
    if info.file_size != info.compress_size or info.file_size > path.stat().st_size:
        raise InvalidDataError(
            f"{name} states {info.file_size:,} bytes, more than the file holds.", file=path
        )
    return archive.read(info)


# --- The form before PyTorch 1.6 ---


def _read_old(path: Path) -> State:
    """Read five pickles: a magic number, a version, facts about the machine, the object, the storage keys.

    The storages follow in the order of the keys, each after its number of values.
    """
    stream = io.BytesIO(path.read_bytes())
    magic, _, machine, parsed, keys = (parse(stream) for _ in range(5))
    if magic.value != MAGIC_NUMBER:
        raise InvalidDataError(
            "the file is not a PyTorch file: it does not start with PyTorch's magic number. Check the path.",
            file=path,
        )
    order = "<" if machine.value.get("little_endian", True) else ">"
    dtypes = {key: dtype for key, dtype, _ in map(_storage, parsed.persistent)}
    data = stream.getbuffer()
    storages: dict[str, memoryview] = {}
    position = stream.tell()
    for key in keys.value:
        count = int.from_bytes(data[position : position + 8], "little" if order == "<" else "big")
        end = position + 8 + count * item_size(dtypes[key])
        if end > len(data):
            raise InvalidDataError(
                f"the storage {key!r} ends after the end of the file. Download the file again.", file=path
            )
        storages[key] = data[position + 8 : end]
        position = end
    return _arrays(path, find_state(path, parsed.value, _as_tensor), order, storages.__getitem__)


# --- Tensors ---


def _storage(described: Any) -> tuple[str, str, int]:
    """Return key, dtype and number of values of a storage. Raises TypeError or ValueError otherwise."""
    if not isinstance(described, Persistent):
        raise TypeError("a tensor without a storage")
    tag, kind, key, _, count, *view = described.id
    if tag != "storage" or not isinstance(kind, Global) or not isinstance(key, str) or any(view):
        raise ValueError(f"a storage that is not supported: {short(described.id)}")
    if kind.name not in STORAGE_TYPES:
        raise ValueError(f"a storage of type {kind.name}, which is not supported")
    return key, STORAGE_TYPES[kind.name], natural(count)


def _as_tensor(value: Any) -> Tensor | None:
    """Return the tensor that a value in a pickle describes, or None if it describes something else."""
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        return None
    if value.function.name in PARAMETERS:
        return _as_tensor(value.arguments[0])
    if value.function.name not in TENSORS:
        return None
    described, offset, shape, strides = value.arguments[:4]
    key, dtype, count = _storage(described)
    tensor = Tensor(key, dtype, natural(offset), _sizes(shape), _sizes(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError(f"a tensor of shape {tensor.shape} and strides {tensor.strides}")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((side - 1) * stride for side, stride in steps)
    if tensor.size > count or (tensor.size and last >= count):
        raise ValueError(f"a tensor of shape {tensor.shape} in a storage of {count} values")
    return tensor


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Call) and value.function == Global("torch.Size"):
        value = value.arguments[0]
    return naturals(value)


def _arrays(
    path: Path, tensors: Mapping[str, Tensor], order: str, read: Callable[[str], bytes | memoryview]
) -> State:
    """Copy the numbers of tensors from their storages, reading each storage once.

    Args:
        path: The file, for errors.
        tensors: The tensors by key.
        order: "<" for little endian, ">" for big endian.
        read: Returns the bytes of a storage.
    """
    check_total(path, [tensor.size for tensor in tensors.values()])
    by_storage: dict[str, list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        by_storage[tensor.storage].append(key)
    arrays: State = {}
    for storage, keys in by_storage.items():
        data = read(storage)
        arrays.update((key, _array(data, tensors[key], order)) for key in keys)
    return {key: arrays[key] for key in tensors}


def _array(data: bytes | memoryview, tensor: Tensor, order: str) -> np.ndarray:
    stored = order + ("u2" if tensor.dtype == "bfloat16" else tensor.dtype)
    values = np.frombuffer(data, stored)
    steps: Iterable[tuple[int, int]] = zip(tensor.shape, tensor.strides, strict=True)
    if tensor.size and tensor.offset + sum((side - 1) * stride for side, stride in steps) >= len(values):
        raise ValueError(f"the storage {tensor.storage!r} holds {len(values)} values, fewer than stated")
    strides = [stride * values.itemsize for stride in tensor.strides]
    if not tensor.size:
        return np.zeros(tensor.shape, np.float32)
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
    return widen(view, tensor.dtype)

"""Functions that the readers of foreign files share: find the state dict, make arrays from bytes."""

import contextlib
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrcnn.checkpoints.foreign.pickles import Call, Global, short
from mrcnn.errors import InvalidDataError, reason

# {key: array}, with the keys of the library that wrote it.
State = dict[str, np.ndarray]

# The keys under which training scripts store the state dict, and the prefixes that wrappers add to every key
# (DistributedDataParallel, torch.compile, Lightning).
STATE_KEYS = ("model", "state_dict", "model_state_dict", "model_state")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Arrays are float32 at the end, which is up to four times what a file of int8 holds; shared weights count
# twice.
MAX_GROWTH = 8
SMALL_BYTES = 64 * 2**20

Item = TypeVar("Item")


@contextlib.contextmanager
def damage_named(path: Path, kind: str) -> Iterator[None]:
    """Convert errors about damaged data in the block to InvalidDataError with the name of the file."""
    try:
        yield
    except InvalidDataError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise InvalidDataError(f"the file is not a usable {kind}: {reason(error)}", file=path) from error
    except (OSError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError) as error:
        raise InvalidDataError(
            f"the file is a damaged {kind}: {reason(error)}. Download it again.", file=path
        ) from error


def find_state(
    path: Path, root: Any, as_item: Callable[[Any], Item | None], keys: Sequence[str] = STATE_KEYS
) -> dict[str, Item]:
    """Find the state dict in the content of a file, and remove the prefixes of wrappers from its keys.

    Args:
        path: The file, for errors.
        root: The value of the pickle.
        as_item: Returns the array that a value describes, or None if it describes something else.
        keys: Keys of a checkpoint under which the state dict may be.

    Raises:
        InvalidDataError: If there is no state dict.
    """
    values = as_mapping(root) or {}
    candidates = [as_mapping(values.get(key)) or {} for key in keys]
    for candidate in (*candidates, values):
        items = {key: as_item(value) for key, value in candidate.items() if isinstance(key, str)}
        state = {key: item for key, item in items.items() if item is not None}
        if state:
            return without_prefixes(state)
    content = root.function if isinstance(root, Call) else root
    described = content.name if isinstance(content, Global) else short(sorted(map(str, values)))
    raise InvalidDataError(
        "the file must hold a state dict, a dictionary of arrays, at the top level or under one of "
        f"{list(keys)}. Received: {described}. Save the weights with torch.save(model.state_dict(), path).",
        file=path,
    )


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """Return the entries of a dict or a described OrderedDict, or None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Call) and value.function == Global("collections.OrderedDict"):
        initial = value.arguments[0] if value.arguments else []
        return {key: entry for key, entry in (*initial, *value.entries) if isinstance(key, str)}
    return None


def without_prefixes(state: dict[str, Item]) -> dict[str, Item]:
    """Remove the prefixes that wrappers put before every key."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return without_prefixes({key[len(prefix) :]: value for key, value in state.items()})
    return state


def check_total(path: Path, sizes: Sequence[int]) -> None:
    """Raise InvalidDataError if a file of this size cannot hold arrays with these numbers of values."""
    total, length = 4 * sum(sizes), path.stat().st_size
    if total > max(SMALL_BYTES, MAX_GROWTH * length):
        raise InvalidDataError(
            f"the file ({length:,} bytes) states {total:,} bytes of weights, more than a file of this "
            "size can hold. Use a file from a source that you trust.",
            file=path,
        )


def naturals(values: Any) -> tuple[int, ...]:
    """Return the sizes in a shape. Raises ValueError or TypeError for anything else."""
    return tuple(map(natural, values))


def natural(value: Any) -> int:
    """Return a size or position. Raises ValueError for anything else."""
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"a size of {short(value)}")
    return value


def to_float32(data: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Make a float32 array from contiguous bytes.

    Args:
        data: Exactly the bytes of the array.
        dtype: A NumPy dtype such as "<f4", or "bfloat16" (little endian).
        shape: Shape of the array.

    Raises:
        ValueError: If size and shape do not agree.
    """
    if math.prod(shape) * item_size(dtype) != len(data) or any(side < 0 for side in shape):
        raise ValueError(f"{len(data):,} bytes for an array of shape {tuple(shape)} and type {dtype}")
    return widen(np.frombuffer(data, "<u2" if dtype == "bfloat16" else dtype), dtype).reshape(shape)


def widen(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return a float32 copy. Values of type "bfloat16" are the upper half of a float32, read as uint16."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, order="C", copy=True)


def item_size(dtype: str) -> int:
    """Return the bytes of one value."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize

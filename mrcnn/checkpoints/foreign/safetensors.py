"""Read .safetensors files: a JSON header that describes the tensors, followed by their bytes."""

import json
import math
from pathlib import Path
from typing import Any

from mrcnn.checkpoints.foreign.states import (
    State,
    check_total,
    damage_named,
    item_size,
    to_float32,
    without_prefixes,
)
from mrcnn.errors import InvalidDataError

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # of the format
METADATA = "__metadata__"


def read_safetensors(path: Path) -> State:
    """Read all tensors of a .safetensors file.

    Returns:
        {key: float32 array}.

    Raises:
        InvalidDataError: If the file is damaged.
    """
    with damage_named(path, ".safetensors file"), path.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if length > min(MAX_HEADER, path.stat().st_size - LENGTH_BYTES):
            raise InvalidDataError(
                f"the file states a header of {length:,} bytes, more than the file holds.", file=path
            )
        header = json.loads(stream.read(length).decode("utf-8"), object_pairs_hook=_unique)
        header.pop(METADATA, None)
        start = LENGTH_BYTES + length
        sizes = _check_layout(header, path.stat().st_size - start)
        check_total(path, sizes)
        arrays: State = {}
        for key, entry in header.items():
            first, end = entry["data_offsets"]
            stream.seek(start + first)
            arrays[key] = to_float32(stream.read(end - first), DTYPES[entry["dtype"]], entry["shape"])
    return without_prefixes(arrays)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("the header has the same key twice")
    return values


def _check_layout(header: dict[str, Any], length: int) -> list[int]:
    """Check that the tensors fill the data without gaps or overlaps, and return their numbers of values."""
    position, sizes = 0, []
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, end = entry["data_offsets"]
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"the tensor {key!r} has the type {entry['dtype']}, which is not supported")
        if not all(isinstance(number, int) and number >= 0 for number in (first, end, *entry["shape"])):
            raise ValueError(f"the tensor {key!r} has sizes that are not natural numbers")
        size = math.prod(entry["shape"])
        if first != position or end - first != size * item_size(DTYPES[entry["dtype"]]) or end > length:
            raise ValueError(f"the tensor {key!r} is at bytes {first} to {end}, where it does not fit")
        position = end
        sizes.append(size)
    if position != length:
        raise ValueError(f"{length - position} bytes belong to no tensor")
    return sizes

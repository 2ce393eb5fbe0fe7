"""Annotation files: read bytes and JSON, and get validated values from them."""

import json
import math
import os
from pathlib import Path
from typing import Any, TypeAlias

from mrcnn.errors import InvalidDataError, UnreadableFileError, reason
from mrcnn.files.ordinary import check_ordinary
from mrcnn.formats.problems import BrokenEntryError, short

Record: TypeAlias = dict[str, Any]
Source: TypeAlias = str | os.PathLike[str]

TYPE_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number"}


def read_bytes(path: Source) -> bytes:
    """Return the content of a file.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it is a folder, a pipe or a device, or cannot be read.
    """
    check_ordinary(path)
    try:
        return Path(path).read_bytes()
    except (OSError, MemoryError) as error:
        raise UnreadableFileError(f"The file cannot be read: {reason(error)}", file=path) from error


def read_json(path: Source) -> Any:
    """Return the content of a JSON file.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it cannot be read.
        InvalidDataError: If it is not valid JSON. The message names line and column.
    """
    content = read_bytes(path)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InvalidDataError(
            f"The file is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}. It "
            "may be incomplete. Save or copy it again.",
            file=path,
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidDataError(
            f"The file must be UTF-8 text: {error.reason} at byte {error.start}.", file=path
        ) from error
    except RecursionError as error:
        raise InvalidDataError("The JSON is nested too deeply.", file=path) from error
    except (ValueError, MemoryError) as error:  # ValueError: an integer with thousands of digits
        raise InvalidDataError(f"The JSON cannot be read: {reason(error)}", file=path) from error


def field(
    record: Any, name: str, kind: type | tuple[type, ...], file: Source, entry: str | None = None
) -> Any:
    """Return a field of a JSON object.

    Args:
        record: The object.
        name: Name of the field.
        kind: The type or types that it may have. True and False do not count as integers.
        file: The file, for the error.
        entry: The entry of the file, for the error.

    Raises:
        BrokenEntryError: If the field is missing or has another type.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = [TYPE_NAMES.get(one, one.__name__) for one in kinds if one is not int or float not in kinds]
    requirement = f"`{name}` must be {' or '.join(names)}"
    location: Record = {"file": file, "entry": entry, "field": name}
    if not isinstance(record, dict):
        raise BrokenEntryError(
            f"{requirement}, but the entry is not a JSON object. Received: {short(record)}", **location
        )
    if name not in record:
        raise BrokenEntryError(
            f"{requirement}, but it is missing. The fields are {short(list(record))}", **location
        )
    value = record[name]
    is_right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if not is_right:
        raise BrokenEntryError(f"{requirement}. Received: {short(value)}", **location)
    if isinstance(value, str) and not is_text(value):
        raise BrokenEntryError(f"{requirement} of printable characters. Received: {short(value)}", **location)
    return value


def number(record: Any, name: str, file: Source, entry: str | None = None) -> float:
    """Return a field that must be a finite number; see `field`."""
    value = field(record, name, (int, float), file, entry)
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise BrokenEntryError(
            f"`{name}` must be a finite number. Received: {short(value)}", file=file, entry=entry, field=name
        )
    return converted


def side(record: Any, name: str, file: Source, entry: str | None = None) -> int:
    """Return a field that must be the height or width of an image in pixels; see `field`."""
    value = number(record, name, file, entry)
    if value < 1 or value != int(value):
        raise BrokenEntryError(
            f"`{name}` must be a number of pixels, 1 or more. Received: {short(value)}",
            file=file,
            entry=entry,
            field=name,
        )
    return int(value)


def identifier(record: Any, name: str, file: Source, entry: str | None = None) -> int | str:
    """Return a field that must be an id: an integer or a string; see `field`. 3.0 is the id 3."""
    value = field(record, name, (int, float, str), file, entry)
    if isinstance(value, float):
        if not value.is_integer():
            raise BrokenEntryError(
                f"`{name}` must be an integer or a string. Received: {short(value)}",
                file=file,
                entry=entry,
                field=name,
            )
        return int(value)
    known: int | str = value
    return known


def is_text(value: str) -> bool:
    """Return whether a string has only complete characters. Broken JSON may contain lone surrogates."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

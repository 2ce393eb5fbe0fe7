"""Write files atomically: completely, or not at all."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names of the temporary files of `atomic_write`, and of the weight files of earlier versions.
LEFTOVER = re.compile(r"\..+-\w{8}\.part(\.\w+)?|\..+\.[0-9a-f]{8}\.tmp")
# The part of a name that a temporary name repeats, in bytes. File systems allow 143 bytes or more for a name.
PREFIX_BYTES = 64
# Suffixes that some writers need. Other texts behind a dot may be long.
SUFFIX = re.compile(r"\.\w{1,10}")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block succeeds.

    A reader never sees a partial file: if an error occurs, the process is killed or the disk is full, the
    previous file at `path` remains unchanged. If the block raises an error, the temporary file is removed.
    Its name starts with a dot and keeps the suffix of `path`, which some writers need. It is short enough for
    every file system that has room for the name of `path`.

    Args:
        path: The file to write. Its folder is created if it is missing.

    Raises:
        OSError: If the file cannot be created or renamed; the error names `path`.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if SUFFIX.fullmatch(path.suffix) else ""
        name = f"{hidden_prefix(path.stem)}{secrets.token_hex(4)}.part{suffix}"
        # Not `tempfile`, whose files are private: this one has the permissions of any new file.
        (path.parent / name).touch(exist_ok=False)
        temporary = path.parent / name
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) == path:
            raise
        raise OSError(error.errno, f"Cannot write {path}: {error.strerror or error}", str(path)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def hidden_prefix(name: str) -> str:
    """Return how the names of temporary files begin: with a dot and a name, cut to PREFIX_BYTES."""
    while len(os.fsencode(name)) > PREFIX_BYTES:
        name = name[:-1]
    return f".{name}-"


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically; see `atomic_write`. `value` must be serializable."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files that a killed process left in a folder, as far as possible."""
    for path in Path(folder).iterdir():
        if LEFTOVER.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()

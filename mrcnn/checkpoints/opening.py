"""Open weight files from untrusted sources."""

import os
import stat
from pathlib import Path

from mrcnn.errors import InvalidDataError, MissingFileError, UnreadableFileError

ZIP_MAGIC = b"PK\x03\x04"  # the first bytes of a zip archive


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` if it is an ordinary file.

    A FIFO or a device raises an error before it is opened, because opening a FIFO waits until another process
    writes.

    Raises:
        MissingFileError: If there is no file.
        UnreadableFileError: For a folder.
        InvalidDataError: For anything else that is not an ordinary file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MissingFileError(
            f"the weight file does not exist (current folder: {os.getcwd()}). Correct the path, or "
            "download the file.",
            file=path,
        ) from None
    if stat.S_ISDIR(mode):
        raise UnreadableFileError("the path must be a weight file, but it is a folder.", file=path)
    if not stat.S_ISREG(mode):
        raise InvalidDataError("the path must be a weight file, but it is a FIFO or a device.", file=path)
    return path


def read_start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(length)

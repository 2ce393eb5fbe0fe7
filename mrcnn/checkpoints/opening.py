"""Open weight files from untrusted sources."""

import os
from pathlib import Path

from mrcnn.errors import MissingFileError
from mrcnn.files.ordinary import check_ordinary

ZIP_MAGIC = b"PK\x03\x04"  # the first bytes of a zip archive


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` if it is an ordinary file.

    Raises:
        MissingFileError: If there is no file.
        UnreadableFileError: If it is a folder, a FIFO or a device, or cannot be accessed.
    """
    path = Path(path)
    try:
        check_ordinary(path)
    except MissingFileError:
        raise MissingFileError(
            f"The weight file does not exist (current folder: {os.getcwd()}). Correct the path, or "
            "download the file.",
            file=path,
        ) from None
    return path


def read_start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(length)

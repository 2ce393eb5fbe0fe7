"""Open weight files that may come from strangers."""

import os
import stat
from pathlib import Path

ZIP_MAGIC = b"PK\x03\x04"  # the first bytes of a zip archive


class WeightFileError(ValueError):
    """A weight file that cannot be used. The message names the file and what is wrong with it."""


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` if it is an ordinary file.

    A FIFO or a device is refused without being opened: opening a FIFO waits until another process writes.

    Raises:
        FileNotFoundError: If nothing is there.
        IsADirectoryError: For a folder.
        WeightFileError: For anything else that is not an ordinary file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(
            f"The weight file {path} does not exist (current folder: {os.getcwd()}). Correct the path or "
            "download the file."
        ) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"A weight file is needed. Received the folder {path}.")
    if not stat.S_ISREG(mode):
        raise WeightFileError(f"A weight file is needed. {path} is a FIFO or a device.")
    return path


def read_start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(length)

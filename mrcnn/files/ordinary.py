"""Check whether a path is an ordinary file before opening it."""

import os
import stat

from mrcnn.errors import MissingFileError, UnreadableFileError, reason


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """Check that a path is an ordinary file, because opening a FIFO would wait until another process writes.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it is a folder, a FIFO or a device, or cannot be accessed.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise MissingFileError("There is no such file.", file=path) from None
    except (OSError, ValueError) as error:  # such as a name that is too long or contains a NUL character
        raise UnreadableFileError(
            f"The file cannot be opened: {reason(error)}. Check its path and your permissions.", file=path
        ) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a FIFO or a device"
        raise UnreadableFileError(f"The path must be a file, but it is {kind}.", file=path)


def is_ordinary(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an ordinary file, or a link to one."""
    try:
        check_ordinary(path)
    except UnreadableFileError:
        return False
    return True

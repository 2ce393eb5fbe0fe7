"""Open weight files from untrusted sources."""

import os
from pathlib import Path

from mrcnn.errors import MissingFileError, UnreadableFileError
from mrcnn.files.ordinary import check_ordinary

ZIP_MAGIC = b"PK\x03\x04"  # the first bytes of a zip archive


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` if it is an ordinary file.

    Raises:
        MissingFileError: If there is no file.
        UnreadableFileError: If it is a folder, a FIFO or a device, or cannot be accessed.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise UnreadableFileError(
            f"The path must be a file, but it is a folder.{_newest_weights(path)}", file=path
        )
    try:
        check_ordinary(path)
    except MissingFileError:
        raise MissingFileError(
            f"The weight file does not exist (current folder: {os.getcwd()}). Correct the path, or "
            "download the file.",
            file=path,
        ) from None
    return path


def _newest_weights(folder: Path) -> str:
    """Return a sentence that names the newest weight file in a folder of one or more runs, or ""."""
    found = [path for pattern in ("mask_rcnn_*.h5", "*/mask_rcnn_*.h5") for path in folder.glob(pattern)]
    newest = max(found, key=lambda path: (path.stat().st_mtime_ns, path), default=None)
    return f" Its newest weight file is {newest}." if newest else ""


def read_start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(length)

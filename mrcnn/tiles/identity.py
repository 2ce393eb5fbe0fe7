"""What identifies the pixels of a source in files, so that a run continues with the same image only."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def identity_of(
    files: Iterable[str | os.PathLike[str]],
    *,
    page: int = 0,
    channels: Sequence[int] | None = None,
    level: int = 0,
) -> dict[str, Any]:
    """Return the size and time of files, and the part that is read of them, as JSON.

    Args:
        files: The files that hold the pixels.
        page, channels, level: The part; see `mrcnn.tiles.sources.open_source`.
    """
    status = {os.path.abspath(file): Path(file).stat() for file in files}
    return {
        "files": {
            name: {"bytes": one.st_size, "time_ns": one.st_mtime_ns} for name, one in sorted(status.items())
        },
        "part": {
            "page": int(page),
            "channels": None if channels is None else [int(channel) for channel in channels],
            "level": int(level),
        },
    }

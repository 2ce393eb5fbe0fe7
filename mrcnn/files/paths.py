"""Paths relative to a folder, also across the drives of Windows."""

import os
from pathlib import Path


def relative_path(file: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """Return the path of a file relative to a folder, with slashes; from another drive, the whole path."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # Windows has no path from one drive to another
        return Path(file).as_posix()


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder or below it. Both are absolute."""
    try:
        return os.path.commonpath([folder, path]) == os.fspath(folder)
    except ValueError:  # different drives of Windows
        return False

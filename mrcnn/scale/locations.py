"""Folders on disk and in object stores, and the images in them."""

import os
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import fs

from mrcnn.errors import MissingFileError, UnreadableFileError, reason
from mrcnn.files.images import SUFFIXES


def open_location(location: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the file system of a location, and the path in it.

    Args:
        location: A path on disk, or an address such as s3://bucket/folder. PyArrow opens s3, gs, abfs, hdfs
            and file addresses; fsspec opens those of all other packages that are installed.

    Returns:
        A pyarrow.fs.FileSystem, and the path.

    Raises:
        ValueError: If nothing that is installed opens addresses of this kind.
    """
    text = os.fspath(location)
    if "://" not in text:
        return fs.LocalFileSystem(), Path(text).absolute().as_posix()
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        system, path = _by_fsspec(text)
    return system, path.rstrip("/")


def read_content(system: Any, path: str) -> bytes:
    """Return the content of a file.

    Args:
        system: A pyarrow.fs.FileSystem.
        path: The path in it.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError:
        raise
    except Exception as error:  # file systems of other packages raise errors of their own
        raise UnreadableFileError(reason(error)) from error


def _by_fsspec(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"No installed package opens this address. Received: {address}. Install the package that fsspec "
            f"needs for it ({error})."
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def list_files(location: str | os.PathLike[str], suffixes: set[str]) -> list[str]:
    """Return the files of a folder and its subfolders that have one of the suffixes.

    Args:
        location: See `open_location`.
        suffixes: Suffixes in lowercase, with the dot.

    Returns:
        Sorted paths relative to the folder, with slashes. Hidden files and folders are left out.

    Raises:
        MissingFileError: If the folder does not exist.
    """
    system, root = open_location(location)
    if system.get_file_info(root).type != fs.FileType.Directory:
        raise MissingFileError("There is no such folder.", file=location)
    found = []
    for info in system.get_file_info(fs.FileSelector(root, recursive=True)):
        name = info.path[len(root) :].lstrip("/")
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if info.type == fs.FileType.File and not is_hidden and Path(name).suffix.lower() in suffixes:
            found.append(name)
    return sorted(found)


def list_images(location: str | os.PathLike[str]) -> list[str]:
    """Return the images of a folder and its subfolders; see `list_files`.

    Raises:
        MissingFileError: If the folder does not exist, or contains no images.
    """
    found = list_files(location, SUFFIXES)
    if not found:
        raise MissingFileError(
            f"The folder contains no images. Supported suffixes: {', '.join(sorted(SUFFIXES))}.",
            file=location,
        )
    return found

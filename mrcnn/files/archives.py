"""Read the files of zip archives, which may come from untrusted sources.

Members are read into memory, or `extract` unpacks them into a folder. The sizes that an archive declares are
compared with limits before anything is read, and with the actual sizes afterwards. All errors are from
`mrcnn.errors` and name the archive and the member.
"""

import errno
import functools
import io
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files import hidden_prefix
from mrcnn.files.ordinary import check_ordinary

MAX_MEMBER_SIZE = 1 << 30  # bytes of an unpacked member that is read into memory
MAX_UNPACKED = 1 << 38  # bytes that `extract` writes
ENCRYPTED = 0x1  # flag of a member
# Python unpacks BZIP2 and LZMA without a limit on the result, so only a little is unpacked at a time. A block
# of BZIP2 can still become 46 MB.
CHUNK = {zipfile.ZIP_STORED: 1 << 20, zipfile.ZIP_DEFLATED: 1 << 20}
SMALL_CHUNK = 1 << 8
# An absolute path, a drive, or a step to the parent folder.
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\].*)?$", re.DOTALL)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a file whose end looks like that of a zip archive. It may still be damaged."""
    try:
        check_ordinary(path)
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def member_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the files in a zip archive, in the order of the archive.

    Folders are left out, and so are names that point outside the archive's folder; see `outside_names`.

    Raises:
        MissingFileError: If there is no such archive.
        UnreadableFileError: If it is not a zip archive, or is damaged.
    """
    return [name for name in _archive(path).namelist() if not (name.endswith("/") or _is_outside(name))]


def outside_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names in a zip archive that are absolute or point to a parent folder. They are not used.

    Raises:
        MissingFileError, UnreadableFileError: See `member_names`.
    """
    return [name for name in _archive(path).namelist() if _is_outside(name)]


def open_member(path: str | os.PathLike[str], member: str, max_size: int = MAX_MEMBER_SIZE) -> BinaryIO:
    """Read a member of a zip archive into memory.

    Args:
        path: The archive.
        member: Name of the member, with "/" between folders.
        max_size: The largest size in bytes.

    Returns:
        The content as an open file.

    Raises:
        MissingFileError: If there is no such archive or member.
        UnreadableFileError: If the member is encrypted, damaged or of an unknown compression.
        InvalidDataError: If it declares or holds more than `max_size` bytes, or the two sizes differ.
    """
    content = io.BytesIO()
    _copy(path, _archive(path), member, content.write, max_size)
    content.seek(0)
    return content


def extract(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], max_size: int = MAX_UNPACKED
) -> list[Path]:
    """Unpack a zip archive into a new folder, which appears when it is complete.

    Until then, the files are in a hidden folder beside it, which is removed after an error. If the process is
    killed, it remains.

    Args:
        path: The archive.
        folder: The folder to create. An empty one may exist.
        max_size: The largest sum of all sizes in bytes.

    Returns:
        The paths of the files.

    Raises:
        MissingFileError, UnreadableFileError: See `open_member`.
        InvalidDataError: If a name points outside the folder, or the archive declares more than `max_size`
            bytes.
        FileExistsError: If the folder has files, or is a file itself.
        OSError: If a file cannot be written.
    """
    place = Path(os.path.realpath(folder))
    _check_new(place)
    archive = _archive(path)
    if outside := outside_names(path):
        raise InvalidDataError(
            "the name points outside the folder. Use an archive from a source that you trust.",
            file=path,
            entry=outside[0],
        )
    stated = sum(info.file_size for info in archive.infolist())
    if stated > max_size:
        raise InvalidDataError(
            f"the archive declares {stated} bytes, but at most {max_size} are unpacked. Pass a larger "
            "`max_size` if you trust the archive.",
            file=path,
        )
    unfinished = place.parent / f"{hidden_prefix(place.name)}{secrets.token_hex(4)}.part"
    try:
        unfinished.mkdir(parents=True)
        names = member_names(path)
        for name in names:
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                _copy(path, archive, name, file.write, max_size)
        if place.exists():
            place.rmdir()  # Windows does not rename to an existing folder
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [Path(folder, name) for name in names]


def _check_new(folder: Path) -> None:
    """Raise FileExistsError if something is at the path of a new folder, except an empty folder."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(
            errno.EEXIST, "The folder to unpack into must be new or empty. Choose another one", str(folder)
        )


def _copy(
    path: str | os.PathLike[str],
    archive: zipfile.ZipFile,
    member: str,
    write: Callable[[bytes], object],
    max_size: int,
) -> None:
    """Pass the content of a member to `write`, part by part."""
    name = f"{os.fspath(path)}/{member}"
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise MissingFileError("The zip archive has no such file.", file=name) from None
    if info.flag_bits & ENCRYPTED:
        raise UnreadableFileError("The file is encrypted. Unpack the zip archive first.", file=name)
    if info.file_size > max_size:
        raise InvalidDataError(
            f"The file declares {info.file_size} bytes, but at most {max_size} are read from a zip "
            "archive. Unpack the archive if you trust it.",
            file=name,
        )
    size = 0
    try:
        with archive.open(info) as stream:
            chunk = CHUNK.get(info.compress_type, SMALL_CHUNK)
            if isinstance(stream, zipfile.ZipExtFile):
                stream.MIN_READ_SIZE = min(chunk, zipfile.ZipExtFile.MIN_READ_SIZE)
            while part := stream.read(chunk):
                size += len(part)
                write(part)
    except DataError:
        raise
    except Exception as error:  # zlib, lzma, bz2 and zipfile raise many kinds
        raise UnreadableFileError(
            f"The file in the zip archive cannot be read: {reason(error)}. Download or copy the archive "
            "again.",
            file=name,
        ) from error
    if size != info.file_size:
        raise InvalidDataError(
            f"The file in the zip archive declares {info.file_size} bytes but holds {size}. Download or "
            "copy the archive again.",
            file=name,
        )


def _is_outside(name: str) -> bool:
    return OUTSIDE.match(name) is not None


def _archive(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    check_ordinary(path)
    status = os.stat(path)
    try:
        return _open_archive(os.fspath(path), os.getpid(), status.st_mtime_ns, status.st_size)
    except Exception as error:  # BadZipFile, struct.error, NotImplementedError and others
        raise UnreadableFileError(
            f"The zip archive cannot be opened: {reason(error)}. Download or copy it again, or unpack it.",
            file=path,
        ) from error


@functools.lru_cache(maxsize=8)
def _open_archive(path: str, process: int, modified: int, size: int) -> zipfile.ZipFile:
    """Open an archive. Threads may share it, but processes may not: they would share the file position.

    Args:
        path: The archive.
        process: Id of the process.
        modified: Time of the last change, so that a replaced file is reopened.
        size: Bytes of the file.
    """
    return zipfile.ZipFile(path)

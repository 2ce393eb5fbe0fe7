"""Find the image files of a dataset in folders and zip archives."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from mrcnn.errors import MissingFileError, UnreadableFileError, reason
from mrcnn.files import archives
from mrcnn.files.images import SUFFIXES
from mrcnn.formats.files import Source
from mrcnn.formats.problems import OUTSIDE_FOLDER, BrokenEntryError, short


def locate(folder: Path, name: str, within: Path | None = None) -> Path:
    r"""Return the path of a file that an annotation file names.

    Args:
        folder: The folder that the name is relative to.
        name: The name, with slashes or, as on Windows, backslashes.
        within: The folder inside which the path must be, by default `folder`.

    Raises:
        BrokenEntryError: If the path is outside this folder. Links inside the folder are followed.
    """
    path = folder / name
    if "\\" in name and not os.path.isfile(path):
        name = name.replace("\\", "/")
        path = folder / name
    root = os.path.abspath(folder if within is None else within)
    target = os.path.abspath(path)
    has_drive = bool(PureWindowsPath(name).drive) and not os.path.isfile(path)
    if has_drive or os.path.commonpath([root, target]) != root:
        raise BrokenEntryError(
            f"The path of an image must be inside the folder {root}. Received: {short(name)}. Pass "
            "`within` to allow another folder.",
            kind=OUTSIDE_FOLDER,
        )
    return Path(os.path.normpath(path)) if ".." in PurePosixPath(name).parts else path


def images_in(root: Source, folder: str) -> list[str]:
    """Return the image files of a folder, or of a folder in a zip archive.

    Args:
        root: A folder or a zip file.
        folder: The folder inside `root`, or "" for `root` itself.

    Returns:
        Paths below the root in the order of their names, without hidden files. Those of a zip archive are
        spelled as in the archive.

    Raises:
        MissingFileError: If there is no such folder.
        UnreadableFileError: If the folder or archive cannot be read.
    """
    root = Path(root)
    if not root.exists():
        raise MissingFileError("There is no such folder or zip file.", file=root)
    if root.is_dir():
        if not (root / folder).is_dir():
            raise MissingFileError("There is no such folder.", file=root / folder)
        try:
            names = {path.name: str(PurePosixPath(folder, path.name)) for path in (root / folder).iterdir()}
        except OSError as error:
            raise UnreadableFileError(reason(error), file=root / folder) from error
        paths = {PurePosixPath(folder, name): path for name, path in names.items()}
    else:
        members = {PurePosixPath(name.replace("\\", "/")): name for name in archives.member_names(root)}
        paths = {path: name for path, name in members.items() if path.parent == PurePosixPath(folder)}
        if not paths:
            raise MissingFileError(f"The archive has no folder {folder!r}.", file=root)
    return [paths[path] for path in sorted(paths) if path.suffix.lower() in SUFFIXES and path.name[0] != "."]


def by_stem(paths: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the first path of each name without suffix, and the other paths, whose names are taken."""
    first: dict[str, str] = {}
    others = []
    for path in paths:
        stem = PurePosixPath(path.replace("\\", "/")).stem
        if first.setdefault(stem, path) != path:
            others.append(path)
    return first, others


def annotation_files(folder: Source, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files of a folder with these suffixes by their names without suffix; the first suffix wins.

    Raises:
        MissingFileError: If there is no such folder, or none of the files.
    """
    folder = Path(folder)
    found: dict[str, Path] = {}
    for suffix in suffixes:
        for path in sorted(folder.glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
    if not found:
        kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise MissingFileError(f"There is no file {kinds} in this folder.", file=folder)
    return found


def folders_in(root: Source) -> list[str]:
    """Return the names of the folders in a folder, sorted.

    Raises:
        MissingFileError: If there is no such folder.
        UnreadableFileError: If it cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingFileError("There is no such folder.", file=root)
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise UnreadableFileError(reason(error), file=root) from error

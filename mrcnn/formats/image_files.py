"""Find the image files of a dataset in folders and zip archives."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO
from urllib.parse import unquote

from mrcnn.errors import MissingFileError, UnreadableFileError, reason
from mrcnn.files import archives
from mrcnn.files.images import SUFFIXES
from mrcnn.files.paths import is_inside
from mrcnn.formats.files import Source
from mrcnn.formats.problems import OUTSIDE_FOLDER, BrokenEntryError, short

# Ends of the names of label files: those of Cellpose come first.
LABEL_ENDS = ("_seg", "_cp_masks", "_masks", "_mask", "_labels", "_label")
# End of the names of OME-TIFF files, without the last suffix.
OME_END = ".ome"
# What Label Studio puts before the names of uploaded files.
UPLOADED = re.compile(r"[0-9a-f]{8}-")
# Folders of a path that are looked at, from its end.
MOST_FOLDERS = 8


def locate(folder: Path, name: str, within: Path | None = None) -> Path:
    r"""Return the path of a file that an annotation file names.

    Args:
        folder: The folder that the name is relative to.
        name: The name, with slashes or, as on Windows, backslashes. Its accents may be single characters
            while those on the disk are separate, as in archives from a Mac, or the reverse.
        within: The folder inside which the path must be, by default `folder`.

    Raises:
        BrokenEntryError: If the path is outside this folder. Links inside the folder are followed.
    """
    path = folder / name
    if "\\" in name and not os.path.isfile(path):
        name = name.replace("\\", "/")
        path = folder / name
    if not name.isascii() and not os.path.isfile(path):
        path = _in_other_form(folder, name)
    root = os.path.abspath(folder if within is None else within)
    target = os.path.abspath(path)
    has_drive = bool(PureWindowsPath(name).drive) and not os.path.isfile(path)
    if has_drive or not is_inside(target, root):
        raise BrokenEntryError(
            f"The path of an image must be inside the folder {root}. Received: {short(name)}. Pass "
            "`within` to allow another folder.",
            kind=OUTSIDE_FOLDER,
        )
    return Path(os.path.normpath(path)) if ".." in PurePosixPath(name).parts else path


def _in_other_form(folder: Path, name: str) -> Path:
    """Return the path of a file, each part in the normal form of Unicode in which it exists, if any."""
    path = folder
    for part in PurePosixPath(name).parts:
        forms = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        path = next((path / form for form in forms if os.path.exists(path / form)), path / part)
    return path


def moved(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Find images that are not where annotations say, such as those that were annotated on another machine.

    The longest end of a path that a file in the folder has is taken, if no other name may mean this file.
    Names may be percent-encoded, and have the prefix of an upload to Label Studio.

    Args:
        folder: The folder of the images.
        names: The names of the annotation files; see `locate`.

    Returns:
        The path below the folder for each of these names whose file is found in this way.
    """
    meant = {name: found for name in names if (found := _meant(folder, name)) is not None}
    files = {name: os.path.abspath(file) for name, (_, file) in meant.items()}
    claims = Counter(files.values())
    return {
        name: end
        for name, (end, _) in meant.items()
        if end not in (name, name.replace("\\", "/")) and claims[files[name]] == 1
    }


def _meant(folder: Path, name: str) -> tuple[str, Path] | None:
    """Return the name, or the end of it that a file in the folder has, and this file; None without one."""
    for path in dict.fromkeys((name, name.replace("\\", "/"))):
        if os.path.isfile(folder / path):
            return name, folder / path
    paths = ((end, _in_other_form(folder, end)) for end in _ends(name))
    return next((pair for pair in paths if os.path.isfile(pair[1])), None)


def _ends(name: str) -> Iterator[str]:
    """Yield the ends of a path, longest first: as it is, decoded, and without the prefix of an upload."""
    address = name.rpartition("?d=")[2] if "://" not in name else name.partition("?")[0]
    for text in dict.fromkeys((name, unquote(address))):
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        while ".." in parts:
            del parts[: parts.index("..") + 1]
        ends = [parts[start:] for start in range(max(0, len(parts) - MOST_FOLDERS), len(parts))]
        yield from ("/".join(end) for end in ends)
        for *folders, last in ends:
            if UPLOADED.match(last):
                yield "/".join([*folders, UPLOADED.sub("", last, count=1)])


def images_in(root: Source, folder: str, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Return the image files of a folder, or of a folder in a zip archive.

    Args:
        root: A folder or a zip file.
        folder: The folder inside `root`, or "" for `root` itself.
        suffixes: The suffixes of the files, in lower case.

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
    return [paths[path] for path in sorted(paths) if path.suffix.lower() in suffixes and path.name[0] != "."]


def open_image(root: Path, name: str) -> Path | BinaryIO:
    """Return an image of `images_in` as `read_image` takes it: its path, or the open member of a zip file."""
    return root / name if root.is_dir() else archives.open_member(root, name)


def stem(path: str) -> str:
    """Return the name of a file without suffix. Folders may end in slashes or backslashes."""
    return PurePosixPath(path.replace("\\", "/")).stem


def _names_of(images: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the names that annotation files may have for each image: a.ome.tif, a.ome, and a if free."""
    stems = {image: stem(image) for image in images}
    taken = {*stems.values(), ""}
    named: dict[str, tuple[str, ...]] = {}
    for image, own in stems.items():
        short = own.removesuffix(OME_END)
        named[image] = (_name(image), own) if short in taken else (_name(image), own, short)
    return named


def by_stem(paths: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the first path of each name without suffix, and the other paths, whose names are taken."""
    first: dict[str, str] = {}
    others = []
    for path in paths:
        if first.setdefault(stem(path), path) != path:
            others.append(path)
    return first, others


def match(paths: Iterable[str], annotated: Collection[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Match images with annotation files, such as a.txt or, if several images are called a, a.png.txt.

    Those of a.ome.tif may also be called a.txt.

    Args:
        paths: The image files.
        annotated: The names of the annotation files without their suffix, such as "a" or "a.png".

    Returns:
        found: The image files, in their order, by the name of their annotation file; of an image that has
            none by its own name without suffix.
        others: Image files that have no annotation file, and whose name another image has.
        unused: The names of annotation files that have no image.
    """
    names = _names_of(paths)
    known = dict.fromkeys(annotated)
    whole = {name for name, *_ in names.values() if name in known}
    found: dict[str, str] = {}
    others = []
    for path, (name, *stems) in names.items():
        key = name if name in whole else next((one for one in stems if one in known), stems[0])
        if key in found or (key in whole and key != name):
            others.append(path)
        else:
            found[key] = path
    return found, others, [name for name in known if name not in found]


def by_image(labels: Iterable[str], images: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the first label file of each image by the name of the image, and the other label files.

    The name is that of the label file without suffix or, if no image is called so, without one of LABEL_ENDS,
    either.
    """
    names = {name for own in _names_of(images).values() for name in own}
    stems = {label: stem(label) for label in labels}
    keys = {label: _image_of(name, names) or name for label, name in stems.items()}
    first: dict[str, str] = {}
    others = []
    for label in sorted(
        keys, key=lambda label: (keys[label] != stems[label], not label.endswith("_seg.npy"))
    ):
        if first.setdefault(keys[label], label) != label:
            others.append(label)
    return {key: first[key] for key in sorted(first)}, sorted(others)


def beside_images(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the files of a folder into images and their label files, which have one of LABEL_ENDS.

    Other files that have no label file count as images.
    """
    images = [file for file in files if PurePosixPath(file).suffix.lower() in SUFFIXES]
    names = {name for own in _names_of(images).values() for name in own}
    labels = [file for file in files if _without_end(stem(file).removesuffix(OME_END), names)]
    taken = set(labels)
    return [image for image in images if image not in taken], labels


def _image_of(name: str, names: Collection[str]) -> str | None:
    """Return which of the names of images a label file belongs to, if any."""
    bases = dict.fromkeys((name, name.removesuffix(OME_END)))
    equal = next((base for base in bases if base in names), None)
    return equal or next((found for base in bases if (found := _without_end(base, names))), None)


def _without_end(name: str, names: Collection[str]) -> str | None:
    """Return which of the names the name of a label file is without one of LABEL_ENDS, if any."""
    bases = (name.removesuffix(end) for end in LABEL_ENDS if name.endswith(end))
    return next((base for base in bases if base in names), None)


def _name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name


def annotation_files(folder: Source, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files of a folder with these suffixes by their names without suffix; the first suffix wins.

    Hidden files are left out.

    Raises:
        MissingFileError: If there is no such folder, or none of the files.
    """
    folder = Path(folder)
    found: dict[str, Path] = {}
    for suffix in suffixes:
        for path in sorted(folder.glob(f"[!.]*{suffix}")):
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

"""Which annotation format a JSON file has. A file is parsed once, to recognize and to read it."""

import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.formats.files import read_json
from mrcnn.formats.problems import short

# Images that are looked for in a folder.
FIRST_IMAGES = 20
# JSON files of a folder, and of a subfolder for a hint in an error, that are looked at.
MOST_FILES, MOST_FOR_HINT = 1000, 20
COCO, VIA, LABELME = "coco", "via", "labelme"
# The format of a file that cannot be read, and of one that is none of those here.
UNREADABLE, OTHER = "unreadable", ""


class JsonFiles:
    """The formats of JSON files, and the contents of those that describe many images."""

    def __init__(self) -> None:
        self._kinds: dict[Path, str] = {}
        self._contents: dict[Path, Any] = {}

    def kind(self, path: Path) -> str:
        """Return COCO, VIA, LABELME, UNREADABLE or OTHER."""
        if path not in self._kinds:
            try:
                content = read_json(path)
            except DataError:
                self._kinds[path] = UNREADABLE
                return UNREADABLE
            self._kinds[path] = kind = _kind_of(content)
            if kind in (COCO, VIA):
                self._contents[path] = content
        return self._kinds[path]

    def take(self, path: Path) -> Any:
        """Return the content of a file whose kind is COCO or VIA, and forget it; None if it is not known."""
        return self._contents.pop(path, None)

    def for_many_images(self, folder: Path, most: int = MOST_FILES) -> list[Path]:
        """Return the COCO and VIA files of a folder, except hidden ones.

        Args:
            folder: The folder.
            most: The number of files to look at; see `samples`.
        """
        paths = samples(sorted(folder.glob("[!.]*.json")), most)
        return sorted(path for path in paths if self.kind(path) in (COCO, VIA))


def samples(paths: Sequence[Path], most: int = MOST_FILES) -> Sequence[Path]:
    """Return some files, among which one of a known format is likely if there is any.

    Thousands of files of another format are not all parsed: the first half is the first by name, as formats
    with a file for each image have many; the rest are the largest, as one of all images is large.

    Args:
        paths: The files, sorted.
        most: Their largest number.
    """
    if len(paths) <= most:
        return paths
    first = most // 2
    return [*paths[:first], *heapq.nlargest(most - first, paths[first:], key=_size)]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def first_images(content: Any) -> list[str]:
    """Return the names of the first images that a COCO or VIA file lists, with slashes."""
    whole = content if isinstance(content, dict) else {}
    entries = whole.get("images") or whole.get("_via_img_metadata") or whole
    records = list(entries.values()) if isinstance(entries, dict) else entries
    first = records[:FIRST_IMAGES] if isinstance(records, list) else []
    named = [record for record in first if isinstance(record, dict)]
    names = [record.get("file_name", record.get("filename")) for record in named]
    return [name.replace("\\", "/") for name in names if isinstance(name, str)]


def not_recognized(path: Path) -> InvalidDataError:
    """Return the error for a JSON file of another format."""
    content = read_json(path)
    if _kind_of(content) == LABELME:
        return InvalidDataError(
            "This is a LabelMe file, which describes one image. Pass the folder that it is in.", file=path
        )
    what = f"the fields {short(list(content))}" if isinstance(content, dict) else short(content)
    return InvalidDataError(
        "The file must be a COCO file, with `images`, `annotations` and `categories`, or a VIA file, with "
        f"`regions` of each image. Received: {what}. Export the annotations as COCO.",
        file=path,
    )


def _kind_of(content: Any) -> str:
    if not isinstance(content, dict):
        return OTHER
    is_via_3 = "metadata" in content and "file" in content  # the reader says what to do
    is_via = any(isinstance(entry, dict) and "regions" in entry for entry in content.values())
    found = {
        COCO: "annotations" in content and "images" in content,
        LABELME: "shapes" in content,
        VIA: "_via_img_metadata" in content or is_via or is_via_3,
    }
    return next((kind for kind, is_found in found.items() if is_found), OTHER)

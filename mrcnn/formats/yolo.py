"""YOLO segmentation text: one file per image, one line per object (https://docs.ultralytics.com)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files.ordinary import is_ordinary
from mrcnn.formats import image_files, problems
from mrcnn.formats.base import OutlineDataset
from mrcnn.formats.files import Record, Source, field, is_text, read_bytes
from mrcnn.formats.problems import BrokenEntryError, short

# Length of a line that describes a box.
BOX_LENGTH = 5
# The class names, which some programs write beside the label files.
NAMES_FILE = "classes.txt"
# A file of class names is small. Parsing YAML takes seconds for each megabyte.
MAX_NAMES_SIZE = 1 << 20


class YoloDataset(OutlineDataset):
    """Images with text files of lines "class x1 y1 x2 y2 ..." with coordinates relative to width and height.

    Class numbers in the files start at 0, class ids at 1. Lines of five numbers are boxes without an outline
    and are left out. `image_info` has `outlines`.
    """

    def load(
        self,
        images: Source,
        classes: Sequence[str] | Source,
        labels: Source | None = None,
        keep_empty: bool = True,
        source: str = "yolo",
    ) -> None:
        """Add the images of a folder.

        Args:
            images: The folder of the images.
            classes: Class names in the order of the numbers in the files, or a file that contains them:
                data.yaml, or a text file with one name per line.
            labels: The folder of the text files: of a.png its a.png.txt or else a.txt. By default the path of
                `images` with its last "images" replaced by "labels".
            keep_empty: Whether to add images without objects.
            source: Name of this source of ids. Classes of folders with the same source are merged by name.

        Raises:
            MissingFileError: If a folder or the file of names does not exist.
            UnreadableFileError: If a folder or the file of names cannot be read.
            InvalidDataError: If the file of names is broken, or no image is usable. Single broken lines are
                left out instead; see `problems`.
        """
        folder = Path(images)
        names = read_names(classes) if isinstance(classes, (str, os.PathLike)) else classes
        names = self._class_names(names, (), folder)
        class_ids = self._join_classes(source, dict(enumerate(names, start=1)), folder)
        texts = labels_of(folder) if labels is None else Path(labels)
        if not texts.is_dir():
            raise MissingFileError("There is no such folder of label files. Pass `labels`.", file=texts)
        found, others, unused = image_files.match(image_files.images_in(folder, ""), _text_files(texts))
        for other in others:
            self.problems.add(problems.SAME_NAME, str(folder / other))
        for name in unused:
            self.problems.add(problems.MISSING_ANNOTATED, str(texts / f"{name}.txt"))
        before = len(self.image_info)
        for name, file in found.items():
            self._add(name, folder / file, texts / f"{name}.txt", class_ids, source, keep_empty)
        self._finish(folder, before)

    def _add(
        self, name: str, image: Path, text: Path, class_ids: Mapping[int, Any], source: str, keep_empty: bool
    ) -> None:
        """Add one image and the lines of its label file."""
        lines: list[str] = []
        is_labeled = is_ordinary(text)
        if is_labeled:
            try:
                # A broken character spoils its line only.
                lines = read_bytes(text).decode("utf-8-sig", "replace").split("\n")
            except DataError as error:
                self.problems.add(problems.BROKEN_FIELD, str(error))
                is_labeled = False
        else:
            self.problems.add(problems.MISSING_LABELS, str(image))
        is_blank = not any(line.strip() for line in lines)
        if is_blank and not keep_empty:
            return
        info = self._add_file(source, name, image, outlines=[], is_empty=is_blank and is_labeled)
        for index, line in enumerate(lines if info else [], start=1):
            with self.problems.leave_out(text, f"line {index}"):
                self._add_line(info or {}, line, class_ids, text, f"line {index}")

    def _add_line(
        self, info: Record, line: str, class_ids: Mapping[int, Any], file: Path, entry: str
    ) -> None:
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            raise BrokenEntryError(f"A line must be numbers. Received: {short(line)}") from None
        if not values:
            return
        if len(values) == BOX_LENGTH:
            raise BrokenEntryError("The line is a box.", kind=problems.NO_OUTLINE)
        if len(values) % 2 == 0:
            raise BrokenEntryError(
                f"A line must be a class number and pairs of x and y. Received: {len(values)} numbers"
            )
        number = int(values[0]) + 1 if values[0].is_integer() else 0
        if number not in class_ids:
            message = f"The class is {short(line.split()[0])}."
            raise BrokenEntryError(message, kind=problems.UNKNOWN_CLASS)
        height, width = info["size"]
        with np.errstate(over="ignore"):  # of huge numbers; the points are checked later
            points = np.array(values[1:]).reshape(-1, 2) * (width, height)
        self._add_outline(info, class_ids[number], (points,), file, entry)


def read_names(path: Source) -> list[str]:
    """Read class names from the `names` of a data.yaml, or from a text file with one name per line.

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it cannot be read.
        InvalidDataError: If it contains no such names. The message names file and field.
    """
    path = Path(path)
    text = _read_text(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    names = field(_read_yaml(text, path), "names", (list, dict), path)
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if sorted(names, key=str) != sorted(numbers):
            raise InvalidDataError(
                f"`names` must be numbered 0, 1, 2, ... Received: {short(list(names))}",
                file=path,
                field="names",
            )
        names = [names[number] for number in numbers]
    for name in names:
        if not isinstance(name, str) or name.strip().lower() in ("", "~", "null") or not is_text(name):
            raise InvalidDataError(
                f"`names` must be a list of names. Received: {short(names)}", file=path, field="names"
            )
    return [name.strip() for name in names]


def images_of(path: Source, part: str = "train") -> Path | None:
    """Return the folder of images that a data.yaml names, or None if it names none that exists.

    Args:
        path: The data.yaml. Its `path` is relative to its folder, and the folders to `path`, or to the folder
            of the file.
        part: "train", "val" or "test".

    Raises:
        MissingFileError: If there is no such file.
        UnreadableFileError: If it cannot be read.
        InvalidDataError: If it is not valid YAML.
    """
    path = Path(path)
    content = _read_yaml(_read_text(path), path)
    named = {name: content.get(name) for name in ("path", part)} if isinstance(content, dict) else {}
    folder, root = named.get(part), named.get("path")
    if not isinstance(folder, str) or not folder.strip():
        return None
    roots = [path.parent / root, path.parent] if isinstance(root, str) else [path.parent]
    # Roboflow writes "../train/images" for the folder train/images beside the file.
    found = [base / name for base in roots for name in (folder, folder.removeprefix("../"))]
    return next((Path(os.path.normpath(one)) for one in found if os.path.isdir(one)), None)


def labels_of(images: Source) -> Path:
    """Return the folder of the labels: the path with "labels" in place of its last part "images".

    Raises:
        InvalidDataError: If no part is called "images".
    """
    images = Path(images)
    parts = list(images.parts)
    if "images" not in parts:
        raise InvalidDataError(
            "The path must contain a folder named 'images', so that the labels are in 'labels' beside it. "
            "Pass `labels` if they are elsewhere.",
            file=images,
        )
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _read_text(path: Path) -> str:
    """Return the content of a small text file."""
    content = read_bytes(path)
    if len(content) > MAX_NAMES_SIZE:
        raise InvalidDataError(
            f"A file of class names may have at most {MAX_NAMES_SIZE} bytes. Received: {len(content)} bytes. "
            "Pass data.yaml, or a text file with one name per line.",
            file=path,
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDataError(f"The file must be UTF-8 text: {reason(error)}", file=path) from error


def _read_yaml(text: str, path: Path) -> Any:
    """Return the content of a YAML file with all scalars as strings, so "no" and "1" may be class names.

    Tags are ignored. Aliases raise an error, because with them a small file can expand to a huge value.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise InvalidDataError(
                    "Write out the values: YAML aliases such as *name are not supported.", file=path
                )
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader)
    except InvalidDataError:
        raise
    except RecursionError as error:
        raise InvalidDataError(
            "The YAML is nested too deeply to read. Write a flat list or mapping of names.", file=path
        ) from error
    except Exception as error:  # of many kinds
        raise InvalidDataError(f"The file is not valid YAML: {reason(error)}", file=path) from error


def _text_files(folder: Path) -> list[str]:
    """Return the names of the label files of a folder, without suffix, sorted. Hidden files are left out."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UnreadableFileError(reason(error), file=folder) from error
    return [name.removesuffix(".txt") for name in names if name.endswith(".txt") and name != NAMES_FILE]

"""YOLO segmentation text: a file for each image, a line for each object (https://docs.ultralytics.com)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.formats import files, problems
from mrcnn.formats.base import Outline, OutlineDataset, chosen_classes


class YoloDataset(OutlineDataset):
    """Pictures with text files of lines "class x1 y1 x2 y2 ...", coordinates as shares of width and height.

    Class numbers in the files count from 0; class ids here from 1. Lines of five numbers are boxes, which
    say nothing of an outline, and are left out. image_info has `outlines`.
    """

    def load(
        self,
        images: str | os.PathLike,
        classes: Sequence[str] | str | os.PathLike,
        labels: str | os.PathLike | None = None,
        keep_empty: bool = True,
        source: str = "yolo",
    ) -> None:
        """Add the images of a folder.

        classes: names in the order of the files' numbers; or a file that has them, data.yaml or a text with
        one name a line. labels: folder of the text files; by default the images' folder with "labels" for
        the last "images" in its path. keep_empty: take images without an object, too. source: name of this
        source of ids.

        Raises FileNotFoundError for missing folders, ValueError if no image can be used. Single broken lines
        are left out, see `problems`.
        """
        folder = Path(images)
        names = read_names(classes) if isinstance(classes, (str, os.PathLike)) else list(classes)
        for class_id, name in enumerate(chosen_classes(names, []), start=1):
            self.add_class(source, class_id, name)
        texts = _labels_folder(folder) if labels is None else Path(labels)
        if not texts.is_dir():
            raise FileNotFoundError(f"There is no folder {texts} of label files. Give labels=...")
        before = len(self.image_info)
        for name, file in files.images_in(folder, "").items():
            text = texts / f"{name}.txt"
            lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
            if not text.is_file():
                self.problems.add(problems.MISSING_LABELS, str(folder / file))
            is_blank = not any(line.split() for line in lines)
            if keep_empty or not is_blank:
                is_empty = is_blank and text.is_file()
                info = self._add_picture(source, name, folder / file, outlines=[], is_empty=is_empty)
                if info is not None:
                    self._add_lines(info, lines, len(names), text)
        self._finish(str(folder), before)

    def _add_lines(self, info: dict[str, Any], lines: list[str], classes: int, path: Path) -> None:
        height, width = info["size"]
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            try:
                values = [float(word) for word in line.split()]
            except ValueError:
                self.problems.add(problems.BROKEN_FIELD, f"{where}: {line[:40]!r} must be numbers")
                continue
            if not values:
                continue
            if len(values) == 5:
                self.problems.add(problems.NO_OUTLINE, where)
            elif len(values) % 2 == 0:
                self.problems.add(
                    problems.BROKEN_FIELD, f"{where}: {len(values)} numbers; pairs x y are wanted"
                )
            elif values[0] not in range(classes):
                self.problems.add(problems.UNKNOWN_CLASS, f"{where}: {line.split()[0]}")
            else:
                points = np.array(values[1:]).reshape(-1, 2) * (width, height)
                outline = Outline(int(values[0]) + 1, (points,))
                if self._checked(outline, info["size"], where):
                    info["outlines"].append(outline)


def read_names(path: str | os.PathLike) -> list[str]:
    """Class names from a data.yaml (its `names`, a list or numbered) or a text with one name a line.

    Raises FileNotFoundError, or BrokenEntryError naming file and field.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    import yaml

    try:
        names = files.field(yaml.safe_load(text), "names", (list, dict), path)
    except yaml.YAMLError as error:
        raise files.BrokenEntryError(f"{path} is not valid YAML: {error}") from error
    if isinstance(names, dict) and sorted(names) != list(range(len(names))):
        raise files.BrokenEntryError(
            f"{path}: field 'names' must be numbered 0, 1, 2, ... Received: {sorted(names)}"
        )
    return [str(names[number]) for number in range(len(names))]


def _labels_folder(images: Path) -> Path:
    """The images' folder with "labels" in place of the last part that is "images"."""
    parts = list(images.parts)
    if "images" not in parts:
        raise ValueError(
            f"There is no part 'images' in {images} to put 'labels' in its place. Give labels=..."
        )
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])

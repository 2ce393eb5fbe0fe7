"""A folder of results of many images, in any of the formats.

| format | files |
|---|---|
| `labels` | `labels/NAME.png`, label images of 16 bits; of more than 65,535 objects `labels/NAME.tif` |
| `tiff` | `labels/NAME.tif` |
| `coco` | `annotations.json`, a data set; of detections `detections.json`, too, COCO results for it |
| `labelme` | `labelme/NAME.json` |
| `yolo` | `labels/NAME.txt` and `data.yaml` |
| `geojson` | `geojson/NAME.geojson` |
| `imagej` | `rois/NAME.zip` |
| `csv` | `measurements.csv`, one row for each object of all images |
| `overlay` | `overlays/NAME.png` |

`counts.csv` has the number of objects of each image. With `copy_images`, the images are copied to `images/`,
and the folder is a data set by itself. `mrcnn.results.corrections` describes the hidden files.
"""

import contextlib
import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn import files
from mrcnn.results import coco, corrections, labels, measurements, saving, yolo
from mrcnn.results.detections import Detections
from mrcnn.results.places import ANNOTATIONS, CORRECTED, COUNTS, LABEL_PLACES, PLACES, corrected_places
from mrcnn.typing import Image

BLOCK = 1 << 20  # bytes that are compared at a time
FORMATS = ("labels", "tiff", "coco", "labelme", "yolo", "geojson", "imagej", "csv", "overlay")
NEED_PIXELS = {"csv", "overlay"}  # formats for which `add` needs the pixels of the image


class OtherImageError(FileExistsError):
    """An image has the name of another one, whose copy it would replace."""


class ResultFolder:
    """Writes the results of images to a folder, one by one, and what is about all of them at the end.

    Args:
        folder: The folder. Files of the same names are replaced.
        class_names: Class id to name.
        formats: Some of FORMATS.
        copy_images: Whether to copy the images to `images/`.
        tolerance: See `mrcnn.results.saving.save`.
        overwrite: Whether to replace annotations that somebody may have corrected or drawn, see
            `mrcnn.results.corrections.changed_files`, and other images of the same names.

    The objects of an image have the same numbers in its label image and in `measurements.csv`, from 1. An
    object that others cover has no pixel in the label image.

    Attributes:
        counts: The number of objects of each image by name: those with a pixel in the label image, or all of
            a result of `detect_large`.

    Raises:
        ValueError: If a format is unknown.
        FileExistsError: If there are such annotations, and `overwrite` is False.
        OSError: If the folder cannot be created.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        class_names: Mapping[int, str],
        formats: Sequence[str] = ("labels", "coco"),
        *,
        copy_images: bool = False,
        tolerance: float | None = None,
        overwrite: bool = False,
    ) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ValueError(f"`formats` must be some of {FORMATS}. Received: {unknown}")
        self.folder = Path(folder)
        self.formats = tuple(dict.fromkeys(formats))
        self.copy_images = copy_images
        self.counts: dict[str, int] = {}
        self._tolerance, self._overwrite = tolerance, overwrite
        self._class_names = dict(class_names)
        self._coco = coco.CocoFile(class_names)
        self._detections: list[coco.Record] = []
        self._are_detections = True  # annotations have no scores
        self._table: dict[str, list[Any]] = {}
        self._notes = corrections.RunNotes(self.folder)
        if not overwrite:
            corrections.refuse_changed(self.folder, self.formats)
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        result: Detections,
        name: str,
        *,
        file_name: str,
        image: Image | None = None,
        content: Path | BinaryIO | None = None,
    ) -> None:
        """Write the results of one image.

        Args:
            result: The results.
            name: The name of its files.
            file_name: The image file, relative to the folder of the images, with slashes.
            image: The image, for overlays and intensities.
            content: The image file or its content, for `copy_images`.

        Raises:
            ValueError: If an image has this name already.
            OtherImageError: If a copy would replace another image, and `overwrite` is False. Nothing of the
                image is written.
            OSError: If a file cannot be written.
        """
        if name in self.counts:
            raise ValueError(f"`name` must be different for each image. Received twice: name={name!r}")
        self._notes.begin()
        self.counts[name] = self._write_image(result, name, file_name, image, content)

    def _write_image(
        self,
        result: Detections,
        name: str,
        file_name: str,
        image: Image | None,
        content: Path | BinaryIO | None,
    ) -> int:
        """Write the results of one image, and return the number of objects; see `add`."""
        result = result.with_masks(result.mask_crops())  # each writer goes through the crops
        if self.copy_images and content is not None:
            file_name = f"images/{name}{Path(file_name).suffix}"
            result.path = _copy(content, self.folder / file_name, self._overwrite)
        rows = np.flatnonzero(np.asarray(result["class_ids"]) > 0)
        # Only COCO can say that a region is a crowd. Elsewhere it would be an object or background.
        has_only_crowds = result.count > 0 and len(rows) == 0
        count = 0 if has_only_crowds else self._write_labels(result, rows, name)
        for kind in self.formats:
            if kind in PLACES and not (has_only_crowds and kind in CORRECTED):
                path = self.folder / PLACES[kind].format(name)
                with self._writing(kind, name):
                    saving.save(result, path, kind, image=image, tolerance=self._tolerance)
        if "coco" in self.formats:
            records = coco.records_of(result)
            image_id = self._coco.add(result, file_name, records)
            self._are_detections &= "scores" in result
            if self._are_detections:
                own = {"image_id": image_id, "file_name": file_name}
                kept = ("category_id", "score", "bbox", "segmentation")
                self._detections += [own | {key: record[key] for key in kept} for record in records]
        if "csv" in self.formats:
            self._add_rows(name, measurements.measure(result, image))
        return count

    def _write_labels(self, result: Detections, rows: np.ndarray, name: str) -> int:
        """Write label images of some rows, and return how many have a pixel. Row i has the number i + 1."""
        paths = {
            kind: self.folder / place.format(name)
            for kind, place in LABEL_PLACES.items()
            if kind in self.formats
        }
        if labels.is_large(result):  # detections, without crowds
            for kind in list(paths)[:1]:  # all of them are TIFF files
                with self._writing(kind, name):
                    labels.write_label_blocks(result, paths[kind])
            return result.count
        drawn = labels.label_image(result.select(rows))
        numbers = labels.shortened(np.append(0, rows + 1)[drawn])
        for kind, path in paths.items():
            with self._writing(kind, name):
                labels.write_labels(numbers, path, result.pixel_size)
        return len(np.unique(drawn[drawn > 0]))

    def _writing(self, kind: str, name: str) -> contextlib.AbstractContextManager[None]:
        """Note that a block writes the file of an image in one of the formats."""
        return self._notes.writing([place.format(name) for place in corrected_places([kind])])

    def finish(self) -> None:
        """Write the files about all images; without an image, none."""
        if not self.counts:
            return
        self._notes.begin()
        if "coco" in self.formats:
            if self._are_detections:
                files.write_json(self.folder / "detections.json", self._detections)
            with self._writing("coco", ANNOTATIONS):
                files.write_json(self.folder / ANNOTATIONS, self._coco.content())
        if "yolo" in self.formats:
            self._write("data.yaml", yolo.data_yaml(self._class_names))
        if "csv" in self.formats:
            self._write("measurements.csv", measurements.to_csv(self._table))
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([("image", "instances"), *self.counts.items()])
        self._write(COUNTS, file.getvalue())
        self._notes.close()

    def _add_rows(self, name: str, columns: Mapping[str, list[Any]]) -> None:
        """Append the rows of an image. Images may differ in channels and units: other columns stay empty."""
        before = len(self._table.get("image", []))
        count = len(columns["object"])
        for column in ("image", *columns):
            self._table.setdefault(column, [None] * before)
        for column, values in self._table.items():
            values += [name] * count if column == "image" else columns.get(column, [None] * count)

    def _write(self, name: str, text: str) -> None:
        with files.atomic_write(self.folder / name) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def _copy(content: Path | BinaryIO, target: Path, overwrite: bool) -> Path:
    """Copy an image file. Raises FileExistsError if this would replace another image."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(content.open("rb")) if isinstance(content, Path) else content
        if target.exists():
            if _has_content(target, stream):
                return target
            if not overwrite:
                raise OtherImageError(
                    f"{target} is another image of the same name. Choose another folder for the results, or "
                    "pass overwrite=True (--overwrite on the command line) to replace it."
                )
        stream.seek(0)
        with files.atomic_write(target) as temporary, temporary.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
    return target


def _has_content(path: Path, stream: BinaryIO) -> bool:
    """Return whether a file and a stream have the same bytes."""
    if path.stat().st_size != stream.seek(0, os.SEEK_END):
        return False
    stream.seek(0)
    with path.open("rb") as file:
        return all(file.read(len(block)) == block for block in iter(lambda: stream.read(BLOCK), b""))

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
and the folder is a data set by itself.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn import files
from mrcnn.results import coco, labels, measurements, saving, yolo
from mrcnn.results.detections import Detections
from mrcnn.typing import Image

FORMATS = ("labels", "tiff", "coco", "labelme", "yolo", "geojson", "imagej", "csv", "overlay")
# Formats with a file for each image: its place.
PLACES = {
    "labelme": "labelme/{}.json",
    "yolo": "labels/{}.txt",
    "geojson": "geojson/{}.geojson",
    "imagej": "rois/{}.zip",
    "overlay": "overlays/{}.png",
}
LABEL_PLACES = {"labels": "labels/{}.png", "tiff": "labels/{}.tif"}
COUNTS = "counts.csv"
# A JSON file that exists while a run writes: its formats, and the files that it is writing now.
UNFINISHED = ".unfinished"
MINUTE = 60 * 10**9  # in ns; files that a killed run was writing are not much newer than UNFINISHED
# The files of each format that people correct by hand.
CORRECTED = {
    **{kind: place.format("*") for kind, place in (PLACES | LABEL_PLACES).items() if kind != "overlay"},
    "coco": "annotations.json",
}
LISTED = 3  # files that an error names


class ResultFolder:
    """Writes the results of images to a folder, one by one, and what is about all of them at the end.

    Args:
        folder: The folder. Files of the same names are replaced.
        class_names: Class id to name.
        formats: Some of FORMATS.
        copy_images: Whether to copy the images to `images/`.
        tolerance: See `mrcnn.results.saving.save`.
        overwrite: Whether to replace annotations that somebody may have corrected or drawn; see
            `changed_files`.

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
        self._tolerance = tolerance
        self._class_names = dict(class_names)
        self._coco = coco.CocoFile(class_names)
        self._detections: list[coco.Record] = []
        self._are_detections = True  # annotations have no scores
        self._table: dict[str, list[Any]] = {}
        if not overwrite:
            _refuse_corrected(self.folder, self.formats)
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
        """
        if name in self.counts:
            raise ValueError(f"`name` must be different for each image. Received twice: name={name!r}")
        self._mark([place.format(name) for place in (*PLACES.values(), *LABEL_PLACES.values())])
        result = result.with_masks(result.mask_crops())  # each writer goes through the crops
        if self.copy_images and content is not None:
            file_name = f"images/{name}{Path(file_name).suffix}"
            result.path = self._copy(content, self.folder / file_name)
        objects = result.select(np.flatnonzero(np.asarray(result["class_ids"]) > 0))
        # Only COCO can say that a region is a crowd. Elsewhere it would be an object or background.
        has_only_crowds = result.count > 0 and objects.count == 0
        count = 0 if has_only_crowds else self._write_labels(objects, name)
        for kind in self.formats:
            if kind in PLACES and not (has_only_crowds and kind in CORRECTED):
                path = self.folder / PLACES[kind].format(name)
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
        self.counts[name] = count
        self._mark([])

    def _write_labels(self, result: Detections, name: str) -> int:
        """Write label images, and return the number of objects."""
        places = [place for kind, place in LABEL_PLACES.items() if kind in self.formats]
        paths = [self.folder / place.format(name) for place in places]
        if labels.is_large(result):
            for path in paths[:1]:  # all of them are TIFF files
                labels.write_label_blocks(result, path)
            return result.count
        numbers = labels.compact(labels.label_image(result))
        for path in paths:
            labels.write_labels(numbers, path, result.pixel_size)
        return int(numbers.max(initial=0))

    def finish(self) -> None:
        """Write the files about all images. Without an image, those of an earlier run stay."""
        if not self.counts and (self.folder / COUNTS).exists():
            return
        self._mark([CORRECTED["coco"]])
        if "coco" in self.formats:
            if self._are_detections:
                files.write_json(self.folder / "detections.json", self._detections)
            files.write_json(self.folder / CORRECTED["coco"], self._coco.content())
        if "yolo" in self.formats:
            self._write("data.yaml", yolo.data_yaml(self._class_names))
        if "csv" in self.formats:
            self._write("measurements.csv", measurements.to_csv(self._table))
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([("image", "instances"), *self.counts.items()])
        self._write(COUNTS, file.getvalue())  # last, because its time tells corrections from results
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    def _copy(self, content: Path | BinaryIO, target: Path) -> Path:
        if isinstance(content, Path) and target.exists() and target.samefile(content):
            return target
        with files.atomic_write(target) as temporary:
            if isinstance(content, Path):
                shutil.copyfile(content, temporary)
            else:
                content.seek(0)
                with open(temporary, "wb") as copy:
                    shutil.copyfileobj(content, copy)
        return target

    def _add_rows(self, name: str, columns: Mapping[str, list[Any]]) -> None:
        """Append the rows of an image. Images may differ in channels and units: other columns stay empty."""
        before = len(self._table.get("image", []))
        count = len(columns["object"])
        for column in ("image", *columns):
            self._table.setdefault(column, [None] * before)
        for column, values in self._table.items():
            values += [name] * count if column == "image" else columns.get(column, [None] * count)

    def _mark(self, now: Sequence[str]) -> None:
        """Note that a run writes, and the files that it is writing now, relative to the folder."""
        files.write_json(self.folder / UNFINISHED, {"formats": self.formats, "files": list(now)})

    def _write(self, name: str, text: str) -> None:
        with files.atomic_write(self.folder / name) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def changed_files(folder: Path, formats: Sequence[str] = tuple(CORRECTED)) -> list[Path]:
    """Return the annotations that are newer than all results that a run has written to a folder, sorted.

    Somebody may have corrected or drawn them. In a folder without results, these are all annotations. The
    files that a killed run was writing do not count.

    Args:
        folder: The folder of results.
        formats: The formats of the annotations, some of FORMATS.
    """
    finished, started = _time_of(folder / COUNTS), _time_of(folder / UNFINISHED)
    unfinished = json.loads((folder / UNFINISHED).read_bytes()) if started else {"formats": (), "files": ()}
    partial = {folder / name for name in unfinished["files"]}
    changed = set()
    for kind in set(formats) & set(CORRECTED):
        is_unfinished = kind in unfinished["formats"]
        since = max(finished, started) if is_unfinished else finished
        for path in folder.glob(CORRECTED[kind]):
            is_partial = is_unfinished and path in partial and _time_of(path) < started + MINUTE
            if _time_of(path) > since and not is_partial:
                changed.add(path)
    return sorted(changed)


def _time_of(path: Path) -> int:
    """Return when a file was changed, in ns; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _refuse_corrected(folder: Path, formats: Sequence[str]) -> None:
    """Raise FileExistsError if files that would be replaced are newer than the results of the last run."""
    newer = changed_files(folder, formats)
    if newer:
        more = f" and {len(newer) - LISTED} more" if len(newer) > LISTED else ""
        raise FileExistsError(
            f"{', '.join(map(str, newer[:LISTED]))}{more} may have been corrected or drawn by hand, because "
            "they are newer than all results that a run has written to this folder. Choose another folder "
            "for the results, or pass overwrite=True (--overwrite on the command line) to replace them."
        )

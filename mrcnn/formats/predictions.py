"""Detections of images as files: label images, COCO JSON, counts, and overlays to look at.

    found = write_predictions(model.detect, "images.zip", "out", {1: "nucleus"}, min_score=0.5)

| file | content |
|---|---|
| `labels/NAME.png` | label image of 16 bits: 0 is background, k is the k-th instance |
| `detections.json` | COCO results; their image ids are the names |
| `annotations.json` | a COCO annotation file, to correct and to train on: `CocoDataset` reads it |
| `counts.csv` | the number of instances of each image |
| `overlays/NAME.png` | the images with their instances in color, if asked for |

Each file appears when it is complete.
"""

import csv
import dataclasses
import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from PIL import Image as PillowImage
from tqdm import tqdm

from mrcnn import files
from mrcnn.drawing.colors import instance_colors
from mrcnn.drawing.masks import draw_masks, to_rgb
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.evaluation import coco
from mrcnn.files import archives
from mrcnn.files.images import SUFFIXES, read_image
from mrcnn.formats import image_files
from mrcnn.formats.files import Source
from mrcnn.geometry import masks
from mrcnn.typing import Image

logger = logging.getLogger(__name__)

Detections: TypeAlias = Mapping[str, Any]
# Folders in which images may lie, below a folder or in a zip file. The first one with images counts.
FOLDERS = ("", "images")
# The largest value of a label image of 16 bits.
MAX_INSTANCES = 2**16 - 1
# Small images are enlarged to about this number of pixels, so that outlines are thin.
OVERLAY_SIDE = 1024


def write_predictions(
    detect: Callable[[list[Image]], list[Any]],
    source: Source,
    output: Source,
    class_names: Mapping[int, str],
    min_score: float = 0.5,
    *,
    verbose: int = 1,
    overlays: bool = False,
) -> dict[str, int]:
    """Detect the objects of every image, and write them.

    In a label image, a pixel of several masks belongs to the one with the best score, and an instance without
    a pixel left has no value. Images with an EXIF orientation are turned as viewers show them; results refer
    to that.

    An image that cannot be read or used is logged and left out. The JSON files and the counts are written for
    all others, also if an error or Ctrl-C ends the function.

    Args:
        detect: A function from a list of one image to a list of one dict, such as `MaskRCNN.detect`.
        source: An image, or a folder or zip file with images, which are in it or in its folder "images".
        output: The folder to write to; it is created if it is missing. Files of the same names are replaced.
        class_names: Class id to name.
        min_score: Detections with a lower score are left out.
        verbose: 1 shows progress and a summary.
        overlays: Whether to draw the instances, too, without boxes and names. Images of up to OVERLAY_SIDE
            pixels are enlarged by a whole number.

    Returns:
        The number of instances of each image by name. The name is that of the file without suffix, or with it
        if several files would have one name.

    Raises:
        MissingFileError: If there are no images.
        UnreadableFileError: If a zip file cannot be opened.
        InvalidDataError: If `source` is a file of another kind.
        OSError: If the output cannot be written.
    """
    output = Path(output)
    root, images = _images(Path(source))
    for folder in ("labels", "overlays") if overlays else ("labels",):
        (output / folder).mkdir(parents=True, exist_ok=True)
    results = _Results(dict(class_names))
    try:
        for name, member in tqdm(images.items(), desc="Predicting", unit="image", disable=not verbose):
            try:
                image = _read(root, member)
                (found,) = detect([image])
                found = _with_score(found, min_score)
                labels = compact(masks.label_image(found["masks"], found["scores"]))
            except (OSError, ValueError, MemoryError) as error:
                logger.warning("Left out %s of %s: %s", member, root, error)
                continue
            _write_png(output / "labels" / f"{name}.png", labels)
            if overlays:
                _write_png(output / "overlays" / f"{name}.png", _overlay(image, found))
            results.add(name, member, found, labels)
    finally:
        results.write(output)
    counts = results.counts
    if len(counts) < len(images):
        logger.warning("%d of %d images were left out.", len(images) - len(counts), len(images))
    if verbose:
        names = ", ".join(class_names.values())
        print(f"{len(counts)} images, {sum(counts.values())} instances ({names}) in {output}")
    return counts


def compact(labels: np.ndarray) -> np.ndarray:
    """Replace the values of a label image [H, W] by 1, 2, ... without gaps, uint16.

    Raises:
        ValueError: If there are more than 65535.
    """
    present, indices = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(present)) + (present[0] != 0)
    if numbers[-1] > MAX_INSTANCES:
        raise ValueError(
            f"A label image of 16 bits holds at most {MAX_INSTANCES} instances. Received: {numbers[-1]}"
        )
    compacted: np.ndarray = numbers[indices].reshape(labels.shape).astype(np.uint16)
    return compacted


@dataclasses.dataclass
class _Results:
    """The results of all images so far.

    Attributes:
        class_names: Class id to name.
        counts: Instances in the label image of each image.
        detections: COCO results.
        images: Images of the COCO annotation file.
        annotations: Annotations of the COCO annotation file.
    """

    class_names: dict[int, str]
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    detections: list[coco.Record] = dataclasses.field(default_factory=list)
    images: list[coco.Record] = dataclasses.field(default_factory=list)
    annotations: list[coco.Record] = dataclasses.field(default_factory=list)

    def add(self, name: str, member: str, found: Detections, labels: np.ndarray) -> None:
        records = coco.detections_of(found)
        self.detections += [{"image_id": name, **record} for record in records]
        height, width = labels.shape
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": member, "height": height, "width": width})
        areas = np.count_nonzero(found["masks"], axis=(0, 1))
        for record, area in zip(records, areas, strict=True):
            if area:
                own = {"id": len(self.annotations) + 1, "image_id": image_id, "iscrowd": 0, "area": int(area)}
                self.annotations.append({**own, **record})
        self.counts[name] = int(labels.max(initial=0))

    def write(self, output: Path) -> None:
        names = dict(self.class_names)
        for record in self.annotations:
            names.setdefault(record["category_id"], f"class {record['category_id']}")
        categories = [{"id": int(class_id), "name": str(name)} for class_id, name in names.items()]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        files.write_json(output / "detections.json", self.detections)
        files.write_json(output / "annotations.json", content)
        with files.atomic_write(output / "counts.csv") as temporary:
            temporary.write_bytes(_table(self.counts))


def _images(source: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder or zip file of the images, and their paths in it by name."""
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return source.parent, {source.stem: source.name}
    if source.is_file() and not archives.is_archive(source):
        raise InvalidDataError(
            "The file must be a zip file, or an image with one of the suffixes "
            f"{', '.join(sorted(SUFFIXES))}.",
            file=source,
        )
    for folder in FOLDERS:
        try:
            found = image_files.images_in(source, folder)
        except MissingFileError:
            if not source.exists():
                raise
            continue
        if found:
            stems = Counter(PurePosixPath(path).stem for path in found)
            names = (PurePosixPath(path) for path in found)
            return source, {
                (name.stem if stems[name.stem] == 1 else name.name): path
                for name, path in zip(names, found, strict=True)
            }
    raise MissingFileError('There are no images here, nor in the folder "images".', file=source)


def _read(root: Path, member: str) -> Image:
    """Read an image as viewers show it: turned by its EXIF orientation, as the images of training are."""
    if root.is_dir():
        return read_image(root / member)
    return read_image(archives.open_member(root, member), f"{root}/{member}")


def _with_score(found: Detections, min_score: float) -> Detections:
    is_kept = np.asarray(found["scores"]) >= min_score
    rows = {name: found[name][is_kept] for name in ("rois", "class_ids", "scores")}
    return {**rows, "masks": found["masks"][..., is_kept]}


def _overlay(image: Image, found: Detections) -> np.ndarray:
    """Return the image, enlarged if it is small, with the instances in color: uint8 [H, W, 3]."""
    scale = max(1, OVERLAY_SIDE // max(image.shape[:2]))
    canvas = to_rgb(image).repeat(scale, axis=0).repeat(scale, axis=1)
    if len(found["scores"]):
        draw_masks(canvas, found["masks"], instance_colors(None, len(found["scores"])), alpha=0.3)
    return canvas


def _write_png(path: Path, image: np.ndarray) -> None:
    with files.atomic_write(path) as temporary:
        PillowImage.fromarray(image).save(temporary, "PNG")


def _table(counts: Mapping[str, int]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("image", "instances"), *counts.items()])
    return file.getvalue().encode("utf-8", "surrogateescape")

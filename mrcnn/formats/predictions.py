"""Detections of pictures, written to files: label images, COCO JSON, counts, and overlays for the eye.

    found = write_predictions(model.detect, "pictures.zip", "out", {1: "nucleus"}, min_score=0.5)

writes out/labels/NAME.png (16 bits, 0 background, k the k-th instance), out/detections.json (a COCO result
file; image ids are the names), out/counts.csv (instances of each picture), and on demand the pictures with
their instances in colours, out/overlays/NAME.png. Each file appears when complete.
"""

import csv
import io
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skimage  # loads skimage.io with the first image, which keeps `import mrcnn.formats` fast
from PIL import Image
from tqdm import tqdm

from mrcnn.evaluation import coco
from mrcnn.files import write_json
from mrcnn.formats import files
from mrcnn.geometry import masks
from mrcnn.visualize import overlays as drawn

logger = logging.getLogger(__name__)

Detections = dict[str, np.ndarray]
# Where pictures may lie below the root, the first that has some.
FOLDERS = ("", "images")
MOST_LABELS = 2**16 - 1
OVERLAY_SIDE = 1024  # small pictures are enlarged to about so many pixels, for fine outlines


def write_predictions(
    detect: Callable[[list[np.ndarray]], list[Detections]],
    source: str | os.PathLike,
    output: str | os.PathLike,
    class_names: Mapping[int, str],
    min_score: float = 0.5,
    verbose: int = 1,
    overlays: bool = False,
) -> dict[str, int]:
    """Detect the objects of every picture and write them.

    detect: such as `MaskRCNN.detect`. source: a picture, or a folder or zip file with pictures, in it or in
    its folder images. output: folder, created if needed; older results of the same names are replaced.
    class_names: class id to name. min_score: detections of a lower score are left out. verbose: 1 shows
    progress. overlays: draw the instances, too, without boxes and names, on pictures of up to OVERLAY_SIDE
    pixels enlarged by a whole number.

    In a label image a pixel of several masks belongs to the best-scored; an instance without a pixel left
    has no number. Pictures with an EXIF orientation are turned as viewers show them; what is written refers
    to that. Pictures that cannot be read or used are logged, left out and counted.
    Returns the number of instances of each picture by name. Raises FileNotFoundError if there are no
    pictures, ValueError for a file that is none of these, OSError if the output cannot be written.
    """
    output = Path(output)
    root, pictures = _pictures(Path(source))
    for folder in ("labels", "overlays") if overlays else ("labels",):
        (output / folder).mkdir(parents=True, exist_ok=True)
    records: list[coco.Record] = []
    counts: dict[str, int] = {}
    for name, member in tqdm(pictures.items(), desc="Predicting", unit="image", disable=not verbose):
        try:
            picture = _read(root, member)
            (found,) = detect([picture])
        except (OSError, ValueError) as error:
            logger.warning("Left out %s of %s: %s", member, root, error)
            continue
        found = _scored_at_least(found, min_score)
        labels = compact(masks.label_image(found["masks"], found["scores"]))
        _write(output / "labels" / f"{name}.png", _png(labels))
        records += [{"image_id": name, **record} for record in coco.detections_of(found)]
        counts[name] = int(labels.max(initial=0))
        if overlays:
            _write(output / "overlays" / f"{name}.png", _png(_overlay(picture, found)))
    write_json(output / "detections.json", records)
    _write(output / "counts.csv", _table(counts))
    if len(counts) < len(pictures):
        logger.warning("%d of %d pictures were left out.", len(pictures) - len(counts), len(pictures))
    if verbose:
        names = ", ".join(class_names.values())
        print(f"{len(counts)} pictures, {sum(counts.values())} instances ({names}) in {output}")
    return counts


def compact(labels: np.ndarray) -> np.ndarray:
    """A label image [H, W] with its numbers replaced by 1, 2, ... without gaps, uint16.

    Raises ValueError if there are more than 65535.
    """
    present, places = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(present)) + (present[0] != 0)
    if numbers[-1] > MOST_LABELS:
        raise ValueError(f"A label image of 16 bits holds {MOST_LABELS} instances. Received: {numbers[-1]}")
    return numbers[places].reshape(labels.shape).astype(np.uint16)


def _pictures(source: Path) -> tuple[Path, dict[str, str]]:
    """Folder or zip file of the pictures, and their places in it by name."""
    if source.is_file() and source.suffix.lower() in files.IMAGE_SUFFIXES:
        return source.parent, {source.stem: source.name}
    if source.is_file() and not zipfile.is_zipfile(source):
        raise ValueError(
            f"{source} is neither a zip file nor a picture of a kind known by its ending: "
            f"{', '.join(sorted(files.IMAGE_SUFFIXES))}"
        )
    for folder in FOLDERS:
        try:
            found = files.images_in(source, folder)
        except FileNotFoundError:
            if not source.exists():
                raise
            continue
        if found:
            return source, found
    raise FileNotFoundError(f"There is no picture in {source} nor in its folder images.")


def _read(source: Path, member: str) -> np.ndarray:
    """A picture as viewers show it: turned by its EXIF orientation, as those that networks train on."""

    def file() -> Any:
        return source / member if source.is_dir() else files.open_member(source, member)

    picture = files.turned(skimage.io.imread(file()), files.read_header(file()).orientation)
    return np.ascontiguousarray(picture)


def _scored_at_least(found: Detections, min_score: float) -> Detections:
    kept = np.asarray(found["scores"]) >= min_score
    rows = {name: found[name][kept] for name in ("rois", "class_ids", "scores")}
    return {**rows, "masks": found["masks"][..., kept]}


def _overlay(picture: np.ndarray, found: Detections) -> np.ndarray:
    return drawn.overlay_instances(
        picture,
        found["rois"],
        found["masks"],
        found["class_ids"],
        class_names=(),
        show_bbox=False,
        show_caption=False,
        alpha=0.3,
        scale=max(1, OVERLAY_SIDE // max(picture.shape[:2])),
    )


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _table(counts: Mapping[str, int]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("image", "instances"), *counts.items()])
    return file.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)

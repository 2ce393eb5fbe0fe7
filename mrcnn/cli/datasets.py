"""Datasets by path, and the command `mrcnn describe`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli.messages import IncompleteError
from mrcnn.errors import DataError, InvalidDataError, MissingFileError
from mrcnn.files.images import SUFFIXES
from mrcnn.results.corrections import changed_files, has_results
from mrcnn.results.places import LABEL_PLACES

if TYPE_CHECKING:
    from mrcnn.formats.base import FormatDataset

logger = logging.getLogger(__name__)

# The options for files of one format.
CLASS_ATTRIBUTE, CROWDS_AS_OBJECTS = "class-attribute", "crowds-as-objects"
FORMAT_OPTIONS = {CLASS_ATTRIBUTE: "VIA", CROWDS_AS_OBJECTS: "COCO"}
# The files of formats that have one for each image.
OUTLINE_SUFFIXES = {"labelme": {".json"}, "geojson": {".geojson"}, "imagej": {".zip", ".roi"}}
# What a message says about paths that are no dataset.
KNOWN = (
    "Pass a COCO or VIA JSON file, a YOLO data.yaml, a folder of LabelMe JSON or GeoJSON files, a folder "
    "rois/ of ImageJ, or a folder or zip archive with images/ and labels/."
)


def parse_channels(text: str | None) -> list[int] | None:
    """Return the channels of a text such as "2,1,0"."""
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--channels takes numbers, such as 0 or 2,1,0. Received: {text}") from None


def open_dataset(
    data: Path,
    images: Path | None = None,
    classes: Sequence[str] | None = None,
    choice: Mapping[str, Any] | None = None,
    *,
    part: str = "train",
    like: "FormatDataset | None" = None,
) -> "FormatDataset":
    """Open a dataset by path, recognizing its format, and return it prepared.

    Args:
        data: See `KNOWN`.
        images: The folder of the images, for formats whose images may be elsewhere.
        classes: Class names in the order of their ids, for formats that know none; of YOLO those of the file.
        choice: Options by their name on the command line: `page` and `channels` of the images, see
            `mrcnn.formats.base.FormatDataset`; `class-attribute`, see `mrcnn.formats.ViaDataset`; and
            `crowds-as-objects`, see `mrcnn.formats.CocoDataset`.
        part: Which images of a YOLO data.yaml: those of its "train", "val" or "test".
        like: A dataset whose class numbers this one gets, too, such as that of the training.

    Raises:
        MissingFileError: If there is no such file.
        InvalidDataError: If no dataset is recognized, or it has classes that `like` does not have.
        ValueError: If an option is given that another format has.
    """
    if not data.exists():
        raise MissingFileError("There is no such file or folder.", file=data)
    if images is not None and not images.is_dir():
        raise MissingFileError(
            "The folder does not exist. Pass the folder that contains the images to --images.", file=images
        )
    options = dict(choice or {})
    own = {name: options.pop(name) for name in FORMAT_OPTIONS if name in options}
    if like is not None:
        classes = [info["name"] for info in like.class_info[1:]]
    owner = "model" if like is None else "training data"
    wanted = _Wanted(images, classes, options, part, own, owner)
    dataset = _from_folder(data, wanted)
    for option in own if like is None else ():
        if not type(dataset).__name__.lower().startswith(FORMAT_OPTIONS[option].lower()):
            raise ValueError(
                f"--{option} is an option for {FORMAT_OPTIONS[option]} files. Received: {data}. Leave it out."
            )
    if like is not None:
        try:
            dataset.renumber_classes(wanted.classes or ())
        except InvalidDataError as error:
            raise InvalidDataError(str(error), file=data) from error
    dataset.prepare()
    if not len(dataset.image_ids):
        raise InvalidDataError("The dataset has no usable images.", file=data)
    return dataset


@dataclass(frozen=True)
class _Wanted:
    """What to read; see `open_dataset`. `choice` has only the options of the images."""

    images: Path | None
    classes: Sequence[str] | None
    choice: Mapping[str, Any]
    part: str
    format_options: Mapping[str, Any]
    owner: str = "model"  # what has the classes


def _from_folder(data: Path, wanted: _Wanted) -> "FormatDataset":
    from mrcnn import formats

    images, classes, choice = wanted.images, wanted.classes, wanted.choice
    if data.suffix.lower() in (".yaml", ".yml"):
        return _yolo(data, wanted)
    place = _annotations_in(data)
    if place.suffix.lower() == ".json":
        if place != data or _is_coco(place):  # in a folder, only COCO files are found
            coco = formats.CocoDataset(**choice)
            is_object = bool(wanted.format_options.get(CROWDS_AS_OBJECTS))
            coco.load(place, images, crowds_as_objects=is_object)
            return coco
        via = formats.ViaDataset(**choice)
        via.load(place, images, class_attribute=wanted.format_options.get(CLASS_ATTRIBUTE))
        return via
    if place != data:
        return _from_folder(place, wanted)
    if data.suffix.lower() == ".zip":
        return _label_images(data, wanted)
    if data.is_dir() and any(data.glob("[!.]*.json")):
        shapes = formats.LabelMeDataset(**choice)
        shapes.load(data, classes, keep_empty=True, within=images, images=images)
        return shapes
    for kind, outlines in (("geojson", formats.GeoJsonDataset), ("imagej", formats.ImageJDataset)):
        if _has_outlines(data, kind):
            outlined = outlines(**choice)
            outlined.load(data, images or _images_beside(data), classes)
            return outlined
    if data.name == "labels" and _has_images(data):
        return _label_images(data.parent, wanted)
    raise InvalidDataError(f"No dataset was recognized here. {KNOWN}", file=data)


def _label_images(root: Path, wanted: _Wanted) -> "FormatDataset":
    """Open the label images in labels/ of a folder or zip archive."""
    from mrcnn import formats

    if wanted.classes and len(wanted.classes) > 1:
        raise InvalidDataError(
            f"Label images hold no classes, and the {wanted.owner} has {len(wanted.classes)}: "
            f"{', '.join(wanted.classes)}. Pass a COCO file or another format that does.",
            file=root,
        )
    images = str(wanted.images.absolute()) if wanted.images else "images"
    dataset = formats.LabelImageDataset(**wanted.choice)
    dataset.load(root, images, classes=wanted.classes or ("object",))
    return dataset


def _annotations_in(folder: Path) -> Path:
    """Return the file or folder with the annotations of a folder; the path itself if there is none.

    Results may be there in several formats. Those that were changed last, after all were written, come first,
    then those that hold the classes.
    """
    places = {
        "yolo": folder / "data.yaml",
        "coco": folder / "annotations.json",
        "labelme": folder / "labelme",
        "geojson": folder / "geojson",
        "imagej": folder / "rois",
        "labels": folder / "labels",
    }
    found = {kind: place for kind, place in places.items() if _holds(kind, place)}
    if len(found) < 2:
        return next(iter(found.values()), folder)
    times = {kind: _change_of(folder, kind) for kind in found}
    kind = max(found, key=times.__getitem__)  # of equal ones the first
    logger.warning(
        "%s has annotations in several formats: %s. Reading %s%s. To read others, pass their path.",
        folder,
        ", ".join(place.name for place in found.values()),
        found[kind].name,
        ", which changed last" if times[kind] else "",
    )
    return found[kind]


def _change_of(folder: Path, kind: str) -> int:
    """Return when annotations were last changed after a run had written results; 0 if they were not."""
    if not has_results(folder):
        return 0
    changed = changed_files(folder, tuple(LABEL_PLACES) if kind == "labels" else (kind,))
    return max((path.stat().st_mtime_ns for path in changed), default=0)


def _holds(kind: str, place: Path) -> bool:
    """Return whether annotations of a kind are there; see `_annotations_in`."""
    if kind == "labels":
        return _has_images(place)
    if kind == "coco":
        return place.is_file() and _is_coco(place)
    if kind == "yolo":
        return place.is_file()
    return _has_outlines(place, kind)


def _has_outlines(folder: Path, kind: str) -> bool:
    suffixes = OUTLINE_SUFFIXES[kind]
    return folder.is_dir() and any(path.suffix.lower() in suffixes for path in folder.glob("[!.]*"))


def _yolo(data: Path, wanted: _Wanted) -> "FormatDataset":
    """Open the images of a part of a data.yaml, or those in images/ beside it."""
    from mrcnn import formats
    from mrcnn.formats import yolo

    images = wanted.images or yolo.images_of(data, wanted.part) or data.parent / "images"
    if not images.is_dir():
        raise MissingFileError(
            f"`{wanted.part}` must name the folder of the images, from the folder of this file or from its "
            "`path`. There is no such folder. Correct it, or pass the folder to --images.",
            file=data,
            field=wanted.part,
        )
    dataset = formats.YoloDataset(**wanted.choice)
    dataset.load(images, data, _yolo_labels(data, images))
    return dataset


def _yolo_labels(data: Path, images: Path) -> Path | None:
    """Return the folder of the label files; None if the reader has to find it.

    It is the one with "labels" in place of "images", or labels/ beside data.yaml. Images elsewhere may have
    other labels beside them, so that those beside data.yaml come first then.
    """
    from mrcnn.formats import yolo

    folders = [data.parent / "labels"]
    if "images" in images.parts:
        is_elsewhere = data.parent.absolute() not in images.absolute().parents
        folders.insert(1 if is_elsewhere else 0, yolo.labels_of(images))
    filled = [folder for folder in folders if any(folder.glob("[!.]*.txt"))]
    return next((folder for folder in [*filled, *folders] if folder.is_dir()), None)


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.glob("[!.]*"))


def _images_beside(folder: Path) -> Path:
    """Return the folder of the images of annotation files: images/ in it or beside it, or the same folder."""
    beside = (folder / "images", folder.parent / "images")
    return next((path for path in beside if path.is_dir()), folder)


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file has the fields of COCO. One that cannot be read is left to its reader."""
    from mrcnn.formats.files import read_json

    try:
        content = read_json(path)
    except DataError:
        return True
    return isinstance(content, dict) and "annotations" in content and "images" in content


def describe_dataset(
    data: Path,
    images: Path | None,
    *,
    limit: int | None,
    figure: Path | None,
    quiet: bool,
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Describe a dataset; see the command."""
    import matplotlib

    matplotlib.use("Agg")
    from mrcnn.formats import describe
    from mrcnn.formats.problems import CHANGED

    dataset = open_dataset(data, images, choice=choice)
    numbers = describe(dataset, limit)
    drawn = numbers.pop("figure")
    text = ""
    if figure is not None:
        drawn.savefig(figure)
        text = f"Saved the figure to {figure}."
    count = sum(count for kind, count in numbers["problems"].items() if kind not in CHANGED)
    if count:
        raise IncompleteError((numbers, text), f"{count} entries have problems; see above.")
    return numbers, text

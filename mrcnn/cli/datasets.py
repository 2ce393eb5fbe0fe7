"""Datasets by path, and the command `mrcnn describe`."""

import itertools
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mrcnn.cli.json_files import (
    COCO,
    LABELME,
    MOST_FILES,
    MOST_FOR_HINT,
    OTHER,
    UNREADABLE,
    VIA,
    JsonFiles,
    first_images,
    not_recognized,
    samples,
)
from mrcnn.cli.messages import IncompleteError
from mrcnn.errors import InvalidDataError, LeftOutWarning, MissingFileError
from mrcnn.files.images import SUFFIXES
from mrcnn.results.corrections import changed_files, has_results
from mrcnn.results.places import LABEL_PLACES

if TYPE_CHECKING:
    from mrcnn.formats.base import FormatDataset

logger = logging.getLogger(__name__)

# The options for files of some formats: what these are, and the names of their classes.
CLASS_ATTRIBUTE, CROWDS_AS_OBJECTS, CLASS = "class-attribute", "crowds-as-objects", "class"
FORMAT_OPTIONS = {
    CLASS_ATTRIBUTE: ("VIA files", {"ViaDataset"}),
    CROWDS_AS_OBJECTS: ("COCO files", {"CocoDataset"}),
    CLASS: (
        "files whose objects may have no class: VIA, label images, mask files, GeoJSON and ImageJ",
        {"ViaDataset", "LabelImageDataset", "MaskFileDataset", "GeoJsonDataset", "ImageJDataset"},
    ),
}
# JSON files of the subfolders of a folder that are looked at, and subfolders for a hint in an error.
FIRST_FILES, FIRST_FOLDERS = 3, 100
# The class of objects without one.
NO_CLASS = "object"
# The files of formats that have one for each image.
OUTLINE_SUFFIXES = {"labelme": {".json"}, "geojson": {".geojson"}, "imagej": {".zip", ".roi"}}
# What a message says about paths that are no dataset.
KNOWN = (
    "Pass a COCO or VIA JSON file, a YOLO data.yaml, a folder of LabelMe JSON or GeoJSON files, a folder "
    "rois/ of ImageJ, a folder or zip archive with images/ and labels/ or masks/, a folder of images with "
    "label images such as a_masks.png beside them, or a folder of folders with images/ and masks/."
)


def parse_channels(text: str | None) -> list[int] | None:
    """Return the channels of a text such as "2,1,0"."""
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--channels takes numbers, such as 0 or 2,1,0. Received: {text}") from None


def image_choice(
    page: int | None,
    channels: str | None,
    class_attribute: str | None = None,
    class_name: str | None = None,
    crowds_as_objects: bool = False,
) -> dict[str, Any]:
    """Return the options for reading images and annotations by name, None if they were not given."""
    return {
        "page": page,
        "channels": parse_channels(channels),
        CLASS_ATTRIBUTE: class_attribute,
        CLASS: class_name,
        CROWDS_AS_OBJECTS: crowds_as_objects or None,
    }


def check_paths(data: Path, images: Path | None = None) -> None:
    """Raise MissingFileError if the dataset or the folder of its images does not exist.

    A command calls this before it loads a framework or a model, which takes seconds.
    """
    if not data.exists():
        raise MissingFileError("There is no such file or folder.", file=data)
    if images is not None and not images.is_dir():
        raise MissingFileError(
            "The folder does not exist. Pass the folder that contains the images to --images.", file=images
        )


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
            `mrcnn.formats.base.FormatDataset`; `class-attribute`, see `mrcnn.formats.ViaDataset`;
            `crowds-as-objects`, see `mrcnn.formats.CocoDataset`; and `class`, the class of all objects, or of
            those that have none.
        part: Which images of a YOLO data.yaml: those of its "train", "val" or "test".
        like: A dataset whose class numbers this one gets, too, such as that of the training.

    Raises:
        MissingFileError: If there is no such file.
        InvalidDataError: If no dataset is recognized, or it has classes that `like` does not have.
        ValueError: If an option is given that only other formats have.
    """
    check_paths(data, images)
    options = dict(choice or {})
    own = {name: options.pop(name) for name in FORMAT_OPTIONS if name in options}
    if like is not None:
        classes = [info["name"] for info in like.class_info[1:]]
    owner = "model" if like is None else "training data"
    wanted = _Wanted(images, classes, options, part, own, owner)
    dataset = _from_folder(data, wanted)
    for option in own if like is None else ():
        what, kinds = FORMAT_OPTIONS[option]
        if type(dataset).__name__ not in kinds:
            raise ValueError(
                f"--{option} is only for {what}. Received: {data}, which is none of these. Leave the option "
                "out."
            )
    if images is not None and like is None and type(dataset).__name__ == "MaskFileDataset":
        raise ValueError(
            f"--images does not apply to {data}, whose folders have their own images/ and masks/. Leave out "
            "--images."
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
    json_files: JsonFiles = field(default_factory=JsonFiles)

    @property
    def names(self) -> Sequence[str] | None:
        """The class of objects without a class, if the user gave one, or else the classes."""
        one = self.format_options.get(CLASS)
        return self.classes if one is None else (one,)


def _from_folder(data: Path, wanted: _Wanted) -> "FormatDataset":
    if data.suffix.lower() in (".yaml", ".yml"):
        return _yolo(data, wanted)
    place = _annotations_in(data, wanted.json_files)
    if place.suffix.lower() == ".json" and not place.is_dir():
        return _one_json(place, wanted)
    if place != data:
        return _from_folder(place, wanted)
    if data.suffix.lower() == ".zip":
        return _label_images(data, wanted, *_folders_of(data))
    if data.is_dir():
        dataset = _from_files(data, wanted) or _from_label_images(data, wanted)
        if dataset is not None:
            return dataset
        one = _among_others(data, wanted.json_files)
        if one is not None:
            return _one_json(one, wanted)
        if UNREADABLE in map(wanted.json_files.kind, _shape_files(data)):
            return _labelme(data, wanted)  # its errors say what is wrong
        raise _unknown_folder(data, wanted.json_files)
    raise InvalidDataError(f"No dataset was recognized here. {KNOWN}", file=data)


def _unknown_folder(folder: Path, json_files: JsonFiles) -> InvalidDataError:
    """Return the error for a folder without a dataset, with a hint at its subfolders and its other files."""
    folders = sorted(folder.glob("[!.]*/"))[:FIRST_FOLDERS]
    parts = [path.name for path in folders if _shared_files(path, json_files, MOST_FOR_HINT)]
    if parts:
        return InvalidDataError(
            f"No dataset was recognized here, but in these subfolders: {', '.join(parts)}. Pass the path of "
            "one of them.",
            file=folder,
        )
    count = len(list(folder.glob("[!.]*.json")))
    some = (
        f" Of the {count} JSON files, {MOST_FILES} were looked at: the first ones and the largest. If "
        "another one is a COCO or VIA file, pass its path."
    )
    return InvalidDataError(
        f"No dataset was recognized here. {KNOWN}{some if count > MOST_FILES else ''}", file=folder
    )


def _one_json(path: Path, wanted: _Wanted) -> "FormatDataset":
    """Open a COCO or VIA file."""
    from mrcnn import formats

    kind = wanted.json_files.kind(path)
    if kind in (OTHER, LABELME):
        raise not_recognized(path)
    content = wanted.json_files.take(path)
    if kind == VIA:
        via = formats.ViaDataset(**wanted.choice)
        one = wanted.format_options.get(CLASS)
        classes = None if one is None else [one]
        attribute = wanted.format_options.get(CLASS_ATTRIBUTE)
        images = wanted.images or _images_of_export(path, content)
        via.load(path, images, classes, attribute, content=content)
        return via
    coco = formats.CocoDataset(**wanted.choice)
    is_object = bool(wanted.format_options.get(CROWDS_AS_OBJECTS))
    images = wanted.images or _images_of_export(path, content)
    coco.load(path, images, crowds_as_objects=is_object, content=content)
    return coco


def _among_others(folder: Path, json_files: JsonFiles) -> Path | None:
    """Return the only COCO or VIA file of a folder that holds other JSON files, too; None without one.

    Raises:
        InvalidDataError: If there are several.
    """
    found = _shared_files(folder, json_files)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InvalidDataError(
            f"The folder has several annotation files: {names}. Pass the path of one of them.", file=folder
        )
    return found[0] if found else None


def _shared_files(folder: Path, json_files: JsonFiles, most: int = MOST_FILES) -> list[Path]:
    """Return the COCO and VIA files of a folder and of annotations/ in it, of `most` files in each."""
    places = (folder, folder / "annotations")
    return [path for place in places for path in json_files.for_many_images(place, most)]


def _images_of_export(path: Path, content: Any) -> Path | None:
    """Return the folder of the images of a COCO or VIA file: the first usual one that has one of them.

    None is the folder of the file.
    """
    is_apart = path.parent.name == "annotations"
    root, part = path.parent.parent if is_apart else path.parent, path.stem.removeprefix("instances_")
    usual = [path.parent, root / "images" / part, root / "images", root / part, root]
    names = first_images(content)
    others = sorted(root.glob("[!.]*/")) if names else []
    for folder in itertools.chain(usual, others):
        if any(os.path.isfile(folder / name) for name in names):
            return folder
    if not is_apart or _has_images(path.parent):
        return None
    return next((folder for folder in usual[1:3] if folder.is_dir()), None)  # images of other names


def _from_files(data: Path, wanted: _Wanted) -> "FormatDataset | None":
    """Open the annotation files of a folder: one JSON file of all images, or a file for each image."""
    from mrcnn import formats

    for folder in (data, data / "annotations"):
        files = sorted(folder.glob("[!.]*.json"))
        if len(files) == 1 and wanted.json_files.kind(files[0]) in (COCO, VIA):
            return _one_json(files[0], wanted)
    if LABELME in map(wanted.json_files.kind, _shape_files(data)):
        return _labelme(data, wanted)
    for kind, outlines in (("geojson", formats.GeoJsonDataset), ("imagej", formats.ImageJDataset)):
        if _has_outlines(data, kind):
            return _outlined(outlines, data, wanted)
    return None


def _shape_files(folder: Path) -> Sequence[Path]:
    """Return JSON files of a folder, see `samples`, or, if it has none, the first ones of its subfolders."""
    from mrcnn.formats.labelme import annotation_paths

    paths = annotation_paths(folder)
    is_below = bool(paths) and paths[0].parent != folder
    return paths[:FIRST_FILES] if is_below else samples(paths)


def _labelme(folder: Path, wanted: _Wanted) -> "FormatDataset":
    from mrcnn import formats

    shapes = formats.LabelMeDataset(**wanted.choice)
    shapes.load(folder, wanted.classes, keep_empty=True, within=wanted.images, images=wanted.images)
    return shapes


def _outlined(kind: Any, data: Path, wanted: _Wanted) -> "FormatDataset":
    """Open GeoJSON or ImageJ files."""
    images = wanted.images or _images_beside(data)
    dataset = kind(**wanted.choice)
    try:
        dataset.load(data, images, wanted.names)
    except InvalidDataError as error:
        if error.field != "classes" or wanted.names:
            raise
        dataset = kind(**wanted.choice)
        dataset.load(data, images, (NO_CLASS,))
    return dataset


def _from_label_images(data: Path, wanted: _Wanted) -> "FormatDataset | None":
    """Open label images, or the mask files of the objects."""
    from mrcnn import formats
    from mrcnn.formats.image_files import beside_images, images_in
    from mrcnn.formats.label_images import label_files

    if data.name in ("labels", "masks") and _has_images(data):
        return _label_images(data.parent, wanted, data.name)
    if _has_images(data / "masks") and (wanted.images or (data / "images").is_dir()):
        return _label_images(data, wanted, "masks")
    if beside_images(label_files(data, ""))[1] or (wanted.images and label_files(data, "")):
        return _label_images(data, wanted, "", "")
    folders = (path for path in sorted(data.glob("[!.]*")) if (path / "masks").is_dir())
    first = next((path / "images" for path in folders if (path / "images").is_dir()), None)
    if first is not None and len(images_in(first, "")) == 1:
        dataset = formats.MaskFileDataset(**wanted.choice)
        dataset.load(data, (_only_class(data, wanted) or (NO_CLASS,))[0])
        return dataset
    return None


def _label_images(
    root: Path, wanted: _Wanted, labels: str = "labels", images: str = "images"
) -> "FormatDataset":
    """Open the label images in a folder of a folder or zip archive."""
    from mrcnn import formats

    classes = _only_class(root, wanted)
    images = str(wanted.images.absolute()) if wanted.images else images
    dataset = formats.LabelImageDataset(**wanted.choice)
    dataset.load(root, images, labels, classes=classes or (NO_CLASS,))
    return dataset


def _only_class(root: Path, wanted: _Wanted) -> Sequence[str] | None:
    """Return the class of label images and mask files, if it is known.

    Raises:
        InvalidDataError: If there are several.
    """
    if wanted.names and len(wanted.names) > 1:
        raise InvalidDataError(
            f"Label images hold no classes, and the {wanted.owner} has {len(wanted.names)}: "
            f"{', '.join(wanted.names)}. Pass a COCO file or another format that does, or name the class of "
            "all objects with --class.",
            file=root,
        )
    return wanted.names


def _folders_of(archive: Path) -> tuple[str, str]:
    """Return the folders of the label images and of the images in a zip archive, maybe below another one."""
    from mrcnn.files.archives import member_names

    paths = [PurePosixPath(name.replace("\\", "/")) for name in member_names(archive)]
    folders = {path.parent for path in paths if not path.name.startswith(".")}  # a Mac adds ._a.png
    for top in sorted({folder.parent for folder in folders if folder.name == "images"}):
        for labels in ("labels", "masks"):
            if top / labels in folders:
                return str(top / labels), str(top / "images")
    return "labels", "images"


def _annotations_in(folder: Path, json_files: JsonFiles) -> Path:
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
    found = {kind: place for kind, place in places.items() if _holds(kind, place, json_files)}
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


def _holds(kind: str, place: Path, json_files: JsonFiles) -> bool:
    """Return whether annotations of a kind are there; see `_annotations_in`."""
    if kind == "labels":
        return _has_images(place)
    if kind == "coco":
        return place.is_file() and json_files.kind(place) in (COCO, UNREADABLE)
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


def describe_dataset(
    data: Path,
    images: Path | None,
    *,
    limit: int | None,
    figure: Path | None,
    decode: bool = False,
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Describe a dataset; see the command."""
    import matplotlib

    matplotlib.use("Agg")
    from mrcnn.formats import describe, problems

    with problems.not_logged():  # the description names them
        dataset = open_dataset(data, images, choice=choice)
        numbers = describe(dataset, limit, decode=decode)
    drawn = numbers.pop("figure")
    text = ""
    if figure is not None:
        drawn.savefig(figure)
        text = f"Saved the figure to {figure}."
    left_out = _left_out(dataset)
    if left_out:
        raise IncompleteError((numbers, text), left_out)
    return numbers, text


def warn_left_out(dataset: "FormatDataset") -> None:
    """Warn, with a LeftOutWarning, of the images and annotations that could not be read, if there are any."""
    left_out = _left_out(dataset)
    if left_out:
        warnings.warn(left_out, LeftOutWarning, stacklevel=2)


def _left_out(dataset: "FormatDataset") -> str:
    """Return a sentence with the number of annotations and annotated images that were left out, or ""."""
    from mrcnn.formats.problems import COMPLETE

    count = sum(count for kind, count in dataset.problems.counts.items() if kind not in COMPLETE)
    what = "image or annotation was" if count == 1 else "images and annotations were"
    return f"{count} {what} left out; see above." if count else ""

"""Datasets by path, and the command `mrcnn describe`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli.messages import IncompleteError
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.files.images import SUFFIXES

if TYPE_CHECKING:
    from mrcnn.formats.base import FormatDataset

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
    classes: list[str] | None = None,
    choice: Mapping[str, Any] | None = None,
) -> "FormatDataset":
    """Open a dataset by path, recognizing its format, and return it prepared.

    Args:
        data: See `KNOWN`.
        images: The folder of the images, for formats whose images may be elsewhere.
        classes: Class names in the order of their ids, for formats that know none; of YOLO those of the file.
        choice: `page` and `channels` of the images; see `mrcnn.formats.base.FormatDataset`.

    Raises:
        MissingFileError: If there is no such file.
        InvalidDataError: If no dataset is recognized.
    """
    if not data.exists():
        raise MissingFileError("There is no such file or folder.", file=data)
    if images is not None and not images.is_dir():
        raise MissingFileError(
            "The folder does not exist. Pass the folder that contains the images to --images.", file=images
        )
    dataset = _from_folder(data, images, classes, choice or {})
    dataset.prepare()
    if not len(dataset.image_ids):
        raise InvalidDataError("The dataset has no usable images.", file=data)
    return dataset


def _from_folder(
    data: Path, images: Path | None, classes: list[str] | None, choice: Mapping[str, Any]
) -> "FormatDataset":
    from mrcnn import formats

    if data.suffix.lower() in (".yaml", ".yml"):
        yolo = formats.YoloDataset(**choice)
        labels_folder = data.parent / "labels" if (data.parent / "labels").is_dir() else None
        yolo.load(images or data.parent / "images", data, labels_folder)
        return yolo
    if data.suffix.lower() == ".json":
        is_coco = _is_coco(data)
        annotated = (formats.CocoDataset if is_coco else formats.ViaDataset)(**choice)
        annotated.load(data, images)
        return annotated
    if data.suffix.lower() == ".zip" or _has_images(data / "labels"):
        labels = formats.LabelImageDataset(**choice)
        labels.load(data, str(images.absolute()) if images else "images", classes=classes or ("object",))
        return labels
    if (data / "data.yaml").is_file():
        return _from_folder(data / "data.yaml", images, classes, choice)
    if data.is_dir() and any(data.glob("*.json")):
        if (data / "annotations.json").is_file() and _is_coco(data / "annotations.json"):
            coco = formats.CocoDataset(**choice)
            coco.load(data / "annotations.json", images)
            return coco
        shapes = formats.LabelMeDataset(**choice)
        shapes.load(data, classes, within=images)
        return shapes
    if (data / "labelme").is_dir():
        return _from_folder(data / "labelme", images, classes, choice)
    for name, suffixes, kind in (
        ("geojson", {".geojson"}, formats.GeoJsonDataset),
        ("rois", {".zip", ".roi"}, formats.ImageJDataset),
    ):
        folder = data / name if (data / name).is_dir() else data
        if folder.is_dir() and suffixes & {path.suffix.lower() for path in folder.iterdir()}:
            outlined = kind(**choice)
            outlined.load(folder, images or _images_beside(folder), classes)
            return outlined
    raise InvalidDataError(f"No dataset was recognized here. {KNOWN}", file=data)


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _images_beside(folder: Path) -> Path:
    """The folder of the images of annotation files: images/ in it or beside it, or the same folder."""
    beside = (folder / "images", folder.parent / "images")
    return next((path for path in beside if path.is_dir()), folder)


def _is_coco(path: Path) -> bool:
    """Whether a json file has the fields of COCO. One that cannot be read is left to the reader of COCO."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
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

    dataset = open_dataset(data, images, choice=choice)
    numbers = describe(dataset, limit)
    drawn = numbers.pop("figure")
    text = ""
    if figure is not None:
        drawn.savefig(figure)
        text = f"Saved the figure to {figure}."
    if numbers["problems"]:
        kinds = sum(numbers["problems"].values())
        raise IncompleteError((numbers, text), f"{kinds} entries have problems; see above.")
    return numbers, text

"""Write a dataset as a COCO annotation file, which `CocoDataset` and other programs read."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from mrcnn import files
from mrcnn.dataset import Dataset
from mrcnn.errors import DataError, InvalidDataError, LeftOutWarning
from mrcnn.files.paths import relative_path
from mrcnn.formats.files import Record, Source
from mrcnn.formats.shown import objects_of
from mrcnn.results.coco import CocoFile, records_of

# How many of the images that cannot be read a warning names.
NAMED_IMAGES = 3


def write_coco(dataset: Dataset, path: Source, images: Source | None = None) -> int:
    """Write the annotations of a prepared dataset as a COCO file.

    The masks are written as run lengths. Images without objects are only written if the dataset lists them as
    empty, because images that nobody has annotated must not serve as background in training. Images that
    cannot be read, or whose masks cannot, are left out. Masks are turned as viewers show an image with an
    EXIF orientation, which readers follow, even if the dataset does not.

    Args:
        dataset: Any prepared dataset whose images are files.
        path: The JSON file to write. It is replaced atomically.
        images: The folder to which the names of the images are relative, by default that of `path`.

    Returns:
        The number of images in the file.

    Raises:
        InvalidDataError: If an image is not a file below this folder, or none can be read.
        OSError: If the file cannot be written.

    Warns:
        LeftOutWarning: If images are left out because they cannot be read, with their number and the first
            errors.
    """
    folder = Path(path).parent if images is None else Path(images)
    content = CocoFile({n: info["name"] for n, info in enumerate(dataset.class_info) if n})
    errors = []
    for image_id in range(dataset.num_images):
        name = name_below(folder, dataset.image_info[image_id], image_id)
        try:
            objects = objects_of(dataset, image_id)
        except (DataError, OSError) as error:
            errors.append(f"{name}: {error}")
            continue
        records = [record for record in records_of(objects) if record["area"]]
        if records or dataset.is_listed_as_empty(image_id):
            content.add(objects, name, records)
    report_unreadable(errors, dataset.num_images)
    files.write_json(path, content.content())
    return len(content.images)


def report_unreadable(errors: Sequence[str], count: int) -> None:
    """Warn of images that were left out.

    Args:
        errors: One for each image that cannot be read.
        count: The number of all images.

    Raises:
        InvalidDataError: If no image can be read.

    Warns:
        LeftOutWarning: If one cannot be read.
    """
    if not errors:
        return
    more = "; ..." if len(errors) > NAMED_IMAGES else ""
    named = f"{'; '.join(errors[:NAMED_IMAGES])}{more}"
    if len(errors) == count:
        raise InvalidDataError(f"None of the {count} images can be read: {named}")
    warnings.warn(
        f"{len(errors)} of {count} images cannot be read, and are left out: {named}",
        LeftOutWarning,
        stacklevel=3,
    )


def name_below(folder: Path, info: Record, image_id: int) -> str:
    """Return the path of an image relative to a folder, with slashes.

    Raises:
        InvalidDataError: If it is not a file below the folder.
    """
    file = info.get("path")
    is_file = file is not None and not info.get("member") and not info.get("is_embedded")
    if is_file:
        name = relative_path(str(file), folder)
        if name.partition("/")[0] != os.pardir and not os.path.isabs(name):
            return name
    raise InvalidDataError(
        f"The image must be a file below the folder {folder}. Received: path={str(file)!r}. Pass `images`, "
        "or unpack the archive.",
        entry=f"image id {image_id}",
        field="path",
    )

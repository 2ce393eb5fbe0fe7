"""Write a dataset in another format, with the writers of `mrcnn.results`."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mrcnn.dataset import Dataset
from mrcnn.errors import InvalidDataError
from mrcnn.formats.base import FormatDataset
from mrcnn.formats.coco_export import objects_of
from mrcnn.formats.files import Record, Source
from mrcnn.results.folder import ResultFolder

# Formats that need the pixels of the images.
NEED_PIXELS = {"csv", "overlay"}


def write_dataset(
    dataset: Dataset,
    folder: Source,
    formats: Sequence[str],
    *,
    copy_images: bool = False,
    tolerance: float | None = None,
) -> dict[str, int]:
    """Write the annotations of a prepared dataset in other formats.

    Images without objects are only written if the dataset lists them as empty, because images that nobody has
    annotated must not serve as background in training. Only "coco" keeps crowds.

    Args:
        dataset: Any prepared dataset whose images are files.
        folder: The folder to write to. Files of the same names are replaced.
        formats: Some of `mrcnn.results.folder.FORMATS`, which describes the files.
        copy_images: Whether to copy the images to `images/`. If False, paths of images are relative to the
            common folder of all images.
        tolerance: Largest distance of outlines from the edges of the masks; see `mrcnn.results.saving.save`.

    Returns:
        The number of objects of each image by name.

    Raises:
        InvalidDataError: If an image is not a file, or cannot be used.
        UnreadableFileError: If an image or its masks cannot be read.
        ValueError: If a format is unknown.
        OSError: If a file cannot be written.
    """
    names = {number: info["name"] for number, info in enumerate(dataset.class_info) if number}
    results = ResultFolder(folder, names, formats, copy_images=copy_images, tolerance=tolerance)
    files = [_file(info, image_id) for image_id, info in enumerate(dataset.image_info)]
    stems = Counter(PurePosixPath(file).stem for file in files)
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    for image_id, file in enumerate(files):
        objects = objects_of(dataset, image_id)
        if not objects.count and not dataset.is_listed_as_empty(image_id):
            continue
        path = PurePosixPath(file)
        results.add(
            objects,
            path.stem if stems[path.stem] == 1 else path.name,
            file_name=Path(os.path.relpath(file, root or None)).as_posix(),
            image=dataset.load_image(image_id) if NEED_PIXELS & set(formats) else None,
            content=_content(dataset, image_id) if copy_images else None,
        )
    results.finish()
    return results.counts


def _file(info: Record, image_id: int) -> str:
    """Return the path of an image, or its name in an archive."""
    path = info.get("member") or info.get("path")
    if path is None or info.get("is_embedded"):
        raise InvalidDataError(
            f"The image must be a file. Received: path={path!r}. Save the image to a file first.",
            entry=f"image id {image_id}",
            field="path",
        )
    return str(path)


def _content(dataset: Dataset, image_id: int) -> Path | BinaryIO:
    opened = dataset.open_image(image_id) if isinstance(dataset, FormatDataset) else None
    path = dataset.image_info[image_id]["path"] if opened is None else opened
    return Path(path) if isinstance(path, (str, os.PathLike)) else path

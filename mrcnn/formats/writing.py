"""Write a dataset in another format, with the writers of `mrcnn.results`."""

import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.errors import DataError, InvalidDataError, LeftOutWarning
from mrcnn.files.paths import is_inside, relative_path
from mrcnn.formats.base import FormatDataset
from mrcnn.formats.coco_export import report_unreadable
from mrcnn.formats.files import Record, Source
from mrcnn.formats.shown import image_of, objects_of
from mrcnn.results.folder import NEED_PIXELS, ResultFolder


def write_dataset(
    dataset: Dataset,
    folder: Source,
    formats: Sequence[str],
    *,
    copy_images: bool = False,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the annotations of a prepared dataset in other formats.

    Images without objects are only written if the dataset lists them as empty, because images that nobody has
    annotated must not serve as background in training. Only "coco" keeps crowds. Objects are turned as
    viewers show an image with an EXIF orientation, which readers follow, even if the dataset does not.

    Args:
        dataset: Any prepared dataset whose images are files.
        folder: The folder to write to. Files of the same names are replaced.
        formats: Some of `mrcnn.results.folder.FORMATS`, which describes the files.
        copy_images: Whether to copy the images to `images/`. If False, paths of images are relative to
            `folder` if all images are below it, and else to the common folder of all images.
        tolerance: Largest distance of outlines from the edges of the masks; see `mrcnn.results.saving.save`.
        overwrite: Whether to replace annotations that somebody may have corrected or drawn; see
            `mrcnn.results.folder.ResultFolder`.

    Returns:
        The number of objects of each image by name.

    Raises:
        InvalidDataError: If an image is not a file, LabelMe files would have to name images in an archive, or
            no image can be read.
        ValueError: If a format is unknown.
        FileExistsError: If there are such annotations, and `overwrite` is False.
        OSError: If a file cannot be written.

    Warns:
        LeftOutWarning: If images are left out because they, or their masks, cannot be read, or crowds because
            no format has them.
        UserWarning: If the files do not store the classes.
    """
    archive = next((info["path"] for info in dataset.image_info if info.get("member")), None)
    check_images_have_names(formats, copy_images, archive)
    names = {number: info["name"] for number, info in enumerate(dataset.class_info) if number}
    if len(names) > 1 and not set(formats) - {"labels", "tiff", "overlay"}:
        warnings.warn(
            f"Label images do not store classes, and this dataset has {len(names)}: "
            f"{', '.join(names.values())}. Write another format, too, such as coco.",
            stacklevel=2,
        )
    results = ResultFolder(
        folder, names, formats, copy_images=copy_images, tolerance=tolerance, overwrite=overwrite
    )
    files = [_file(info, image_id) for image_id, info in enumerate(dataset.image_info)]
    root = _root(files, Path(folder))
    errors: list[str] = []
    crowds = 0
    file_names = [relative_path(file, root) for file in files]
    for image_id, (name, file_name) in enumerate(zip(unique_names(file_names), file_names, strict=True)):
        try:
            objects = objects_of(dataset, image_id)
            image = image_of(dataset, image_id) if NEED_PIXELS & set(formats) else None
        except (DataError, OSError) as error:
            errors.append(f"{file_name}: {error}")
            continue
        crowds += int(np.count_nonzero(objects["class_ids"] < 0))
        if objects.count or dataset.is_listed_as_empty(image_id):
            content = _content(dataset, image_id) if copy_images else None
            results.add(objects, name, file_name=file_name, image=image, content=content)
    report_unreadable(errors, dataset.num_images)
    results.finish()
    if crowds and "coco" not in formats:
        what = "1 crowd was" if crowds == 1 else f"{crowds} crowds were"
        warnings.warn(
            f"{what} left out, because only the format coco has crowds.", LeftOutWarning, stacklevel=2
        )
    return results.counts


def check_images_have_names(formats: Sequence[str], copy_images: bool, archive: Source | None) -> None:
    """Raise InvalidDataError if LabelMe files would have to name images in an archive.

    Args:
        formats: The formats to write.
        copy_images: Whether the images are copied out of the archive.
        archive: The archive of the images, if they are in one.
    """
    if "labelme" in formats and not copy_images and archive is not None:
        raise InvalidDataError(
            "A LabelMe file names its image file, and these images are in an archive. Pass copy_images=True "
            "(--copy-images on the command line), or unpack the archive.",
            file=archive,
        )


def unique_names(file_names: Sequence[str]) -> list[str]:
    """Return a different name for the results of each image file.

    It is the name of the file without its suffix, or with it, or the whole path with underscores in
    place of slashes and colons: the first of these that no other file has, with or without its suffix. Equal
    paths, such as those of two archives, get numbers.

    Args:
        file_names: Paths with slashes.
    """
    paths = [PurePosixPath(name) for name in file_names]
    whole = [re.sub("[/:]", "_", str(path.with_suffix(""))) for path in paths]
    stems, names = [path.stem for path in paths], [path.name for path in paths]
    choices = [stems, names, whole]
    counts = [Counter(stems + names), Counter(names), Counter(whole)]
    found: dict[str, None] = {}  # in order
    for options in zip(*choices, strict=True):
        name = next((one for one, count in zip(options, counts, strict=True) if count[one] == 1), options[-1])
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        found[next(one for one in itertools.chain([name], numbered) if one not in found)] = None
    return list(found)


def _root(files: Sequence[str], folder: Path) -> str:
    """Return the folder to which the paths of images are relative.

    It is `folder` if all are below it, and else their common folder. Images on several drives of Windows have
    none; for them it is the working folder.
    """
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    try:
        common = os.path.commonpath(folders) if files else os.curdir
    except ValueError:  # several drives
        return os.curdir
    return str(folder) if is_inside(os.path.abspath(common), os.path.abspath(folder)) else common


def _file(info: Record, image_id: int) -> str:
    """Return the path of an image, or its name in an archive, with slashes."""
    member = info.get("member")
    path = member.replace("\\", "/") if member else info.get("path")
    if path is None or info.get("is_embedded"):
        raise InvalidDataError(
            f"The image must be a file. Received: path={path!r}. Save the image to a file first.",
            entry=f"image id {image_id}",
            field="path",
        )
    return str(path)


def _content(dataset: Dataset, image_id: int) -> Path | BinaryIO:
    opened = dataset.open_image_file(image_id) if isinstance(dataset, FormatDataset) else None
    path = dataset.image_info[image_id]["path"] if opened is None else opened
    return Path(path) if isinstance(path, (str, os.PathLike)) else path

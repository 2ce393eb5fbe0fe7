"""Detections of a folder or zip file of images, written as files.

    found = write_predictions(model.detect, "images.zip", "out", {1: "nucleus"}, min_score=0.5)

`mrcnn.results.folder` lists the files. Each appears when it is complete.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.files import archives
from mrcnn.files.calibration import PixelSize, read_calibration
from mrcnn.files.images import SUFFIXES, read_image
from mrcnn.formats import image_files
from mrcnn.formats.files import Source
from mrcnn.results.detections import Detections
from mrcnn.results.folder import ResultFolder
from mrcnn.typing import Image

logger = logging.getLogger(__name__)

# Folders in which images may lie, below a folder or in a zip file. The first one with images counts.
FOLDERS = ("", "images")


def write_predictions(
    detect: Callable[[list[Image]], list[Any]],
    source: Source,
    output: Source,
    class_names: Mapping[int, str],
    min_score: float = 0.5,
    *,
    verbose: int = 1,
    overlays: bool = False,
    formats: Sequence[str] = ("labels", "coco"),
    copy_images: bool = False,
    tolerance: float | None = None,
    pixel_size: PixelSize | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
) -> dict[str, int]:
    """Detect the objects of every image, and write them.

    In a label image, a pixel of several masks belongs to the one with the best score, and an instance without
    a pixel left has no value. Images with an EXIF orientation are turned as viewers show them; results refer
    to that.

    An image that cannot be read or used is logged and left out. The files about all images are written for
    all others, also if an error or Ctrl-C ends the function.

    Args:
        detect: A function from a list of one image to a list of one dict, such as `MaskRCNN.detect`.
        source: An image, or a folder or zip file with images, which are in it or in its folder "images".
        output: The folder to write to; it is created if it is missing. Files of the same names are replaced.
        class_names: Class id to name.
        min_score: Detections with a lower score are left out.
        verbose: 1 shows progress and a summary.
        overlays: Whether to write overlays, too: the same as "overlay" in `formats`.
        formats: Some of `mrcnn.results.folder.FORMATS`.
        copy_images: Whether to copy the images to the folder "images" of the output, which makes it a data
            set by itself.
        tolerance: How far outlines may lie from the edges of the masks; see `mrcnn.results.saving.save`.
        pixel_size: The size of a pixel. By default that in the metadata of each image.
        page: Which image of files with several; see `mrcnn.files.images.read_image`.
        channels: Which channels of images with others than colors; see there.

    Returns:
        The number of instances of each image by name. The name is that of the file without suffix, or with it
        if several files would have one name.

    Raises:
        MissingFileError: If there are no images.
        UnreadableFileError: If a zip file cannot be opened.
        InvalidDataError: If `source` is a file of another kind.
        OSError: If the output cannot be written.
    """
    root, images = _images(Path(source))
    wanted = (*formats, "overlay") if overlays else formats
    results = ResultFolder(output, class_names, wanted, copy_images=copy_images, tolerance=tolerance)
    names = _names(class_names)
    try:
        for name, member in tqdm(images.items(), desc="Predicting", unit="image", disable=not verbose):
            try:
                image = read_image(_open(root, member), f"{root}/{member}", page=page, channels=channels)
                (found,) = detect([image])
                result = _facts(found, image, names, root / member if root.is_dir() else None)
                if pixel_size is not None:
                    result.pixel_size = pixel_size
                kept = result.select(np.asarray(result["scores"]) >= min_score)
                content = _open(root, member) if copy_images else None
            except (OSError, ValueError, MemoryError) as error:
                logger.warning("Left out %s of %s: %s", member, root, error)
                continue
            results.add(kept, name, file_name=member, image=image, content=content)
    finally:
        results.finish()
    counts = results.counts
    if len(counts) < len(images):
        logger.warning("%d of %d images were left out.", len(images) - len(counts), len(images))
    if verbose:
        listed = ", ".join(class_names.values())
        print(f"{len(counts)} images, {sum(counts.values())} instances ({listed}) in {output}")
    return counts


def _facts(found: Mapping[str, Any], image: Image, names: Sequence[str], path: Path | None) -> Detections:
    """The detections of an image, which know its class names, its file and what that says of its pixels."""
    result = Detections.of(found, image.shape[:2])
    result.class_names = tuple(names)
    if path is not None:
        calibration = read_calibration(path)
        result.path = path.resolve() if path.is_symlink() else path
        result.pixel_size, result.georeference = calibration.pixel_size, calibration.georeference
    return result


def _names(class_names: Mapping[int, str]) -> list[str]:
    """Names by class id, the background first."""
    count = max(class_names, default=0) + 1
    return ["BG", *(class_names.get(number, f"class {number}") for number in range(1, count))]


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
    raise MissingFileError('There are no images here or in the folder "images".', file=source)


def _open(root: Path, member: str) -> Path | BinaryIO:
    return root / member if root.is_dir() else archives.open_member(root, member)

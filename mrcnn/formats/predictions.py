"""Detections of a folder or zip file of images, written as files.

    found = write_predictions(model.detect, "images.zip", "out", {1: "nucleus"}, min_score=0.5)

`mrcnn.results.folder` lists the files. Each appears when it is complete.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from tqdm import tqdm

from mrcnn.errors import IMAGE_ERRORS, InvalidDataError, MissingFileError
from mrcnn.files import archives
from mrcnn.files.calibration import PixelSize, read_calibration
from mrcnn.files.images import SUFFIXES, read_image
from mrcnn.formats import image_files
from mrcnn.formats.files import Source
from mrcnn.formats.writing import unique_names
from mrcnn.results.detections import Detections
from mrcnn.results.folder import ResultFolder
from mrcnn.threads import in_order
from mrcnn.typing import Image

logger = logging.getLogger(__name__)

# Detects in many images: takes functions that read an image, and yields a dict for each of them, or the error
# that reading or detecting raised.
Stream: TypeAlias = Callable[[Iterable[Callable[[], Image]]], Iterable[Any]]

# Formats that need the image itself.
READ_PIXELS = {"overlay", "csv"}

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
    stream: Stream | None = None,
    read: Callable[..., Any] = read_image,
    overwrite: bool = False,
) -> dict[str, int]:
    """Detect the objects of every image, and write them.

    In a label image, a pixel of several masks belongs to the one with the best score, and an instance without
    a pixel left has no value. Images with an EXIF orientation are turned as viewers show them; results refer
    to that.

    While `detect` runs, threads read the next images, and another one writes the last results.

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
        stream: A function to use instead of `detect`, which may overlap the images, such as
            `MaskRCNN.stream` with errors; see `Stream`.
        read: A function to use instead of `read_image` if no format needs the pixels, such as
            `MaskRCNN.read_image`. What it returns has the `shape` of the image.
        overwrite: Whether to replace annotations that somebody may have corrected or drawn; see
            `mrcnn.results.folder.ResultFolder`.

    Returns:
        The number of instances of each image by name. The name is that of the file without suffix, or with it
        if several files would have one name.

    Raises:
        MissingFileError: If there are no images.
        UnreadableFileError: If a zip file cannot be opened.
        InvalidDataError: If `source` is a file of another kind, or if LabelMe files would have to name images
            in an archive.
        FileExistsError: If there are such annotations, and `overwrite` is False.
        OSError: If the output cannot be written.
    """
    root, images = images_of(Path(source))
    wanted = (*formats, "overlay") if overlays else formats
    _check_names_of_images(root, wanted, copy_images)
    options = {"copy_images": copy_images, "tolerance": tolerance, "overwrite": overwrite}
    results = ResultFolder(output, class_names, wanted, **options)  # type: ignore[arg-type]
    names = _names(class_names)
    pictures = [_Picture(name, member) for name, member in images.items()]

    read_picture = partial(_read, root, None if READ_PIXELS & set(wanted) else read, page, channels)

    def write(item: tuple[_Picture, Any]) -> None:
        picture, found = item
        try:
            if isinstance(found, Exception):
                raise found
            path = root / picture.member if root.is_dir() else None
            result = _facts(found, picture.shape, names, path)
            if pixel_size is not None:
                result.pixel_size = pixel_size
            kept = result.select(np.asarray(result["scores"]) >= min_score)
            content = _open(root, picture.member) if copy_images else None
        except IMAGE_ERRORS as error:
            logger.warning("Left out %s of %s: %s", picture.member, root, error)
            return
        file_name = picture.member if path else picture.member.replace("\\", "/")
        results.add(kept, picture.name, file_name=file_name, image=picture.image, content=content)
        picture.image = None

    found = (stream or _one_by_one(detect))(partial(read_picture, picture) for picture in pictures)
    try:
        with contextlib.closing(in_order(write, zip(pictures, found, strict=True), threads=1)) as written:
            for _ in tqdm(written, "Predicting", len(pictures), unit="image", disable=not verbose):
                pass
    finally:
        results.finish()
    if len(results.counts) < len(images):
        logger.warning("%d of %d images were left out.", len(images) - len(results.counts), len(images))
    if verbose:
        _print_summary(results.counts, class_names, output)
    return results.counts


def _print_summary(counts: Mapping[str, int], class_names: Mapping[int, str], output: Source) -> None:
    listed = ", ".join(class_names.values())
    print(f"{len(counts)} images, {sum(counts.values())} instances ({listed}) in {output}")


def _check_names_of_images(root: Path, formats: Sequence[str], copy_images: bool) -> None:
    """Raise InvalidDataError if LabelMe files would have to name images in an archive."""
    if "labelme" in formats and not copy_images and not root.is_dir():
        raise InvalidDataError(
            "A LabelMe file names its image file, and these images are in an archive. Pass copy_images=True "
            "(--copy-images on the command line), or unpack the archive.",
            file=root,
        )


@dataclass
class _Picture:
    """An image from reading to writing.

    Attributes:
        name: The name of its results.
        member: Its path in the source.
        shape: (height, width), once it is read.
        image: Its pixels, if the results need them, until these are written.
    """

    name: str
    member: str
    shape: tuple[int, ...] = ()
    image: Image | None = None


def _read(
    root: Path,
    read: Callable[..., Any] | None,
    page: int | None,
    channels: Sequence[int] | None,
    picture: _Picture,
) -> Any:
    """Return what `read` returns for an image. None reads its pixels, and keeps them."""
    file, name = _open(root, picture.member), f"{root}/{picture.member}"
    image = (read or read_image)(file, name, page=page, channels=channels)
    picture.shape, picture.image = image.shape[:2], image if read is None else None
    return image


def _one_by_one(detect: Callable[[list[Image]], list[Any]]) -> Stream:
    """Return a stream that calls a function with one image at a time. Threads read the next ones."""

    def read(reader: Callable[[], Image]) -> Any:
        try:
            return reader()
        except IMAGE_ERRORS as error:
            return error

    def stream(readers: Iterable[Callable[[], Image]]) -> Iterator[Any]:
        for image in in_order(read, readers):
            found = image
            if not isinstance(image, Exception):
                try:
                    (found,) = detect([image])
                except IMAGE_ERRORS as error:
                    found = error
            yield found

    return stream


def _facts(
    found: Mapping[str, Any], shape: Sequence[int], names: Sequence[str], path: Path | None
) -> Detections:
    """The detections of an image, which know its class names, its file and what that says of its pixels."""
    result = Detections.of(found, shape)
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


def images_of(source: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder or zip file of the images, and their paths in it by the names of their results.

    Args:
        source: See `write_predictions`.

    Raises:
        MissingFileError: If there are no images.
        UnreadableFileError: If a zip file cannot be opened.
        InvalidDataError: If `source` is a file of another kind.
    """
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
            names = unique_names([path.replace("\\", "/") for path in found])
            return source, dict(zip(names, found, strict=True))
    raise MissingFileError('There are no images here or in the folder "images".', file=source)


def _open(root: Path, member: str) -> Path | BinaryIO:
    return root / member if root.is_dir() else archives.open_member(root, member)

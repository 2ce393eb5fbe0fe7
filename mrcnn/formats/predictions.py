"""Detections of a folder or zip file of images, written as files.

    found = write_predictions(model.detect, "images.zip", "out", {1: "nucleus"}, min_score=0.5)

`mrcnn.results.folder` lists the files. Each appears when it is complete.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from mrcnn.errors import IMAGE_ERRORS, CappedWarning, InvalidDataError, MissingFileError, redirect_warnings
from mrcnn.files import archives
from mrcnn.files.calibration import PixelSize, read_calibration
from mrcnn.files.images import SUFFIXES, read_image
from mrcnn.formats import image_files
from mrcnn.formats.coco_export import NAMED_IMAGES
from mrcnn.formats.files import Source
from mrcnn.formats.writing import check_images_have_names, unique_names
from mrcnn.results.detections import Detections
from mrcnn.results.folder import NEED_PIXELS, OtherImageError, ResultFolder
from mrcnn.threads import in_order
from mrcnn.typing import Image

logger = logging.getLogger(__name__)

# Detects in many images: takes functions that read an image, and yields a dict for each of them, or the error
# that reading or detecting raised.
Stream: TypeAlias = Callable[[Iterable[Callable[[], Image]]], Iterable[Any]]

# Folders in which images may lie, below a folder or in a zip file. The first one with images counts.
FOLDERS = ("", "images")


def write_predictions(
    detect: Callable[[list[Image]], list[Any]],
    source: Source | Sequence[Source],
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
        source: An image, a list of images, or a folder or zip file with images, which are in it or in its
            folder "images".
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
        ValueError: If a list has something else than images, or two images of one name.
        FileExistsError: If there are such annotations, and `overwrite` is False.
        OSError: If the output cannot be written.

    Warns:
        CappedWarning: If images have as many detections as the model allows, with their number and the first
            names.
    """
    jobs = _jobs_of(source)
    root = jobs[0].root
    wanted = (*formats, "overlay") if overlays else formats
    check_images_have_names(wanted, copy_images, None if root.is_dir() else root)
    results = ResultFolder(
        output, class_names, wanted, copy_images=copy_images, tolerance=tolerance, overwrite=overwrite
    )
    read_one = partial(_read, None if NEED_PIXELS & set(wanted) else read, page, channels)
    write = partial(_write, results, _names(class_names), min_score, pixel_size)
    held: list[str] = []
    capped: list[str] = []
    found = (stream or _one_by_one(detect))(partial(read_one, job) for job in jobs)
    count = len(jobs)
    try:
        with redirect_warnings(CappedWarning, held.append):
            items = _with_jobs(found, jobs, held, capped)
            with contextlib.closing(in_order(write, items, threads=1)) as written:
                for _ in tqdm(written, "Predicting", count, unit="image", disable=not verbose):
                    pass
    finally:
        results.finish()
    if len(results.counts) < count:
        logger.warning("%d of %d images were left out.", count - len(results.counts), count)
    if capped:
        _warn_of_capped(capped, count)
    if verbose:
        _print_summary(results.counts, class_names, output)
    return results.counts


def _print_summary(counts: Mapping[str, int], class_names: Mapping[int, str], output: Source) -> None:
    listed = ", ".join(class_names.values())
    print(f"{len(counts)} images, {sum(counts.values())} instances ({listed}) in {output}")


@dataclass
class _Job:
    """Detection in one image, from reading to writing.

    Attributes:
        name: The name of its results.
        root: The folder or zip file in which it is.
        member: Its path in there.
        shape: (height, width), once it is read.
        image: Its pixels, if the results need them, until these are written.
    """

    name: str
    root: Path
    member: str
    shape: tuple[int, ...] = ()
    image: Image | None = None


def _jobs_of(source: Source | Sequence[Source]) -> list[_Job]:
    """Return the images of a source; see `write_predictions`."""
    if isinstance(source, str | os.PathLike):
        root, images = images_of(Path(source))
        return [_Job(name, root, member) for name, member in images.items()]
    paths = sorted(map(Path, source), key=_folded)  # some file systems ignore the case of names
    if not paths:
        raise ValueError("`source` must have at least one image. Received: an empty list")
    for path, earlier in zip(paths, (None, *paths), strict=False):
        if path.is_dir() or path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                "If you pass several sources, all of them must be image files with one of the suffixes "
                f"{', '.join(sorted(SUFFIXES))}. Received: {path}. Leave it out, or pass folders, "
                "archives and videos one at a time."
            )
        if earlier is not None and _folded(path) == _folded(earlier):
            raise ValueError(
                f"Two images are named {path.name}, so their results would overwrite each other. Pass "
                "their folders one at a time."
            )
    names = unique_names([path.name for path in paths])
    return [_Job(name, path.parent, path.name) for name, path in zip(names, paths, strict=True)]


def count_images(source: Source | Sequence[Source]) -> int:
    """Return how many images a source has; `write_predictions` describes sources and errors."""
    return len(_jobs_of(source))


def _with_jobs(
    found: Iterable[Any], jobs: Sequence[_Job], held: Sequence[Any], capped: list[str]
) -> Iterator[tuple[_Job, Any]]:
    """Yield each image with what a stream finds in it.

    Append the name of an image to `capped` if the stream adds to `held`, the CappedWarnings, which name no
    image.
    """
    before = len(held)
    for job, item in zip(jobs, found, strict=True):
        if len(held) > before:
            capped.append(job.member)
            before = len(held)
        yield job, item


def _folded(path: Path) -> str:
    return path.name.casefold()


def _warn_of_capped(names: Sequence[str], count: int) -> None:
    more = f" and {len(names) - NAMED_IMAGES} more" if len(names) > NAMED_IMAGES else ""
    warnings.warn(
        f"{len(names)} of {count} images have as many detections as DETECTION_MAX_INSTANCES allows, so "
        f"objects with lower scores may be missing: {', '.join(names[:NAMED_IMAGES])}{more}. Raise this "
        "setting or DETECTION_MIN_CONFIDENCE, or use detect_large for large images.",
        CappedWarning,
        stacklevel=3,
    )


def _read(
    read: Callable[..., Any] | None,
    page: int | None,
    channels: Sequence[int] | None,
    job: _Job,
) -> Any:
    """Return what `read` returns for an image. None reads its pixels, and keeps them."""
    file, name = image_files.open_image(job.root, job.member), f"{job.root}/{job.member}"
    image = (read or read_image)(file, name, page=page, channels=channels)
    job.shape, job.image = image.shape[:2], image if read is None else None
    return image


def _write(
    results: ResultFolder,
    names: Sequence[str],
    min_score: float,
    pixel_size: PixelSize | None,
    item: tuple[_Job, Any],
) -> None:
    """Write what was found in an image, or log the error of reading or detecting."""
    job, found = item
    try:
        if isinstance(found, Exception):
            raise found
        path = job.root / job.member if job.root.is_dir() else None
        result = _facts(found, job.shape, names, path)
        if pixel_size is not None:
            result.pixel_size = pixel_size
        kept = result.select(np.asarray(result["scores"]) >= min_score)
        content = image_files.open_image(job.root, job.member) if results.copy_images else None
    except IMAGE_ERRORS as error:
        _leave_out(job, error)
    else:
        file_name = job.member if path else job.member.replace("\\", "/")
        try:
            results.add(kept, job.name, file_name=file_name, image=job.image, content=content)
        except OtherImageError as error:
            _leave_out(job, error)
    finally:
        job.image = None


def _leave_out(job: _Job, error: BaseException) -> None:
    """Log the error of an image, and remove its tracebacks, whose frames hold the image and the error."""
    logger.warning("Left out %s of %s: %s", job.member, job.root, error)
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__


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
    """Return the detections of an image with its class names, its file and the calibration in the file."""
    result = Detections.of(found, shape)
    result.class_names = tuple(names)
    if path is not None:
        calibration = read_calibration(path)
        result.path = path
        result.pixel_size, result.georeference = calibration.pixel_size, calibration.georeference
    return result


def _names(class_names: Mapping[int, str]) -> list[str]:
    """Return the names by class id, the background first."""
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
    raise MissingFileError(
        'There are no images here or in the folder "images". Other subfolders are not searched: pass one of '
        "them.",
        file=source,
    )

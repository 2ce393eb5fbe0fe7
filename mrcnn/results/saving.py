"""Save the result of one image in any of the formats."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mrcnn import files
from mrcnn.files.paths import relative_path
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

FORMATS = ("labels", "coco", "labelme", "yolo", "geojson", "imagej", "csv", "overlay")
# Formats whose files contain the path of their image.
NAME_IMAGE = {"coco", "labelme"}
# The format of a file whose suffix tells it.
SUFFIXES = {
    ".png": "labels",
    ".tif": "labels",
    ".tiff": "labels",
    ".txt": "yolo",
    ".geojson": "geojson",
    ".zip": "imagej",
    ".csv": "csv",
}


def save(
    result: "Detections",
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    image: Image | None = None,
    tolerance: float | None = None,
) -> Path:
    """Write the objects of one image to a file, atomically.

    Args:
        result: The objects.
        path: The file to write. Its folder is created.
        format: One of FORMATS. The suffix tells it, except for .json, which may be "coco" or "labelme", and
            for an "overlay".
        image: The image, [height, width] or [height, width, channels]. An "overlay" needs it, and a "csv"
            file gets mean intensities from it.
        tolerance: Largest distance, in pixels, of outlines in "labelme", "yolo", "geojson" and "imagej" from
            the edges of the masks. By default 1 for "labelme", because fewer points are easier to correct,
            else 0, which is exact.

    Returns:
        The path of the file. A "labels" file of more than 65,535 objects, or of a result of
        `detect_large`, is a .tif file of 32 bits.

    Raises:
        ValueError: If the format is unknown or cannot be told, an image is missing or of another size, or
            `tolerance` is negative.
        ImportError: If the package of the format is missing. The error names it.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    chosen = format_of(path, format)
    exact = 0.0 if tolerance is None else tolerance
    if chosen == "labels":
        from mrcnn.results import labels

        if labels.is_large(result):
            return labels.write_label_blocks(result, path)
        return labels.write_labels(labels.shortened(labels.label_image(result)), path, result.pixel_size)
    if chosen == "overlay":
        _write_overlay(result, path, image)
    elif chosen == "imagej":
        from mrcnn.results.imagej import write_rois

        write_rois(result, path, exact)
    elif chosen == "csv":
        from mrcnn.results import measurements

        _write_text(path, measurements.to_csv(measurements.measure(result, image)))
    elif chosen == "yolo":
        from mrcnn.results import yolo

        _write_text(path, yolo.text_of(result, exact))
    elif chosen == "geojson":
        files.write_json(path, result.to_geojson(exact))
    elif chosen == "coco":
        files.write_json(path, result.to_coco())
    else:
        from mrcnn.results import labelme

        content = labelme.content_of(
            result, image_path(result, path.parent), labelme.TOLERANCE if tolerance is None else tolerance
        )
        files.write_json(path, content, indent=2)
    return path


def check_path(result: "Detections", path: Path, format: str | None) -> None:
    """Check that the path of the image is known if the format names it.

    Args:
        result: The objects.
        path: The file to write.
        format: One of FORMATS, or None for that of the suffix.

    Raises:
        ValueError: If the format names the image and `result.path` is not set; or if the format is unknown.
    """
    chosen = format_of(path, format)
    if chosen in NAME_IMAGE and not result.path:
        raise ValueError(
            f"`path` of the result must be set, because {path.name} would name no image: files of the format "
            f"{chosen!r} contain the path of their image. Save the image, and set its path, such as "
            f"result.path = 'image.png'. Received: result.path={result.path!r}"
        )


def format_of(path: Path, format: str | None) -> str:
    """Return the format of a file: the given one, or the one of the suffix.

    Raises:
        ValueError: If it is unknown, or the suffix does not determine it.
    """
    if format is None:
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"Cannot tell the format from the suffix of {path.name}. Pass `format` as one of {FORMATS}."
            )
        return SUFFIXES[path.suffix.lower()]
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    return format


def image_path(result: "Detections", folder: Path) -> str:
    """Return the path of a result's image relative to a folder, with slashes, or "" if it is unknown."""
    return "" if result.path is None else relative_path(result.path, folder)


def _write_overlay(result: "Detections", path: Path, image: Image | None) -> None:
    from PIL import Image as PillowImage

    from mrcnn.results import overlays

    if image is None:
        raise ValueError('`image` must be given for an "overlay", which is drawn on it. Received: image=None')
    canvas = overlays.draw(result, image)
    with files.atomic_write(path) as temporary:
        PillowImage.fromarray(canvas).save(temporary)


def _write_text(path: Path, text: str) -> None:
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))

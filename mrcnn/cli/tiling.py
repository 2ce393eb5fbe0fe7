"""The command `mrcnn detect --tile`: images of any size, tile by tile."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.messages import IncompleteError, check_any
from mrcnn.cli.models import Detecting
from mrcnn.errors import IMAGE_ERRORS, MissingFileError
from mrcnn.files.calibration import TIFF_SUFFIXES, PixelSize
from mrcnn.files.images import SUFFIXES
from mrcnn.results.names import names_of

logger = logging.getLogger(__name__)

DEFAULT_FORMATS = ("tiff", "coco", "geojson")
# Formats that need the whole image in memory, or its file.
NOT_IN_TILES = ("overlay",)


def detect_in_tiles(
    sources: Sequence[str],
    model: Detecting,
    output: Path,
    *,
    tile: int,
    overlap: int | None = None,
    batch: int = 1,
    min_score: float = 0.5,
    formats: Sequence[str] = (),
    quiet: bool = False,
    pixel_size: PixelSize | None = None,
    tolerance: float | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], str]:
    """Detect in images of any size, and write the results.

    Args:
        sources: Image files, or folders of them.
        model: The model.
        output: The folder for the results. The tiles of each image are in its folder "tiles", so that the
            same command goes on after an interruption.
        tile, overlap, batch, page, channels: See `MaskRCNN.detect_large`.
        min_score: Detections with a lower score are left out.
        formats: Some of `mrcnn.results.folder.FORMATS`, without "overlay".
        quiet: Whether to print nothing.
        pixel_size: The size of a pixel; by default what the file says.
        tolerance: See `mrcnn.results.saving.save`.
        overwrite: See `mrcnn.results.folder.ResultFolder`.

    Raises:
        IncompleteError: If images were left out.
    """
    from mrcnn.results.folder import ResultFolder

    images = files_of(sources)
    names = names_of(model)
    wanted = formats or DEFAULT_FORMATS
    results = ResultFolder(output, names, wanted, tolerance=tolerance, overwrite=overwrite)
    left_out = []
    try:
        for name, path in images.items():
            try:
                found = model.detect_large(
                    path,
                    tile,
                    overlap,
                    batch=batch,
                    resume=output / "tiles" / name,
                    progress=not quiet,
                    page=page,
                    channels=channels,
                )
            except IMAGE_ERRORS as error:
                if len(images) == 1:
                    raise
                logger.warning("Left out %s: %s", path, error)
                left_out.append(path)
                continue
            found.class_names = ("background", *names.values())
            if pixel_size is not None:
                found.pixel_size = pixel_size
            results.add(found.select(found["scores"] >= min_score), name, file_name=path.name)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Run the same command again to continue.") from None
    finally:
        results.finish()
    return _summary(output, results.counts, left_out, len(images))


def check_tiles(formats: Sequence[str], tile: int, overlap: int | None = None, batch: int = 1) -> None:
    """Raise ValueError if an option has a value that tiles do not allow."""
    from mrcnn.tiles.grid import check_batch, check_tile

    check_tile(tile, overlap)
    check_batch(batch)
    for name in formats:
        if name in NOT_IN_TILES:
            raise ValueError(
                f"--format {name} needs the whole image in memory. Leave out --format {name} or --tile."
            )


def _summary(
    output: Path, counts: dict[str, int], left_out: Sequence[Path], images: int
) -> tuple[dict[str, Any], str]:
    """Return the result of the command.

    Raises:
        IncompleteError: If images were left out.
        InvalidDataError: If all were.
    """
    check_any(counts, images)
    total = sum(counts.values())
    value = {"output": str(output), "images": len(counts), "instances": total, "counts": counts}
    noun = "image" if len(counts) == 1 else "images"
    result = value, f"Found {total} objects in {len(counts)} {noun}. Saved the results to {output}."
    if left_out:
        raise IncompleteError(result, f"{len(left_out)} of {images} images were left out; see above.")
    return result


def files_of(sources: Sequence[str]) -> dict[str, Path]:
    """Return the image files of files and folders by the names of their results.

    Hidden files of a folder are left out.

    Raises:
        MissingFileError: If there is none.
        ValueError: If a source is of another kind, or two images have one name.
    """
    from mrcnn.tiles import sources as kinds

    suffixes = SUFFIXES | TIFF_SUFFIXES | kinds.SLIDE_SUFFIXES | kinds.RASTER_SUFFIXES | {".npy", ".zarr"}
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        is_folder = _is_plain_folder(source)
        for path in _visible_files(source) if is_folder else [source]:
            if path.suffix.lower() not in suffixes:
                if is_folder:
                    continue
                raise ValueError(f"--tile takes image files and folders of them. Received: {path}")
            if path.stem in found:
                raise ValueError(
                    f"Two images are named {path.stem}, so their results would overwrite each other. Pass "
                    "them one at a time."
                )
            found[path.stem] = path
    if not found:
        raise MissingFileError(
            "There are no images here. Pass image files, or a folder of them.", file=sources[0]
        )
    return found


def _is_plain_folder(path: Path) -> bool:
    """Return whether a path is a folder, but not a Zarr store."""
    return path.is_dir() and path.suffix.lower() != ".zarr"


def _visible_files(folder: Path) -> list[Path]:
    """Return the files and Zarr stores of a folder that are not hidden, sorted."""
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and not _is_plain_folder(path)
    )

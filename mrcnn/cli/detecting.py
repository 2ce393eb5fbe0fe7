"""The command `mrcnn detect`."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.cli.messages import IncompleteError, check_any
from mrcnn.cli.models import Detecting, load_model, warn_of_min_score
from mrcnn.cli.options import given_options, refuse
from mrcnn.cli.shell import command_line
from mrcnn.errors import MissingFileError
from mrcnn.files.calibration import PixelSize
from mrcnn.files.images import read_image
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.results.names import names_of

# Formats of images by default; those of tiles are in `mrcnn.cli.tiling`.
DEFAULT_FORMATS = ("labels", "coco")
# Formats on which --tolerance and --pixel-size have an effect.
OUTLINES = ("labelme", "yolo", "geojson", "imagej")
WITH_PIXEL_SIZE = ("csv", "tiff")
LEAST_SCORE = 0.5
VIDEO_SUFFIXES = {".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


def detect_sources(
    sources: Sequence[str],
    model: str,
    output: Path,
    *,
    min_score: float | None,
    overlays: bool | None,
    settings: Sequence[str],
    quiet: bool,
    formats: Sequence[str] = (),
    tiles: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Detect in images or in one video; see the command.

    Args:
        sources: Images, a folder or a zip archive; a video; or the number of a camera.
        model: See `load_model`.
        output: The folder for the results.
        min_score: Detections with a lower score are left out; by default LEAST_SCORE.
        overlays: Whether to write overlays; by default, if no format is given.
        settings: Settings to change.
        quiet: Whether to print nothing.
        formats: Some of `mrcnn.results.folder.FORMATS`.
        tiles: For large images: the options tile, overlap and batch that are given; see
            `mrcnn.cli.tiling.detect_in_tiles`.
        options: Of `mrcnn.formats.predictions.write_predictions`, such as `overwrite`.
    """
    _check_formats(formats, overlays)
    least = LEAST_SCORE if min_score is None else min_score
    if _is_video(sources):
        overwrite = options.pop("overwrite", False)
        _check_video_options(overlays, {"format": formats or None, **(tiles or {}), **options})
        path = _video_path(sources[0], output, overwrite)
        loaded = load_model(model, settings)
        warn_of_min_score(loaded, min_score)
        return _detect_video(sources[0], loaded, path, least, quiet)
    if tiles and "tile" not in tiles:
        raise ValueError(
            f"These options apply to tiles only: --{', --'.join(tiles)}. Add --tile, or leave them out."
        )
    _check_effect(formats, bool(tiles), options)
    wanted = (*formats, "overlay") if overlays else tuple(formats)
    if tiles and options.pop("copy_images", False):
        raise ValueError("--copy-images and --tile cannot be used together. Pass only one of them.")
    _check_folders(sources, output, wanted if tiles else formats, tiles, bool(options.get("overwrite")))
    loaded = load_model(model, settings)
    warn_of_min_score(loaded, min_score)
    check_choice(options.get("channels"), loaded.config)
    if tiles:
        from mrcnn.cli.tiling import detect_in_tiles

        return detect_in_tiles(
            sources, loaded, output, min_score=least, formats=wanted, quiet=quiet, **tiles, **options
        )
    overlays = not formats if overlays is None else overlays
    return _detect_images(sources, loaded, output, least, overlays, quiet, formats, **options)


def _check_folders(
    sources: Sequence[str],
    output: Path,
    formats: Sequence[str],
    tiles: dict[str, Any] | None,
    overwrite: bool,
) -> None:
    """Raise an error if the images cannot be used, or if results would replace corrected annotations.

    This happens before a model is loaded, which takes seconds.
    """
    from mrcnn.cli import tiling
    from mrcnn.formats.predictions import count_images
    from mrcnn.results import corrections

    if tiles:
        tiling.check_tiles(formats, **tiles)
        tiling.files_of(sources)
    else:
        count_images(sources[0] if len(sources) == 1 else sources)
    if not overwrite:
        defaults = tiling.DEFAULT_FORMATS if tiles else DEFAULT_FORMATS
        corrections.refuse_changed(output, formats or defaults)


def _detect_images(
    sources: Sequence[str],
    loaded: Detecting,
    output: Path,
    min_score: float,
    overlays: bool,
    quiet: bool,
    formats: Sequence[str],
    **options: Any,
) -> tuple[dict[str, Any], str]:
    from mrcnn.formats.predictions import count_images, write_predictions

    source = sources[0] if len(sources) == 1 else sources
    expected = count_images(source)
    counts = write_predictions(
        lambda images: loaded.detect(images, masks="cropped"),
        source,
        output,
        names_of(loaded),
        min_score,
        verbose=0 if quiet else 1,
        overlays=overlays,
        formats=formats or DEFAULT_FORMATS,
        stream=_stream_of(loaded),
        read=getattr(loaded, "read_image", read_image),  # exported files have no own way of reading
        **options,
    )
    value = {
        "output": str(output),
        "images": len(counts),
        "instances": sum(counts.values()),
        "counts": counts,
    }
    check_any(counts, expected)
    next_step = _next_step(sources, output, formats, **options) if counts else ""
    result = value, f"Saved the results to {output}.{next_step}"
    if len(counts) < expected:
        raise IncompleteError(
            result, f"{expected - len(counts)} of {expected} images were left out; see above."
        )
    return result


def _stream_of(model: Detecting) -> Callable[..., Iterator[Any]] | None:
    """Return the method that overlaps images, if the model has one. Exported files have none."""
    stream = getattr(model, "stream", None)
    return stream and partial(stream, masks="cropped", with_errors=True)


def _is_video(sources: Sequence[str]) -> bool:
    """Return whether the only source is a video or a camera.

    Raises:
        MissingFileError: If a source is neither that nor a path.
    """
    path = Path(sources[0])
    is_camera = sources[0].isdigit() and not path.exists()
    if len(sources) == 1 and (is_camera or path.suffix.lower() in VIDEO_SUFFIXES):
        return True
    for source in sources:
        if not Path(source).exists():
            raise MissingFileError("There is no such file or folder.", file=source)
    return False


def parse_pixel_size(micrometers: float | None) -> PixelSize | None:
    """Return the size of square pixels."""
    return None if micrometers is None else PixelSize(micrometers, micrometers)


def _check_formats(formats: Sequence[str], overlays: bool | None) -> None:
    """Raise ValueError for formats that are unknown or contradictory, before a model is loaded."""
    from mrcnn.results.folder import FORMATS

    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}. Received: {name}")
    if "overlay" in formats and overlays is False:
        raise ValueError("--format overlay and --no-overlays contradict each other. Pass only one of them.")


def _check_effect(formats: Sequence[str], has_tiles: bool, options: Mapping[str, Any]) -> None:
    """Raise ValueError if options are given that no format uses."""
    from mrcnn.cli import tiling

    written = set(formats or (tiling.DEFAULT_FORMATS if has_tiles else DEFAULT_FORMATS))
    # The label images of tiles are TIFF files, too.
    sized = (*WITH_PIXEL_SIZE, "labels") if has_tiles else WITH_PIXEL_SIZE
    for option, users in (("tolerance", OUTLINES), ("pixel_size", sized)):
        if not written & set(users):
            refuse(
                {option: options.get(option)},
                f"{{given}} has an effect on the formats {', '.join(users)} only. Pass one of these with "
                "--format, or leave out {given}.",
            )


def _check_video_options(overlays: bool | None, options: Mapping[str, Any]) -> None:
    """Raise ValueError if options are given that apply to images only."""
    given = given_options({**options, "overlays": overlays, "no-overlays": overlays is False})
    if given:
        raise ValueError(
            f"The result of a video is a video. These options apply to images only: {', '.join(given)}. "
            "Leave them out."
        )


def _video_path(source: str, output: Path, overwrite: bool) -> Path:
    """Return the file for the result of a video or a camera.

    Each recording of a camera gets a name of its own.

    Raises:
        FileExistsError: If it would replace the video itself, or another file and `overwrite` is False.
    """
    if source.isdigit():
        path, numbers = output / f"camera-{source}.mp4", itertools.count(2)
        while path.exists() and not overwrite:
            path = output / f"camera-{source}-{next(numbers)}.mp4"
        return path
    path = output / f"{Path(source).stem}.mp4"
    if path.exists() and os.path.exists(source) and path.samefile(source):
        raise FileExistsError(f"The result would replace the video {source}. Choose another --output.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"The file {path} exists already. Choose another --output, or pass --overwrite to replace it."
        )
    return path


def _next_step(
    sources: Sequence[str],
    output: Path,
    formats: Sequence[str],
    copy_images: bool = False,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    **_: Any,
) -> str:
    """Return the command that trains on corrected results, if they are a dataset."""
    if set(formats) <= {"csv", "overlay"} and formats:
        return ""
    data = output / "annotations.json" if not formats or "coco" in formats else output
    command = ["mrcnn", "train", str(data)]
    if not copy_images:
        source = Path(sources[0])
        if len(sources) > 1 or not source.is_dir():
            return ""
        # COCO files name images relative to the source, the others by their name alone.
        is_below = data.suffix != ".json" and (source / "images").is_dir()
        command += ["--images", str(source / "images" if is_below else source)]
    if page is not None:
        command += ["--page", str(page)]
    if channels is not None:
        command += ["--channels", ",".join(map(str, channels))]
    return f" After corrections, train on them: {command_line(command)}"


def _detect_video(
    source: str, model: Detecting, path: Path, min_score: float, quiet: bool
) -> tuple[dict[str, Any], str]:
    from mrcnn.inference.video import detect_video
    from mrcnn.visualize import overlay_instances

    names = ["background", *names_of(model).values()]

    def draw(frame: np.ndarray, found: Any) -> np.ndarray:
        kept = found["scores"] >= min_score
        return overlay_instances(
            frame,
            found["rois"][kept],
            found["masks"][..., kept],
            found["class_ids"][kept],
            names,
            found["scores"][kept],
        )

    frames = detect_video(source, path, lambda images: model.detect(images), draw, progress=not quiet)
    return {"output": str(path), "frames": frames}, f"Saved {frames} frames to {path}."

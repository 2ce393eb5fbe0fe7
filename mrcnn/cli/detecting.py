"""The command `mrcnn detect`."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.cli.messages import IncompleteError
from mrcnn.cli.models import Detecting, load_model
from mrcnn.errors import MissingFileError
from mrcnn.files.calibration import PixelSize
from mrcnn.files.images import SUFFIXES, read_image
from mrcnn.results.names import names_of

VIDEO_SUFFIXES = {".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}


def detect_sources(
    sources: Sequence[str],
    model: str,
    output: Path,
    *,
    min_score: float,
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
        min_score: Detections with a lower score are left out.
        overlays: Whether to write overlays; by default, if no format is given.
        settings: Settings to change.
        quiet: Whether to print nothing.
        formats: Some of `mrcnn.results.folder.FORMATS`.
        tiles: For large images: tile, overlap and batch; see `mrcnn.cli.tiling.detect_in_tiles`.
        options: Of `mrcnn.formats.predictions.write_predictions`, such as `overwrite`.
    """
    _check_formats(formats)
    is_video = _is_video(sources)
    if is_video and formats:
        raise ValueError(
            "--format applies to images only. The result of a video is a video. Leave out --format."
        )
    loaded = load_model(model, settings)
    if is_video:
        return _detect_video(sources[0], loaded, output, min_score, quiet)
    if tiles is not None:
        from mrcnn.cli.tiling import detect_in_tiles

        wanted = (*formats, "overlay") if overlays else formats
        if options.pop("copy_images", False):
            raise ValueError("--copy-images cannot be combined with --tile. Leave out one of them.")
        return detect_in_tiles(
            sources, loaded, output, min_score=min_score, formats=wanted, quiet=quiet, **tiles, **options
        )
    from mrcnn.formats.predictions import images_of, write_predictions

    with _as_one_source(sources) as folder:
        expected = len(images_of(folder)[1])
        counts = write_predictions(
            lambda images: loaded.detect(images, masks="cropped"),
            folder,
            output,
            names_of(loaded),
            min_score,
            verbose=0 if quiet else 1,
            overlays=not formats if overlays is None else overlays,
            formats=formats or ("labels", "coco"),
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
    result = value, f"Saved the results to {output}.{_next_step(sources, output, formats, **options)}"
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
    """Whether the only source is a video or a camera.

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


def _check_formats(formats: Sequence[str]) -> None:
    """Raise ValueError for an unknown format, before a model is loaded."""
    from mrcnn.results.folder import FORMATS

    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}. Received: {name}")


def _next_step(
    sources: Sequence[str], output: Path, formats: Sequence[str], copy_images: bool = False, **_: Any
) -> str:
    """The command that trains on corrected results, if they are a dataset."""
    if set(formats) <= {"csv", "overlay"} and formats:
        return ""
    data = output / "annotations.json" if not formats or "coco" in formats else output
    if copy_images:
        return f" After corrections, train on them: mrcnn train {data}"
    source = Path(sources[0])
    if len(sources) > 1 or not source.is_dir():
        return ""
    # COCO files name images relative to the source, the others by their name alone.
    is_below = data.suffix != ".json" and (source / "images").is_dir()
    images = source / "images" if is_below else source
    return f" After corrections, train on them: mrcnn train {data} --images {images}"


@contextlib.contextmanager
def _as_one_source(sources: Sequence[str]) -> Iterator[Path]:
    """Return a single path: that of the only source, or a folder with links to several images."""
    if len(sources) == 1:
        yield Path(sources[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            path = Path(source)
            link = Path(folder, path.name)
            if path.is_dir() or path.suffix.lower() not in SUFFIXES:
                raise ValueError(
                    "If you pass several sources, all of them must be image files with one of the suffixes "
                    f"{', '.join(sorted(SUFFIXES))}. Received: {path}. Leave it out, or pass folders, "
                    "archives and videos one at a time."
                )
            if link.exists():
                raise ValueError(
                    f"Two images are named {path.name}, so their results would overwrite each other. Pass "
                    "their folders one at a time."
                )
            os.symlink(path.resolve(), link)
        yield Path(folder)


def _detect_video(
    source: str, model: Detecting, output: Path, min_score: float, quiet: bool
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

    stem = f"camera-{source}" if source.isdigit() else Path(source).stem
    path = output / f"{stem}.mp4"
    frames = detect_video(source, path, lambda images: model.detect(images), draw, progress=not quiet)
    return {"output": str(path), "frames": frames}, f"Saved {frames} frames to {path}."

"""The command `mrcnn scale`."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.messages import IncompleteError
from mrcnn.cli.models import load_model

LISTED = 10  # broken images that the message names


def detect_with_workers(
    source: str,
    output: str,
    model: str,
    *,
    workers: int,
    cpus: float,
    gpus: float,
    address: str | None,
    min_score: float,
    images_per_file: int,
    settings: Sequence[str],
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Detect in the images of a folder with many workers; see the command.

    Raises:
        ImportError: If PyArrow or Ray is missing.
    """
    try:
        from mrcnn.scale import detect_images
    except ImportError as error:
        if error.name and error.name.startswith("mrcnn"):
            raise
        raise ImportError(
            f"mrcnn scale needs the package {error.name}. Install its requirements with: pip install "
            '"keras-mrcnn[scale]"'
        ) from error
    summary = detect_images(
        source,
        output,
        functools.partial(load_model, model, tuple(settings)),
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        address=address,
        min_score=min_score,
        images_per_file=images_per_file,
        description=" ".join([Path(model).name, *settings]),
        **(choice or {}),
    )
    value = {
        "output": output,
        "images": summary.images,
        "instances": summary.instances,
        "errors": summary.errors,
    }
    text = f"{output} has the results of {summary.images} images, with {summary.instances} instances."
    if summary.errors:
        names = list(summary.errors)[:LISTED]
        more = len(summary.errors) - len(names)
        listed = ", ".join(names) + (f" and {more} more" if more else "")
        raise IncompleteError(
            (value, text),
            f"{len(summary.errors)} images were left out: {listed}. The column `error` says why.",
        )
    return value, text

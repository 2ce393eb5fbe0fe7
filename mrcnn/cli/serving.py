"""The command `mrcnn serve`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.cli.models import Detecting, load_model
from mrcnn.cli.options import refuse_setting
from mrcnn.runtime.inputs import original_size

WARM_UP_SIDE = 256  # pixels


def serve_model(
    model: str,
    *,
    host: str,
    port: int,
    batch: int,
    queue: int,
    max_megabytes: float,
    max_pixels: int | None,
    timeout: float,
    root_path: str,
    settings: Sequence[str],
) -> tuple[dict[str, Any], str]:
    """Serve a model until a signal comes; see the command.

    Raises:
        ImportError: If the packages of the service are missing.
        OSError: If the address cannot be used.
        ValueError: If a setting is one that an option determines.
    """
    refuse_setting(settings, "IMAGES_PER_GPU", "--batch")
    try:
        from mrcnn.serving import Settings, create_app, serve
        from mrcnn.serving.server import listen
    except ImportError as error:
        if error.name and error.name.startswith("mrcnn"):
            raise
        raise ImportError(
            f"mrcnn serve needs the package {error.name}. Install its requirements with: pip install "
            '"keras-mrcnn[serve]"'
        ) from error
    limits = Settings(
        batch=batch,
        queue=queue,
        max_bytes=int(max_megabytes * 1e6),
        max_pixels=max_pixels,
        upload_seconds=timeout,
        answer_seconds=timeout,
        shutdown_seconds=timeout,
    )
    listener = listen(host, port)  # before the model is loaded, which takes seconds
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    print(f"Loading {model} ...", file=sys.stderr)
    loaded = load_model(model, settings)
    loaded.config.IMAGES_PER_GPU = batch
    warm_up(loaded)
    app = create_app(loaded, Path(model).name, limits)
    serve(
        app,
        listener,
        settings=limits,
        root_path=root_path,
        ready=lambda: print(
            f"Serving {model} at {address}. Press Ctrl-C to stop.", file=sys.stderr, flush=True
        ),
    )
    return {"address": address}, "The service has stopped. All requests have been answered."


def warm_up(model: Detecting) -> None:
    """Detect once, so that the network is compiled before the first request.

    Raises:
        ValueError: If an exported file takes one size, and images are always resized to others.
    """
    size = getattr(getattr(model, "metadata", None), "size", None)
    sides = (WARM_UP_SIDE, WARM_UP_SIDE) if size is None else original_size(size, model.config)
    shape = (*sides, int(model.config.IMAGE_CHANNEL_COUNT))
    model.detect([np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)], masks="cropped")

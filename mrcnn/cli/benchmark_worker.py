"""A process of `mrcnn benchmark`: load a model with some threads, measure it, and print a line of JSON.

python -m mrcnn.cli.benchmark_worker '{"model": "nucleus-light", ...}'
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

OBJECTS = 24  # in an image that is made
# OpenVINO chooses the precision when it loads a file: its name of each.
OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def main(argv: Sequence[str]) -> int:
    """Measure a case, and print its rows or its error."""
    case = json.loads(argv[0])
    bind(case["threads"])  # before a framework counts the cores
    from mrcnn.cli.messages import USER_ERRORS

    try:
        answer: dict[str, Any] = {"rows": measure(case)}
    except USER_ERRORS as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return int("error" in answer)


def bind(threads: int) -> None:
    """Restrict this process to some of its cores, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def measure(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each image size and batch size."""
    from mrcnn.geometry.preprocessing import check_choice

    started = time.perf_counter()
    model = _load(case)
    load_seconds = time.perf_counter() - started
    choice = case.get("choice", {})
    check_choice(choice.get("channels"), model.config)
    rows = []
    for size in case["sizes"] or [0]:
        for batch in case["batches"]:
            model.config.IMAGES_PER_GPU = batch
            images = _images(case["images"], size, batch, int(model.config.IMAGE_CHANNEL_COUNT), choice)
            row = _row(model, images, case["repeats"])
            facts = {"size": size, "batch": batch, "threads": case["threads"]}
            precision = case["precision"] or _own_precision(model)
            rows.append({**facts, "precision": precision, "load": load_seconds, **row})
    return rows


def _load(case: dict[str, Any]) -> Any:
    from mrcnn.cli.models import is_exported, load_model

    name, precision, settings = case["model"], case["precision"], case["settings"]
    path = Path(name)
    if not is_exported(path):
        return load_model(name, [*settings, *([f"PRECISION={precision}"] if precision else [])])
    options = {} if path.is_dir() else {"threads": case["threads"]}
    choices = OPENVINO_PRECISIONS if path.suffix.lower() == ".xml" else {}
    if precision in choices:
        options["precision"] = choices[precision]
    model = load_model(name, settings, **options)
    own = _own_precision(model)
    if precision not in ("", own, *choices):
        raise ValueError(
            f"--precision must be {own}, with which this file was exported. Received: --precision "
            f"{precision}. Leave it out, or export the model again."
        )
    return model


def _own_precision(model: Any) -> str:
    if hasattr(model, "metadata"):  # an exported file
        return str(model.metadata.precision)
    return str(model.config.PRECISION or "float32")


def _images(source: str | None, size: int, batch: int, channels: int, choice: Mapping[str, Any]) -> list[Any]:
    """Return images of a folder, resized if a size is given; without a folder, drawings of bright disks."""
    import numpy as np

    if source is None:
        return [_disks(size or 512, seed, channels) for seed in range(batch)]
    from mrcnn.files.images import read_image
    from mrcnn.formats.image_files import images_in

    files = [Path(source, name) for name in images_in(source, "")]
    images = [read_image(files[index % len(files)], **choice) for index in range(batch)]
    if not size:
        return images
    import cv2

    return [
        np.ascontiguousarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
        for image in images
    ]


def _disks(size: int, seed: int, channels: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(seed)
    image = rng.integers(10, 40, (size, size, channels)).astype(np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for y, x in rng.uniform(0.05, 0.95, (OBJECTS, 2)) * size:
        radius = rng.uniform(0.02, 0.05) * size
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.integers(140, 220)
    return image


def _row(model: Any, images: list[Any], repeats: int) -> dict[str, Any]:
    """Return the median times per image, in seconds, of the whole detection and of its parts."""
    from mrcnn.inference.inputs import mold_inputs

    first, found = _timed(lambda: model.detect(images))
    seconds = sorted(_timed(lambda: model.detect(images))[0] / len(images) for _ in range(repeats))
    crops = [result.mask_crops() for result in model.detect(images, masks="cropped")]
    prepare = _median(lambda: mold_inputs(images, model.config), repeats) / len(images)
    masks = _median(lambda: [crop.whole() for crop in crops], repeats) / len(images)
    median = statistics.median(seconds)
    return {
        "median": median,
        "lower": seconds[len(seconds) // 4],
        "upper": seconds[(3 * len(seconds)) // 4],
        "first": first,
        "prepare": prepare,
        "network": max(0.0, median - prepare - masks),
        "masks": masks,
        "objects": round(statistics.mean(len(result["rois"]) for result in found)),
        "megabytes": _peak_megabytes(),
    }


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


def _median(function: Callable[[], Any], repeats: int) -> float:
    return statistics.median(_timed(function)[0] for _ in range(repeats))


def _peak_megabytes() -> int | None:
    """Return the peak memory of this process, or None on systems that do not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

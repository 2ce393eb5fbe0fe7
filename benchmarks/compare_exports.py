"""Do exported files find what `detect` finds, and how fast are they?

    python -m benchmarks.compare_exports --images val.zip
    python -m benchmarks.compare_exports --model resnet50 --images photos/ --formats onnx openvino
    python -m benchmarks.compare_exports --images val.zip --repeats 20 --threads 2

The model is a weight file or a name that `mrcnn.load` knows, or "resnet50": the COCO layout with weights by
the recipe of the tests, which finds 100 objects in every image. With --repeats, all formats and `detect` take
turns.

With --precisions, the formats are also written in half precision and int8, whose ranges are measured on the
images of --calibration. With --dataset, AP of masks is measured for `detect` and for each file:

    python -m benchmarks.compare_exports --images val.zip --precisions float32 float16 int8 \
        --calibration train.zip --dataset val.zip
"""

import argparse
import io
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import mrcnn
from benchmarks import measure
from mrcnn import export, runtime
from mrcnn.cli.datasets import open_dataset
from mrcnn.export.checking import TOLERANCES, Difference, compare
from mrcnn.runtime.metadata import PRECISIONS

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {
    "name": "format",
    "megabytes": "MB",
    "export": "export s",
    "load": "load s",
    "expected": "detect finds",
    "found": "file finds",
    "matched": "same",
    "box": "box px",
    "score": "score",
    "mask_iou": "mask IoU",
    "median": "median s",
    "fastest": "min s",
    "mask_AP": "AP",
    "mask_AP50": "AP50",
    "mask_AP75": "AP75",
}
# Formats that can have lower precision; their runtimes take a number of threads.
REDUCIBLE = ("onnx", "openvino", "litert")
# Calibration images: more change the measured ranges little.
CALIBRATION_IMAGES = 20


def read_images(source: Path, count: int) -> list[np.ndarray]:
    """Return the first images of a folder, or of the folder images/ of a zip archive."""
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            names = [name for name in sorted(archive.namelist()) if re.match(r"images/.+\.(png|jpg)$", name)]
            streams = [io.BytesIO(archive.read(name)) for name in names[:count]]
    else:
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".png", ".jpg"))
        streams = [io.BytesIO(path.read_bytes()) for path in files[:count]]
    return [np.asarray(PIL.Image.open(stream).convert("RGB")) for stream in streams]


class CocoResNet50(mrcnn.Config):
    """The layout of the COCO weights with ResNet-50."""

    NAME = "resnet50"
    BACKBONE = "resnet50"
    NUM_CLASSES = 81
    IMAGES_PER_GPU = 1
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 512
    DETECTION_MIN_CONFIDENCE = 0.0


def load_model(name: str) -> Any:
    """Return the model of a file, of a name, or of the recipe."""
    if name != "resnet50":
        return mrcnn.load(name)
    import importlib.util

    spec = importlib.util.spec_from_file_location("recipe", ROOT / "tests" / "golden" / "make_weights.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    from mrcnn.checkpoints.weights import model_weights

    model = mrcnn.MaskRCNN("inference", CocoResNet50(), "logs")
    for weights in model_weights(model.keras_model).values():
        for key, variable in weights.items():
            variable.assign(recipe.tensor(key, variable.shape))
    return model


def size_of(path: Path) -> float:
    """Return the megabytes of a file and of what belongs to it."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def total(differences: Sequence[Difference]) -> dict[str, Any]:
    """Return the sums of the numbers of objects, and the largest differences."""
    return {
        "expected": sum(x.expected for x in differences),
        "found": sum(x.found for x in differences),
        "matched": sum(x.matched for x in differences),
        "box": max(x.box for x in differences),
        "score": max(x.score for x in differences),
        "mask_iou": min(x.mask_iou for x in differences),
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and the seconds that it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def take_turns(
    contestants: dict[str, Callable[[np.ndarray], Any]], images: Sequence[np.ndarray], repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of each call; all contestants run on one image before the next."""
    for function in contestants.values():
        function(images[0])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(repeats):
        for name, function in contestants.items():
            seconds[name].append(timed(lambda f=function, i=index: f(images[i % len(images)]))[1])
    return seconds


def accuracy(detect: Callable[..., Any], dataset: Any, limit: int) -> dict[str, float]:
    """Return COCO's AP of the masks, with up to `limit` detections per image."""
    results = mrcnn.evaluate(detect, dataset, iou_types=("mask",), max_detections=(1, 10, limit), verbose=0)
    return {name: results[name][0] for name in ("mask_AP", "mask_AP50", "mask_AP75")}


def variants(formats: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Return the formats in the precisions that each has."""
    return [(x, y) for x in formats for y in precisions if x in REDUCIBLE or y == "float32"]


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "samples/nucleus/weights/nucleus-light.h5"))
    parser.add_argument("--images", type=Path, required=True, help="a folder, or a zip archive with images/")
    parser.add_argument("--count", type=int, default=10, help="images")
    parser.add_argument("--formats", nargs="+", default=list(export.FORMATS), choices=list(export.FORMATS))
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=list(PRECISIONS))
    parser.add_argument("--calibration", type=Path, help="images for int8, as --images; not the same ones")
    parser.add_argument("--dataset", type=Path, help="measure AP on this dataset, as mrcnn evaluate takes it")
    parser.add_argument("--repeats", type=int, default=0, help="timed calls of each; 0 measures no speed")
    parser.add_argument("--threads", type=int, help="threads of the runtimes")
    parser.add_argument("--openvino", default="f32", help='arithmetic of OpenVINO: "f32", "bf16" or "f16"')
    return parser.parse_args(arguments)


def write_and_load(
    model: Any, path: Path, format: str, precision: str, options: argparse.Namespace
) -> tuple[runtime.Runner, dict[str, Any]]:
    """Return the runner of a new file, and its size and times."""
    images = None
    if precision == "int8" and options.calibration:
        images = read_images(options.calibration, CALIBRATION_IMAGES)
    written = {"precision": precision, "calibration": images, "check": False}
    _, export_seconds = timed(lambda: export.export(model, path, format, **written))
    settings: dict[str, Any] = {"threads": options.threads} if format in REDUCIBLE else {}
    if format == "openvino":
        settings["precision"] = options.openvino
    runner, load_seconds = timed(lambda: runtime.load(path, **settings))
    return runner, {"megabytes": size_of(path), "export": export_seconds, "load": load_seconds}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare, print a table, and return its rows."""
    options = read_arguments(arguments)
    model, images = load_model(options.model), read_images(options.images, options.count)
    dataset = open_dataset(options.dataset) if options.dataset else None
    limit = int(model.config.DETECTION_MAX_INSTANCES)
    expected = [model.detect(image, masks="cropped")[0] for image in images]
    rows: list[dict[str, Any]] = [{"name": "detect", "expected": sum(len(x["rois"]) for x in expected)}]
    contestants: dict[str, Callable[[np.ndarray], Any]] = {
        "detect": lambda x: model.detect(x, masks="cropped")
    }
    if dataset is not None:
        rows[0] |= accuracy(model.detect, dataset, limit)
        print(measure.table(rows, COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for format, precision in variants(options.formats, options.precisions):
            path = Path(folder) / f"{format}-{precision}" / f"model{export.FORMATS[format]}"
            runner, row = write_and_load(model, path, format, precision, options)
            found = [runner.detect(image, masks="cropped")[0] for image in images]
            tolerance = TOLERANCES[precision]
            differences = [compare(a, b, tolerance) for a, b in zip(expected, found, strict=True)]
            name = format if precision == "float32" else f"{format} {precision}"
            rows.append({"name": name, **row, **total(differences)})
            if dataset is not None:
                rows[-1] |= accuracy(runner.detect, dataset, limit)
            contestants[name] = lambda x, r=runner: r.detect(x, masks="cropped")
            print(measure.table(rows[-1:], COLUMNS), flush=True)
        if options.repeats:
            seconds_by_name = take_turns(contestants, images, options.repeats)
            for row in rows:
                values = seconds_by_name[row["name"]]
                row |= {"median": statistics.median(values), "fastest": min(values)}
    print(measure.table(rows, COLUMNS))
    return rows


if __name__ == "__main__":
    main()

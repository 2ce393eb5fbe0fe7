"""Do exported files find what `detect` finds, how accurate are they, and how fast?

    python -m benchmarks.compare_exports --images val.zip --val val.zip --calibration train.zip
    python -m benchmarks.compare_exports --model resnet50 --images photos/ --calibration other-photos/
    python -m benchmarks.compare_exports --images val.zip --only speed --repeats 20 --threads 2

The model is a weight file or a name that `mrcnn.load` knows, or "resnet50": the COCO layout with weights by
the recipe of the tests, which finds 100 objects in every image. There is one row for `detect`, and one for
each format and precision. The steps are:

    write    export the file; PyTorch's is written by a process with KERAS_BACKEND=torch
    parity   compare the detections in --count images with those of `detect`
    ap       measure COCO's mask AP on the annotated images of --val
    speed    let `detect` and all files take turns, on one image after the other

Each value is saved as soon as it is measured, in results/exports-MODEL.json and, as a table, in
results/exports-MODEL.md. The next call only measures what is missing; --again measures it anew. Files stay in
--folder. PyTorch's file takes images of one size only, if the model pads images of all sizes: pass images of
one size and --size. int8 is calibrated on 20 images of --calibration, which should not be those of --images.
"""

import argparse
import contextlib
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import mrcnn
from benchmarks import measure
from mrcnn import export, files, runtime
from mrcnn.cli.datasets import open_dataset
from mrcnn.cli.exporting import megabytes
from mrcnn.errors import CappedWarning
from mrcnn.export.checking import TOLERANCES, Difference, compare
from mrcnn.export.exporting import REDUCIBLE
from mrcnn.inference import outputs
from mrcnn.runtime.metadata import PRECISIONS

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {
    "name": "file",
    "megabytes": "MB",
    "export": "export s",
    "load": "load s",
    "expected": "detect finds",
    "found": "file finds",
    "matched": "same class, box and score",
    "box": "box px",
    "score": "score",
    "mask_iou": "mask IoU",
    "AP": "mask AP",
    "AP50": "AP50",
    "median": "s per image",
    "fastest": "fastest",
    "ratio": "times detect's speed",
}
STEPS = ("write", "parity", "ap", "speed")
# Calibration images: more change the measured ranges little.
CALIBRATION_IMAGES = 20


# --- Models and images ---


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


def read_images(source: Path, count: int) -> list[np.ndarray]:
    """Return the first images of a folder, or of the folder images/ of a zip archive."""
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            names = [name for name in sorted(archive.namelist()) if re.match(r"images/.+\.(png|jpg)$", name)]
            streams = [io.BytesIO(archive.read(name)) for name in names[:count]]
    else:
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in (".png", ".jpg"))
        streams = [io.BytesIO(path.read_bytes()) for path in paths[:count]]
    return [np.asarray(PIL.Image.open(stream).convert("RGB")) for stream in streams]


# --- Rows ---


def row_name(format: str, precision: str) -> str:
    """Return the name of the row of a file."""
    return format if precision == "float32" else f"{format} {precision}"


def variants(formats: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Return the formats in the precisions that each has."""
    return [(x, y) for x in formats for y in precisions if x in REDUCIBLE or y == "float32"]


class Table:
    """The rows measured so far, in a JSON file that each value goes to at once, and as a table.

    Args:
        path: The JSON file. If it exists, its rows are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}}
        self.content |= {"machine": measure.machine(), "versions": measure.versions()}

    def row(self, name: str) -> dict[str, Any]:
        """Return the values of a row."""
        row: dict[str, Any] = self.content["rows"].get(name, {})
        return row

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Add values to a row, save, and print them."""
        self.content["rows"][name] = self.row(name) | values
        files.write_json(self.path, self.content, indent=1)
        self.path.with_suffix(".md").write_text(f"```text\n{self.text()}\n```\n", encoding="utf-8")
        shown = {key: f"{x:.4g}" if isinstance(x, float) else x for key, x in values.items()}
        print(f"{name}: {shown}", flush=True)

    def text(self) -> str:
        """Return all rows as a table."""
        return measure.table([{"name": name, **row} for name, row in self.content["rows"].items()], COLUMNS)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and the seconds that it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


# --- The steps ---


class Comparison:
    """The steps of the comparison for one model.

    Args:
        options: The options of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        name = Path(options.model).stem
        self.table = Table(options.output or measure.RESULTS / f"exports-{name}.json")
        self.folder: Path = options.folder or Path(tempfile.gettempdir()) / f"mrcnn-exports-{name}"
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model, loaded when it is first used."""
        if self._model is None:
            self._model = load_model(self.options.model)
        return self._model

    def path(self, format: str, precision: str) -> Path:
        """Return the path of a file."""
        return self.folder / f"{format}-{precision}" / f"model{export.FORMATS[format]}"

    def is_missing(self, name: str, key: str) -> bool:
        """Whether a value is to be measured."""
        return self.options.again or self.table.row(name).get(key) is None

    def write(self, format: str, precision: str) -> None:
        """Export the file, if it is missing."""
        path = self.path(format, precision)
        if path.exists() and not self.options.again:
            return
        if format == "torch" and os.environ.get("KERAS_BACKEND") != "torch":
            self._write_by_torch()
            return
        images = None
        if precision == "int8" and self.options.calibration:
            images = read_images(self.options.calibration, CALIBRATION_IMAGES)
        written = {"precision": precision, "calibration": images, "check": False}
        if format == "torch" and self.options.size is not None:
            written["size"] = tuple(self.options.size)
        model = self.model
        _, seconds = timed(lambda: export.export(model, path, format, **written))
        self.table.add(row_name(format, precision), {"megabytes": megabytes(path), "export": seconds})

    def _write_by_torch(self) -> None:
        """Write the file in a process with Keras on PyTorch."""
        command = [sys.executable, "-m", "benchmarks.compare_exports", "--model", self.options.model]
        command += ["--images", str(self.options.images), "--formats", "torch", "--only", "write"]
        command += ["--folder", str(self.folder), "--output", str(self.table.path)]
        if self.options.size is not None:
            command += ["--size", *map(str, self.options.size)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "torch"}, check=True)
        self.table = Table(self.table.path)

    def load(self, format: str, precision: str) -> runtime.Runner:
        """Load a file with the options of its runtime."""
        settings: dict[str, Any] = {} if format == "saved_model" else {"threads": self.options.threads}
        if format == "openvino":
            settings["precision"] = self.options.openvino
        return runtime.load(self.path(format, precision), **settings)

    def parity(self, format: str, precision: str) -> None:
        """Compare the detections of a file with those of `detect`."""
        name = row_name(format, precision)
        if not self.is_missing(name, "found"):
            return
        images = read_images(self.options.images, self.options.count)
        with exact_boxes():
            expected = [self.model.detect(image, masks="cropped")[0] for image in images]
            runner, seconds = timed(lambda: self.load(format, precision))
            found = [runner.detect(image, masks="cropped")[0] for image in images]
        tolerance = TOLERANCES[precision]
        differences = [compare(a, b, tolerance) for a, b in zip(expected, found, strict=True)]
        self.table.add(name, {"load": seconds, **total(differences)})

    def accuracy(self, name: str, detector: Callable[[], Any]) -> None:
        """Measure COCO's AP of the masks, with up to DETECTION_MAX_INSTANCES detections per image."""
        if self.options.val is None or not self.is_missing(name, "AP"):
            return
        found, dataset = detector(), open_dataset(self.options.val)
        limit = max(100, int(found.config.DETECTION_MAX_INSTANCES))
        ids = dataset.image_ids[: self.options.val_count]
        results = mrcnn.evaluate(
            found.detect, dataset, ids, iou_types=("mask",), max_detections=(1, 10, limit), verbose=0
        )
        self.table.add(
            name, {"AP": results["mask_AP"][0], "AP50": results["mask_AP50"][0], "images": len(ids)}
        )

    def speed(self, chosen: Sequence[tuple[str, str]]) -> None:
        """Let `detect` and the files take turns on one image after the other."""
        images = read_images(self.options.images, self.options.count)
        contestants: dict[str, Callable[[np.ndarray], Any]] = {
            "detect": lambda image: self.model.detect(image, masks="cropped")
        }
        for format, precision in chosen:
            runner = self.load(format, precision)
            contestants[row_name(format, precision)] = lambda x, r=runner: r.detect(x, masks="cropped")
        seconds = take_turns(contestants, images, self.options.repeats, self.options.warmup)
        for name, values in seconds.items():
            row = {"median": statistics.median(values), "fastest": min(values)}
            self.table.add(name, row | {"ratio": measure.ratio(seconds["detect"], values)})


@contextlib.contextmanager
def exact_boxes() -> Iterator[None]:
    """Let detections have boxes with fractions of pixels instead of whole pixels."""
    original = outputs.place_in_image

    def place(*arguments: Any, **options: Any) -> Any:
        recorded: list[np.ndarray] = []
        compute = outputs.exact_boxes

        def record(*values: Any) -> np.ndarray:
            recorded.append(compute(*values))
            return recorded[-1]

        outputs.exact_boxes = record
        try:
            _, *others = original(*arguments, **options)
        finally:
            outputs.exact_boxes = compute
        whole = np.around(recorded[0])
        return recorded[0][(whole[:, 2:] > whole[:, :2]).all(axis=1)], *others

    outputs.place_in_image = runtime.runner.place_in_image = place
    try:
        yield
    finally:
        outputs.place_in_image = runtime.runner.place_in_image = original


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


def take_turns(
    contestants: dict[str, Callable[[np.ndarray], Any]],
    images: Sequence[np.ndarray],
    repeats: int,
    warmup: int = 1,
) -> dict[str, list[float]]:
    """Return the seconds of each call; all contestants run on one image before the next."""
    for function in contestants.values():
        for _ in range(warmup):
            function(images[0])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(repeats):
        for name, function in contestants.items():
            seconds[name].append(timed(lambda f=function, i=index: f(images[i % len(images)]))[1])
    return seconds


# --- The program ---


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "samples/nucleus/weights/nucleus-light.h5"))
    parser.add_argument("--images", type=Path, required=True, help="a folder, or a zip archive with images/")
    parser.add_argument("--count", type=int, default=10, help="images")
    parser.add_argument("--formats", nargs="+", default=list(export.FORMATS), choices=list(export.FORMATS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--calibration", type=Path, help="images for int8, as --images; not the same ones")
    parser.add_argument("--val", type=Path, help="annotated images for AP, as mrcnn evaluate takes them")
    parser.add_argument("--val-count", type=int, help="how many of them; all by default")
    parser.add_argument("--only", nargs="+", default=list(STEPS), choices=STEPS, help="steps to run")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each")
    parser.add_argument("--warmup", type=int, default=2, help="calls of each before the timed ones")
    parser.add_argument("--threads", type=int, help="threads of the runtimes")
    parser.add_argument(
        "--size", nargs=2, type=int, help="height and width of resized images, if PyTorch's file needs them"
    )
    parser.add_argument("--openvino", default="f32", help='arithmetic of OpenVINO: "f32", "bf16" or "f16"')
    parser.add_argument("--folder", type=Path, help="the folder of the exported files")
    parser.add_argument("--output", type=Path, help="the JSON file of the rows")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> Table:
    """Compare, print a table, and return its rows."""
    options = read_arguments(arguments)
    comparison = Comparison(options)
    chosen = variants(options.formats, options.precisions)
    if options.calibration is None:
        chosen = [(x, y) for x, y in chosen if y != "int8" or x == "litert"]
    warnings.simplefilter("ignore", CappedWarning)
    if "ap" in options.only:
        comparison.accuracy("detect", lambda: comparison.model)
    for one in chosen:
        comparison.write(*one)
        if "parity" in options.only:
            comparison.parity(*one)
        if "ap" in options.only:
            comparison.accuracy(row_name(*one), lambda one=one: comparison.load(*one))
    if "speed" in options.only:
        comparison.speed(chosen)
    print(comparison.table.text())
    return comparison.table


if __name__ == "__main__":
    main()

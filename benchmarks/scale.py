"""Detection with workers on Ray: images per second beside one process, and what a kill costs.

    python -m benchmarks.scale --images val.zip
    python -m benchmarks.scale --images val.zip --count 5000 --broken 50 --side 128 --work scale

The images are crops of those in --images, a zip file or folder with images/. Some files are cut off. Three
runs: one process with `detect`, on a part of the images; workers, of which one is killed in the middle; and
workers whose driver is killed in the middle and started again. The results of both must be equal.

With --work, the images, the results and the figures of finished runs are kept, so that the same command goes
on after an interruption.
"""

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
from PIL import Image
from pyarrow import parquet

from benchmarks import measure
from mrcnn import files
from mrcnn.scale.tables import read_tables

# The images that one process detects in, for its rate.
SINGLE = 200
COLUMNS = (
    "run",
    "images_per_second",
    "seconds",
    "images",
    "instances",
    "broken_named",
    "same_results",
    "files_unchanged",
)


def make_images(source: Path, folder: Path, *, count: int, broken: int, side: int) -> list[str]:
    """Write crops of the images as PNG files; return the names of those that are cut off."""
    from mrcnn import formats

    dataset = formats.LabelImageDataset()
    dataset.load(source, classes=["object"])
    dataset.prepare()
    rng = np.random.default_rng(0)
    images = [dataset.load_image(image_id) for image_id in dataset.image_ids]
    damaged = set(rng.choice(count, broken, replace=False).tolist())
    names = []
    for index in range(count):
        image = images[index % len(images)]
        y, x = (int(rng.integers(max(1, length - side + 1))) for length in image.shape[:2])
        path = folder / f"{index // 1000:03d}" / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[y : y + side, x : x + side]).save(path)
        if index in damaged:
            path.write_bytes(path.read_bytes()[:200])
            names.append(f"{path.parent.name}/{path.name}")
    return names


def loads(model: str) -> Any:
    """Return a function that returns the model."""
    import mrcnn

    return functools.partial(mrcnn.load, model)


def single_rate(folder: Path, model: str) -> float:
    """Images per second of `detect` in one process, with the time of reading."""
    from mrcnn.errors import DataError
    from mrcnn.files.images import read_image

    detector = loads(model)()
    paths = sorted(folder.rglob("*.png"))[: SINGLE + 1]
    start = None
    count = 0
    for path in paths:
        try:
            image = read_image(path)
        except DataError:
            continue
        detector.detect([image], masks="cropped")
        if start is None:  # the first call compiles
            start = time.perf_counter()
        else:
            count += 1
    return count / (time.perf_counter() - (start or 0.0))


def start_driver(folder: Path, output: Path, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start a process that detects in all images with workers."""
    code = (
        "import sys, functools, mrcnn; from mrcnn import scale; "
        "scale.detect_images(sys.argv[1], sys.argv[2], functools.partial(mrcnn.load, sys.argv[3]), "
        "workers=int(sys.argv[4]), description='benchmark')"
    )
    command = [sys.executable, "-c", code, str(folder), str(output), arguments.model, str(arguments.workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_files(output: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until some files are written."""
    while len(list(output.glob("*.parquet"))) < count:
        if driver.poll() is not None:
            raise RuntimeError("The driver ended before it was to be killed. Use more images.")
        time.sleep(0.2)


def kill_a_worker(driver: subprocess.Popen[bytes]) -> None:
    """Kill one process of a worker."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
            return
    raise RuntimeError("There is no worker.")


def worker_run(folder: Path, output: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Detect in all images; kill a worker when a quarter is done."""
    begin = time.perf_counter()
    driver = start_driver(folder, output, arguments)
    files_in_all = arguments.count // 64
    wait_for_files(output, 1, driver)
    first = time.perf_counter()
    written = len(list(output.glob("*.parquet"))) * 64
    wait_for_files(output, max(2, files_in_all // 4), driver)
    kill_a_worker(driver)
    driver.wait()
    end = time.perf_counter()
    return {
        "run": "workers, one killed",
        "seconds": end - begin,
        "images_per_second": (arguments.count - written) / (end - first),
        **contents(output),
    }


def driver_run(folder: Path, output: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill the driver with all its workers in the middle, and start again."""
    begin = time.perf_counter()
    driver = start_driver(folder, output, arguments)
    wait_for_files(output, max(1, arguments.count // 64 // 2), driver)
    processes = [driver.pid, *(child.pid for child in psutil.Process(driver.pid).children(recursive=True))]
    for pid in processes:
        with_signal(pid, signal.SIGKILL)
    driver.wait()
    written = list(output.glob("*.parquet"))
    # Broken images are tried again, and their rows removed before.
    kept = {path: path.stat().st_mtime_ns for path in written if not has_errors(path)}
    start_driver(folder, output, arguments).wait()
    same = all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    return {
        "run": "driver killed and started again",
        "seconds": time.perf_counter() - begin,
        "files_before": len(written),
        "files_unchanged": same,
        **contents(output),
    }


def has_errors(file: Path) -> bool:
    """Return whether a file of results has rows of images that were left out."""
    errors = parquet.read_table(file, columns=["error"])["error"]
    return bool(errors.null_count < len(errors))


def with_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def contents(output: Path) -> dict[str, Any]:
    """Return the numbers in a folder of results."""
    from mrcnn import scale

    summary = scale.summarize(output)
    return {"images": summary.images, "instances": summary.instances, "broken": sorted(summary.errors)}


def have_same_results(one: Path, other: Path) -> bool:
    """Return whether two folders have the same results of the same images."""
    rows = []
    for output in (one, other):
        found = pyarrow.concat_tables(read_tables(output)).to_pylist()
        rows.append({row["path"]: row for row in found})
        if len(rows[-1]) != len(found):
            return False
    return rows[0] == rows[1]


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a zip file or folder, see above")
    parser.add_argument("--count", type=int, default=1000, help="images to make (1000)")
    parser.add_argument("--broken", type=int, default=10, help="files that are cut off (10)")
    parser.add_argument("--workers", type=int, default=2, help="workers (2)")
    parser.add_argument("--model", default="nucleus-light", help="see mrcnn.load (nucleus-light)")
    parser.add_argument("--side", type=int, default=256, help="side of the images in pixels (256)")
    parser.add_argument("--work", type=Path, help="folder for all files; a temporary one by default")
    parser.add_argument("--no-driver", action="store_true", help="leave out the run whose driver is killed")
    measure.add_arguments(parser, repeats=1)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    if arguments.quick:
        arguments.count, arguments.broken = 256, 4
    report = measure.Report("scale", arguments, [os.environ.get("KERAS_BACKEND", "tensorflow")])
    with tempfile.TemporaryDirectory() as temporary:
        rows = run_all(arguments, arguments.work or Path(temporary))
    report.show(rows, {column: column.replace("_", " ") for column in COLUMNS}, "Workers on Ray")
    return report.finish()


def run_all(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Run what is not finished, and return the rows of all runs."""
    path = work / "figures.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def step(name: str, run: Callable[[], Any]) -> Any:
        if name not in figures:
            figures[name] = run()
            files.write_json(path, figures, indent=1)
        return figures[name]

    folder, workers, driver = work / "images", work / "workers", work / "driver"
    numbers = {"count": arguments.count, "broken": arguments.broken, "side": arguments.side}
    broken = step("broken", lambda: make_images(arguments.images, folder, **numbers))
    rate = step("one process", lambda: single_rate(folder, arguments.model))
    rows = [{"run": "one process, detect", "images_per_second": rate}]
    rows.append(step("workers", lambda: worker_run(folder, workers, arguments)))
    if not arguments.no_driver:
        rows.append(step("driver", lambda: driver_run(folder, driver, arguments)))
        rows[-1]["same_results"] = have_same_results(workers, driver)
    for row in rows[1:]:
        row["broken_named"] = row.pop("broken") == sorted(broken)
    return rows


if __name__ == "__main__":
    main()

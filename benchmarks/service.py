"""Does the service answer many clients without an error, as `detect` does, and how fast?

    python -m benchmarks.service --images val.zip
    python -m benchmarks.service --images photos/ --model leaves.onnx --requests 500 --clients 4 --batch 4

First `detect` runs alone on the images, one by one. Then `mrcnn serve` runs as a process of its own, and the
clients, threads of this process, send the images again and again. Each answer is compared with `detect`.
Clients that are told to come again do so after the time in Retry-After; that is no error.
"""

import argparse
import io
import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks import measure
from benchmarks.compare_exports import read_images
from mrcnn.cli.models import load_model

PROGRAM = [sys.executable, "-c", "from mrcnn.cli import main; main()"]
SECONDS_BETWEEN_SAMPLES = 2.0
SCORE_TOLERANCE = 1e-4
PERCENTILES = (50, 90, 95, 99, 100)
COLUMNS = {
    "requests": "requests",
    "clients": "clients",
    "batch": "batch",
    "errors": "errors",
    "different": "different",
    "busy": "told to wait",
    "per_second": "requests/s",
    "detect_per_second": "detect alone, images/s",
    **{f"p{number}": f"p{number} s" for number in PERCENTILES},
    "memory_first": "MB first",
    "memory_last": "MB last",
    "memory_most": "MB most",
}


def png(image: np.ndarray) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def difference(expected: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> str | None:
    """Return how an answer differs from detections with masks="rle"; None if it does not."""
    if len(annotations) != len(expected["rois"]):  # every object here has a pixel
        return f"{len(annotations)} objects instead of {len(expected['rois'])}"
    for record, roi, score, mask in zip(
        annotations, expected["rois"], expected["scores"], expected["masks"], strict=True
    ):
        y1, x1, y2, x2 = (int(side) for side in roi)
        if abs(record["score"] - float(score)) > SCORE_TOLERANCE:
            return f"score {record['score']} instead of {score}"
        if record["bbox"] != [x1, y1, x2 - x1, y2 - y1]:
            return f"box {record['bbox']} instead of {[x1, y1, x2 - x1, y2 - y1]}"
        if record["segmentation"] != mask:
            return "another mask"
    return None


class Clients:
    """Threads that send images, and what they saw.

    Args:
        address: Of the service.
        files: The images.
        expected: The detections of each.
    """

    def __init__(self, address: str, files: Sequence[bytes], expected: Sequence[dict[str, Any]]) -> None:
        self._address, self._files, self._expected = address, files, expected
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.differences: list[str] = []
        self.busy = 0

    def run(self, requests: int, clients: int) -> float:
        """Send this many requests from this many clients. Returns the seconds."""
        threads = [threading.Thread(target=self._work, args=(requests,)) for _ in range(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def _work(self, requests: int) -> None:
        with httpx.Client(timeout=120) as client:
            while (number := next(self._numbers)) < requests:
                self._send(client, number % len(self._files))

    def _send(self, client: httpx.Client, index: int) -> None:
        started = time.perf_counter()
        try:
            while True:
                answer = client.post(f"{self._address}/detect", content=self._files[index])
                if answer.status_code != 503:
                    break
                with self._lock:
                    self.busy += 1
                time.sleep(float(answer.headers["retry-after"]))
            answer.raise_for_status()
            wrong = difference(self._expected[index], answer.json()["annotations"])
        except httpx.HTTPError as error:
            with self._lock:
                self.errors.append(repr(error))
            return
        with self._lock:
            self.seconds.append(time.perf_counter() - started)
            if wrong:
                self.differences.append(f"image {index}: {wrong}")


def resident_megabytes(address: str) -> float:
    """Return the memory of the service."""
    text = httpx.get(f"{address}/metrics", timeout=60).text
    found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    return float(found[1]) / 1e6 if found else float("nan")


def watch_memory(address: str, stop: threading.Event, samples: list[tuple[float, float]]) -> None:
    """Append (seconds, MB) now and then, until `stop` is set."""
    started = time.perf_counter()
    while not stop.wait(SECONDS_BETWEEN_SAMPLES):
        samples.append((time.perf_counter() - started, resident_megabytes(address)))


def measured(
    arguments: argparse.Namespace, files: Sequence[bytes], expected: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Start a service, load it, stop it, and return a row."""
    options = ["--port", "0", "--batch", str(arguments.batch), "--queue", str(arguments.queue)]
    process = subprocess.Popen(
        [*PROGRAM, "serve", arguments.model, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "http://" in line), "")
        address = re.findall(r"http://\S+:\d+", line)[0]
        Clients(address, files, expected).run(2 * arguments.clients, arguments.clients)  # compiles
        clients, samples, stop = (
            Clients(address, files, expected),
            [(0.0, resident_megabytes(address))],
            threading.Event(),
        )
        watcher = threading.Thread(target=watch_memory, args=(address, stop, samples))
        watcher.start()
        seconds = clients.run(arguments.requests, arguments.clients)
        stop.set()
        watcher.join()
    finally:
        process.terminate()
        code = process.wait(120)
    for text in (clients.errors + clients.differences)[:10]:
        print(text, file=sys.stderr)
    memory = [megabytes for _, megabytes in samples]
    return {
        "requests": arguments.requests,
        "clients": arguments.clients,
        "batch": arguments.batch,
        "errors": len(clients.errors),
        "different": len(clients.differences),
        "busy": clients.busy,
        "per_second": len(clients.seconds) / seconds,
        **{f"p{number}": float(np.percentile(clients.seconds, number)) for number in PERCENTILES},
        "memory_first": memory[0],
        "memory_last": memory[-1],
        "memory_most": max(memory),
        "memory": samples,
        "exit_code": code,
    }


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nucleus-light", help="a name, a weight file or an exported file")
    parser.add_argument("--images", type=Path, required=True, help="a folder, or a zip archive with images/")
    parser.add_argument("--count", type=int, default=20, help="different images (default %(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="(default %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="of the service (default %(default)s)")
    parser.add_argument("--queue", type=int, default=32, help="of the service (default %(default)s)")
    parser.add_argument(
        "--largest", type=int, default=400_000, help="pixels of an image (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write (default results/service-MODEL.json)")
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = options().parse_args(argv)
    images = read_images(arguments.images, 10 * arguments.count)
    images = [x for x in images if x.shape[0] * x.shape[1] <= arguments.largest][: arguments.count]
    model = load_model(arguments.model)
    expected = [model.detect(image, masks="rle")[0] for image in images]
    started = time.perf_counter()
    for image in images:
        model.detect(image, masks="rle")
    alone = len(images) / (time.perf_counter() - started)
    del model
    report = measure.Report("service", arguments, [Path(arguments.model).name])
    row = measured(arguments, [png(image) for image in images], expected)
    row["detect_per_second"] = alone
    report.show([row], COLUMNS, f"{arguments.model}: {len(images)} images")
    return report.finish()


if __name__ == "__main__":
    main()

"""Does the service answer many clients without an error, as `detect` does, and how fast?

    python -m benchmarks.service --images val.zip
    python -m benchmarks.service --images photos/ --model leaves.onnx --requests 500 --clients 4 --batch 4
    python -m benchmarks.service --images val.zip --requests 500 --address http://127.0.0.1:8000

First `detect` runs alone on the images, one by one. Then `mrcnn serve` runs as a process of its own, and the
clients, threads of this process, send the images again and again. Each answer is compared with `detect`.
Clients that are told to come again do so after the time in Retry-After; that is no error. Then the service
has to refuse a large upload, a file that is no image, and a small file that declares a huge image. At the end
it gets SIGTERM.

With --address, a service that already runs is measured, so that several calls can share the requests. It is
not stopped.
"""

import argparse
import contextlib
import functools
import io
import itertools
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
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
LARGE_UPLOAD = 500_000_000
DECLARED_SIDE = 60_000
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
    "refused": "refused",
    "exit_code": "exit code",
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


def refused(address: str) -> dict[str, int]:
    """Send what the service has to refuse, and return the status of each answer."""

    def zeros() -> Iterator[bytes]:
        for _ in range(LARGE_UPLOAD // 1_000_000):
            yield bytes(1_000_000)

    def status(content: Any, **headers: str) -> int:
        return httpx.post(f"{address}/detect", content=content, headers=headers, timeout=120).status_code

    return {
        "large upload": status(zeros()),
        "large upload, stated": status(zeros(), **{"content-length": str(LARGE_UPLOAD)}),
        "no image": status(b"This is a text." * 100),
        "bomb": status(bomb(DECLARED_SIDE)),
    }


def bomb(side: int) -> bytes:
    """Return a small PNG file that declares side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@contextlib.contextmanager
def running_service(arguments: argparse.Namespace, row: dict[str, Any]) -> Iterator[str]:
    """Yield the address of a service. If this call started it, stop it and note its exit code."""
    if arguments.address:
        yield arguments.address.rstrip("/")
        return
    words = ["--port", "0", "--batch", str(arguments.batch), "--queue", str(arguments.queue)]
    process = subprocess.Popen(
        [*PROGRAM, "serve", arguments.model, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "http://" in line), "")
        yield re.findall(r"http://\S+:\d+", line)[0]
    finally:
        process.terminate()
        row["exit_code"] = process.wait(120)


def measured(
    arguments: argparse.Namespace, files: Sequence[bytes], expected: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Load a service, and return a row."""
    row: dict[str, Any] = {name: getattr(arguments, name) for name in ("requests", "clients", "batch")}
    clients_of = functools.partial(Clients, files=files, expected=expected)
    with running_service(arguments, row) as address:
        clients_of(address).run(2 * arguments.clients, arguments.clients)  # compiles
        clients, stop = clients_of(address), threading.Event()
        samples = [(0.0, resident_megabytes(address))]
        watcher = threading.Thread(target=watch_memory, args=(address, stop, samples))
        watcher.start()
        seconds = clients.run(arguments.requests, arguments.clients)
        stop.set()
        watcher.join()
        row["refusals"] = refused(address)
        samples.append((time.perf_counter(), resident_megabytes(address)))
    for text in (clients.errors + clients.differences)[:10]:
        print(text, file=sys.stderr)
    memory = [megabytes for _, megabytes in samples]
    return row | {
        "errors": len(clients.errors),
        "different": len(clients.differences),
        "busy": clients.busy,
        "per_second": len(clients.seconds) / seconds,
        **{f"p{number}": float(np.percentile(clients.seconds, number)) for number in PERCENTILES},
        "refused": " ".join(str(status) for status in row["refusals"].values()),
        "memory_first": memory[0],
        "memory_last": memory[-2],
        "memory_most": max(memory),
        "memory": samples,
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
    parser.add_argument("--address", help="of a service that runs already, with the same model")
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

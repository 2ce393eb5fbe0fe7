"""How long does a training sample take, and how many per second do several workers make?

    python -m benchmarks.data_pipeline --workers 0 1 2 4

Images of 1024 x 1024 with 20 objects and mini-masks. Images and masks are in memory; with --jpeg the images
are files that are decoded each time. No network is built.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import contest, keras2_library, measure, ours
from benchmarks.synthetic import SyntheticDataset
from mrcnn.config import Config
from mrcnn.data.generator import DataGenerator
from mrcnn.data.loading import load_image_gt
from mrcnn.dataset import Dataset

IMAGES = 4
COLUMNS = {
    "what": "what",
    "workers": "workers",
    "seconds": "median s per image",
    "lower_quartile": "quartile",
    "upper_quartile": "to",
    "cpu_seconds": "CPU s",
    "images_per_second": "images/s",
    "times_keras2": "times faster than the Keras 2 library",
    "times_keras2_cpu": "in CPU s",
}


def settings(arguments: argparse.Namespace) -> Config:
    """Return the configuration of the samples."""
    config = Config()
    config.NAME = "benchmark"
    config.NUM_CLASSES = 4
    config.IMAGES_PER_GPU = arguments.batch
    config.IMAGE_MIN_DIM = config.IMAGE_MAX_DIM = 64 if arguments.quick else arguments.size
    config.SEED = 0
    ours.change(config, dict(arguments.set))
    return config


def timed(call: Callable[[int], Any], arguments: argparse.Namespace) -> contest.Row:
    """Measure the seconds of calls with the numbers 0, 1, 2, ..., after the warm-up."""
    for number in range(arguments.warmup):
        call(number)
    wall, cpu = [], []
    for number in range(arguments.repeats):
        started = time.perf_counter(), time.process_time()
        call(arguments.warmup + number)
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    spread = measure.summary(wall)
    seconds = spread.pop("median")
    return {
        "seconds": seconds,
        **spread,
        "cpu_seconds": measure.summary(cpu)["median"],
        "images_per_second": 1 / seconds,
    }


def one_by_one(dataset: Dataset, config: Config, arguments: argparse.Namespace) -> list[contest.Row]:
    """Measure load_image_gt alone, and whole samples of one image, in this thread."""
    batches = DataGenerator(dataset, config, shuffle=False, batch_size=1, steps=10**6, workers=0)

    def load(number: int) -> Any:
        return load_image_gt(dataset, config, number % IMAGES, use_mini_mask=True)

    rows = []
    for what, call, earlier in (
        ("load_image_gt", load, keras2_library.LOAD_IMAGE_GT),
        ("training sample", batches.__getitem__, keras2_library.SAMPLE),
    ):
        row = timed(call, arguments)
        if not (arguments.quick or arguments.jpeg) and arguments.size == 1024:
            row["times_keras2"] = earlier["wall"] / row["seconds"]
            row["times_keras2_cpu"] = earlier["cpu"] / row["cpu_seconds"]
        rows.append({"what": what, **row})
    return rows


def with_workers(
    dataset: Dataset, config: Config, workers: int, arguments: argparse.Namespace
) -> contest.Row:
    """Measure batches as training takes them, without pauses and without the start of the workers."""
    steps = arguments.warmup + arguments.repeats
    batches = DataGenerator(dataset, config, steps=steps, workers=workers)
    batches.on_epoch_begin()
    try:
        # The first batches come from the queue, which workers filled before the first request.
        ahead = 1 + (batches.max_queue_size if workers else 0)
        moments = []
        for index in range(steps):
            batches[index]
            moments.append(time.perf_counter())
    finally:
        batches.on_epoch_end()
    first = min(ahead, steps - 2)
    seconds = (moments[-1] - moments[first]) / (steps - 1 - first) / config.BATCH_SIZE
    return {
        "what": "loader",
        "workers": workers,
        "seconds": seconds,
        "images_per_second": 1 / seconds,
        "batches": steps - 1 - first,
        "batch": config.BATCH_SIZE,
    }


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the images (default %(default)s)")
    parser.add_argument("--instances", type=int, default=20, help="objects (default %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=2, help="images per batch of the loader (default %(default)s)"
    )
    parser.add_argument(
        "--workers", nargs="+", type=int, default=[0, 1, 2], help="numbers of workers (default 0 1 2)"
    )
    parser.add_argument("--jpeg", action="store_true", help="read the images from JPEG files")
    parser.add_argument(
        "--image-size", type=int, nargs=2, help="height and width before resizing (default: --size)"
    )
    measure.add_arguments(parser, repeats=30)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    report = measure.Report("data_pipeline", arguments, [os.environ.get("KERAS_BACKEND", "tensorflow")])
    config = settings(arguments)
    height, width = arguments.image_size or (config.IMAGE_MAX_DIM, config.IMAGE_MAX_DIM)
    with tempfile.TemporaryDirectory() as folder:
        dataset = SyntheticDataset(
            IMAGES,
            height,
            width,
            arguments.instances,
            config.NUM_CLASSES,
            folder if arguments.jpeg else None,
        )
        rows = one_by_one(dataset, config, arguments)
        rows += [with_workers(dataset, config, workers, arguments) for workers in arguments.workers]
    report.show(rows, COLUMNS, f"Samples of {config.IMAGE_MAX_DIM} x {config.IMAGE_MAX_DIM}")
    return report.finish()


if __name__ == "__main__":
    main()

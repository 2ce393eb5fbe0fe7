"""How many image files per second does detection take, and which share of the network's own rate is that?

    python -m benchmarks.throughput --model nucleus-light --side 512 --batch 8

From JPEG files of a camera to boxes, classes, scores and cropped masks in memory. Four ways take turns:

    network     the network alone, on images that are prepared already
    one by one  read an image, detect in it, take the next one
    stream      MaskRCNN.stream: threads read, prepare and paste while the network runs
    reduced     the same with REDUCED_JPEG
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import contest, measure
from mrcnn.files.images import read_image
from mrcnn.inference.inputs import mold_inputs

COLUMNS = {
    "way": "way",
    "images_per_second": "images/s",
    "seconds": "median s per image",
    "cpu_seconds": "CPU s",
    "cores": "cores busy",
    "share": "share of the network's rate",
}
ASPECT = 4 / 3


def write_photos(folder: Path, count: int, megapixels: float) -> list[Path]:
    """Write JPEG files that compress like photographs: smooth colors with the noise of a sensor."""
    from PIL import Image

    height = round((megapixels * 1e6 / ASPECT) ** 0.5)
    size = (round(height * ASPECT), height)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        colors = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        noise = rng.integers(-6, 7, image.shape, dtype=np.int16)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def build(arguments: argparse.Namespace) -> Any:
    """Return the model, for images of one size."""
    if arguments.quick:
        from mrcnn import LightConfig, MaskRCNN

        class Quick(LightConfig):
            NAME = "quick"
            NUM_CLASSES = 2
            IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
            GPU_COUNT = 1
            IMAGES_PER_GPU = 2

        return MaskRCNN("inference", Quick(), "logs")
    from mrcnn import load

    side = {"IMAGE_MIN_DIM": arguments.side, "IMAGE_MAX_DIM": arguments.side, "IMAGE_MIN_SCALE": 0}
    settings = {"IMAGE_RESIZE_MODE": "square", "IMAGES_PER_GPU": arguments.batch, **side}
    return load(arguments.model, **(settings | dict(arguments.set)))


def ways(model: Any, paths: Sequence[Path]) -> dict[str, Callable[[], Iterator[Any]]]:
    """Return a function for each way, which yields once per image."""
    detector = model._compiled_detector()
    batch_size = model.config.IMAGES_PER_GPU * detector.device_count
    molded = mold_inputs([read_image(paths[0])], model.config) * len(paths)

    def one_by_one() -> Iterator[Any]:
        for path in paths:
            yield model.detect([read_image(path)], masks="cropped")[0]

    def stream(reduced: bool) -> Iterator[Any]:
        model.config.REDUCED_JPEG = reduced
        return model.stream(paths, masks="cropped")

    return {
        "network": lambda: detector._network_outputs(molded, batch_size),
        "one by one": one_by_one,
        "stream": lambda: stream(False),
        "reduced": lambda: stream(True),
    }


def timed(run: Callable[[], Iterator[Any]], count: int) -> tuple[float, float]:
    """Return wall seconds and CPU seconds per image."""
    started = time.perf_counter(), time.process_time()
    for _ in run():
        pass
    return (time.perf_counter() - started[0]) / count, (time.process_time() - started[1]) / count


def rows(
    runs: dict[str, Callable[[], Iterator[Any]]], count: int, arguments: argparse.Namespace
) -> list[contest.Row]:
    """Measure the ways in turn."""
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in runs}
    for number in range(arguments.warmup + arguments.repeats):
        for way, run in runs.items():
            one = timed(run, count)
            if number >= arguments.warmup:
                times[way].append(one)
    wall = {way: [one for one, _ in values] for way, values in times.items()}
    result = []
    for way, values in times.items():
        seconds = measure.summary(wall[way])["median"]
        cpu = measure.summary([one for _, one in values])["median"]
        facts = {"seconds": seconds, "cpu_seconds": cpu, "cores": cpu / seconds, "runs": values}
        share = measure.ratio(wall["network"], wall[way])
        result.append({"way": way, "images_per_second": 1 / seconds, "share": share, **facts})
    return result


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nucleus-light", help="see mrcnn.load (default %(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of the network's input (default %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images per batch (default %(default)s)")
    parser.add_argument("--count", type=int, default=24, help="images (default %(default)s)")
    parser.add_argument("--megapixels", type=float, default=12, help="of an image (default %(default)s)")
    measure.add_arguments(parser, repeats=5, warmup=1)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    if arguments.quick:
        arguments.count, arguments.megapixels = 5, 0.01
    report = measure.Report("throughput", arguments, [keras.backend.backend()])
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), arguments.count, arguments.megapixels)
        found = rows(ways(build(arguments), paths), len(paths), arguments)
    report.show(
        found, COLUMNS, f"JPEG files of {arguments.megapixels} megapixels, batches of {arguments.batch}"
    )
    return report.finish()


if __name__ == "__main__":
    main()

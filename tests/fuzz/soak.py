"""Use one process for a long time, and print its resident memory in MiB after each piece of work, as JSON.

PYTHONPATH=.:tests python tests/fuzz/soak.py detections 10000
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn.model import MaskRCNN
from mrcnn.training.schedules import warm_up_and_decay

# Sides of the images of `detections`, in pixels.
SIDES = (64, 192)
# Detections from one measurement to the next.
PIECE = 50


class AnySize(TinyConfig):
    """Each image keeps its size, padded to multiples of 64."""

    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = None
    IMAGE_MAX_DIM = 192
    GPU_COUNT = IMAGES_PER_GPU = 1


def resident():
    """The resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def random_image(rng):
    return rng.integers(0, 255, (*rng.integers(*SIDES, 2, endpoint=True), 3), dtype=np.uint8)


def detections(count, folder):
    """Detect in images of mixed sizes with one model."""
    rng = np.random.default_rng(0)
    model = MaskRCNN("inference", AnySize(), folder)
    for _ in range(count // PIECE):
        for _ in range(PIECE):
            model.detect([random_image(rng)])
        yield


def trainings(count, folder):
    """Train one model again and again; the learning rate and the validation change."""
    yield from _train(count, folder, ["heads"], lambda number: 1e-4 * (1 + number))


def stages(count, folder):
    """Train one model again and again, in turn two layer groups."""
    yield from _train(count, folder, ["heads", "all"], lambda number: 1e-4 * (1 + number))


def schedules(count, folder):
    """Train one model again and again, each time with another learning-rate schedule: all compile anew."""
    yield from _train(count, folder, ["heads"], lambda number: warm_up_and_decay(1e-4 * (1 + number), 10))


def _train(count, folder, groups, rate):
    model = MaskRCNN("training", TinyConfig(), folder)
    data = toy_dataset(4)
    for number in range(count):
        validation = data if number % 2 else None
        with contextlib.redirect_stdout(io.StringIO()):
            model.train(data, validation, rate(number), model.epoch + 1, groups[number % len(groups)])
        yield


def models(count, folder):
    """Build models one after another, and detect with each."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        MaskRCNN("inference", AnySize(), folder).detect([random_image(rng)])
        yield


KINDS = {kind.__name__: kind for kind in (detections, trainings, stages, schedules, models)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for _ in KINDS[arguments.kind](arguments.count, folder):
            print(json.dumps(round(resident(), 2)), flush=True)


if __name__ == "__main__":
    main()

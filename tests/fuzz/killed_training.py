"""Kill real training at random moments, again and again, and look at what is left: a chain of resumed runs.

    PYTHONPATH=.:tests python tests/fuzz/killed_training.py FOLDER --kills 50 --seed 0

Prints a line of JSON for each kill. The program imports the frameworks once and forks a process for each
training, which builds its own network.
"""

import argparse
import contextlib
import json
import os
import random
import select
import signal
import time
from pathlib import Path

import keras
import numpy as np

from mrcnn import files
from mrcnn.checkpoints import weight_files

# How a moment is chosen, and how often: at any time after the start of the process, at any time while epochs
# run, or while a weight file is being written.
MOMENTS = {"start": 1, "epoch": 6, "save": 3}
LONGEST_WAIT = 120.0


def train(folder, report):
    """Go on from the newest weights, if there are any, and train until killed."""
    from tiny_model import TinyConfig
    from toy_data import toy_dataset

    from mrcnn.model import MaskRCNN

    model = MaskRCNN("training", TinyConfig(), folder)
    with contextlib.suppress(FileNotFoundError):
        model.load_weights(model.find_last())

    class Report(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            report(event="resumed", epoch=model.epoch, left=leftovers(model.log_dir), folder=model.log_dir)

        def on_epoch_end(self, epoch, logs=None):
            report(event="saved", epoch=epoch + 1, loss=float(logs["loss"]))

    model.train(toy_dataset(4), None, 1e-3, 10**6, "heads", custom_callbacks=[Report()])


def start(folder):
    """Fork a training; return its process id and the pipe of its reports."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, os.fdopen(reading, "rb", buffering=0)
    os.close(reading)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    try:
        train(folder, lambda **values: os.write(writing, json.dumps(values).encode() + b"\n"))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps({"event": "failed", "error": text}).encode() + b"\n")
    os._exit(1)


class Reports:
    """What a training has reported so far."""

    def __init__(self, pipe):
        self.pipe, self.text, self.seen = pipe, b"", []

    def read(self, seconds):
        """Read all reports that come within this time; return whether the process is still there."""
        end = time.monotonic() + seconds
        while True:
            left = max(0.0, end - time.monotonic())
            if not select.select([self.pipe], [], [], left)[0]:
                return True
            block = self.pipe.read(1 << 16)
            if not block:
                return False
            *lines, self.text = (self.text + block).split(b"\n")
            self.seen += map(json.loads, lines)

    def last(self, event):
        found = [report for report in self.seen if report["event"] == event]
        return found[-1] if found else None

    def wait_for(self, event):
        end = time.monotonic() + LONGEST_WAIT
        while self.last(event) is None and time.monotonic() < end and self.read(0.05):
            pass
        return self.last(event)


def wait_for_moment(moment, reports, rng):
    """Wait until the moment of the kill."""
    if moment == "start":
        reports.read(rng.uniform(0.1, 4.0))
        return
    resumed = reports.wait_for("resumed")
    if resumed is None:
        return
    if moment == "save":
        reports.wait_for("saved")  # later epochs do not compile
        end = time.monotonic() + 10
        while time.monotonic() < end and not any(Path(resumed["folder"]).glob(".*.part*")):
            reports.read(0)
        time.sleep(rng.uniform(0, 0.003))
        return
    reports.wait_for("saved")
    reports.read(rng.uniform(0, 3.0))


def leftovers(folder):
    """The number of unfinished files in a folder."""
    return sum(files.LEFTOVER.fullmatch(path.name) is not None for path in Path(folder).rglob(".*"))


def torn(folder):
    """The weight files in a folder that cannot be read whole, or hold numbers that are not finite."""
    broken = []
    for path in sorted(Path(folder).rglob("mask_rcnn*.h5")):
        try:
            weights = weight_files.read_weight_file(path)
            arrays = keras.tree.flatten(weights)
            if not arrays or not all(np.isfinite(array).all() for array in arrays):
                broken.append(path.name)
        except (OSError, ValueError):
            broken.append(path.name)
    return broken


def newest(folder):
    """The number of the last epoch whose weights are on disk."""
    names = [path.stem for path in Path(folder).rglob("mask_rcnn*.h5")]
    return max((int(name.rpartition("_")[2]) for name in names), default=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    on_disk = None  # before the first training
    for number in range(arguments.kills + 1):
        process, pipe = start(arguments.folder)
        reports = Reports(pipe)
        is_last = number == arguments.kills
        moment = rng.choices(list(MOMENTS), MOMENTS.values())[0]
        if on_disk is None or is_last:  # the first kill has something to lose; the last one only resumes
            moment = "epoch"
        begin = time.monotonic()
        wait_for_moment(moment, reports, rng)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        reports.read(5)
        pipe.close()
        resumed, saved, failed = (reports.last(event) for event in ("resumed", "saved", "failed"))
        row = {
            "kill": number + 1,
            "moment": moment,
            "seconds": round(time.monotonic() - begin, 1),
            "on_disk_before": on_disk,
            "resumed_at": resumed and resumed["epoch"],
            "leftovers_at_start": resumed and resumed["left"],
            "last_reported": saved["epoch"] if saved else None,
            "on_disk": newest(arguments.folder),
            "torn": torn(arguments.folder),
            "leftovers_of_this_kill": leftovers(arguments.folder),
            "failed": failed and failed["error"],
        }
        on_disk = row["on_disk"]
        print(json.dumps(row), flush=True)
        for path in sorted(arguments.folder.rglob("mask_rcnn*.h5"))[:-2]:
            path.unlink()


if __name__ == "__main__":
    main()

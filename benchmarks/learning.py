"""What the experiments on learning share: a training run that continues after an interruption, and its table.

An experiment trains each of its rows once per seed. All choices are made on images that are held back from
training; the test images are only used to report the chosen row. Results are added to one JSON file per
experiment. Weights, and what an interrupted run needs to continue, go to a folder of the run.
"""

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import mrcnn
from benchmarks import measure
from mrcnn import files
from mrcnn.dataset import Dataset
from mrcnn.evaluation.evaluate import evaluate_groups
from mrcnn.formats.files import read_json
from mrcnn.inference.inputs import whole_image_config
from mrcnn.training.schedules import Stage, remaining

MEASURES = {
    "kept": "AP50 kept",
    "mask_AP": "mask AP",
    "mask_AP50": "AP50",
    "mask_AP75": "AP75",
    "box_AP": "box AP",
    "box_AP50": "box AP50",
    "tau_AP50": "AP(0.5)",
    "tau_AP60": "AP(0.6)",
    "tau_AP70": "AP(0.7)",
    "tau_AP80": "AP(0.8)",
    "tau_AP90": "AP(0.9)",
}
FACTS = "facts.json"
WEIGHTS = "weights.h5"


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        name: Name of the row.
        seed: Seed of the random weights, of the order of the images and of their augmentation.
        config: Settings of the training.
        stages: Parts of the training, in order, each with a schedule as its learning rate.
        weights: "scratch", "imagenet" or a weight file of the same network.
        augmentation: See `mrcnn.MaskRCNN.train`.
        patience: The training ends when so many evaluations in a row bring no better mask AP on the held-back
            images; the best weights count. With None, all epochs run and the last weights count.
        every: Epochs between these evaluations.
    """

    name: str
    seed: int
    config: mrcnn.Config
    stages: Sequence[Stage]
    weights: str = "scratch"
    augmentation: Any = None
    patience: int | None = None
    every: int = 1


class Clock(keras.callbacks.Callback):
    """Add the time of each epoch to the facts of the run: CPU time of the process, and wall time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_begin(self, logs: Any = None) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        facts = read_facts(self.path)
        facts["cpu_seconds"] = facts.get("cpu_seconds", 0) + cpu - self.cpu
        facts["wall_seconds"] = facts.get("wall_seconds", 0) + wall - self.wall
        facts["epochs"] = epoch + 1
        facts.setdefault("losses", []).append(float((logs or {}).get("loss", np.nan)))
        files.write_json(self.path, facts, indent=1)
        self.cpu, self.wall = cpu, wall


class Patience(keras.callbacks.Callback):
    """End the training when the mask AP has not risen for some evaluations, which the facts list."""

    def __init__(self, path: Path, patience: int) -> None:
        super().__init__()
        self.path, self.patience = path, patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = (logs or {}).get("val_mask_AP")
        if value is None:
            return
        facts = read_facts(self.path)
        facts.setdefault("held_back_AP", []).append([epoch + 1, float(value)])
        files.write_json(self.path, facts, indent=1)
        if is_exhausted(facts, self.patience):
            self.model.stop_training = True


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a run, empty if it has not begun."""
    return read_json(path) if path.is_file() else {}


def is_exhausted(facts: Mapping[str, Any], patience: int) -> bool:
    """Whether the best of the evaluations is at least `patience` evaluations old."""
    values = [value for _, value in facts.get("held_back_AP", [])]
    return bool(values) and len(values) - 1 - int(np.argmax(values)) >= patience


def best_value(facts: Mapping[str, Any]) -> float | None:
    """Return the best mask AP of the evaluations so far."""
    return max((value for _, value in facts.get("held_back_AP", [])), default=None)


def train(run: Run, train_set: Dataset, held_back: Dataset | None, folder: Path) -> mrcnn.MaskRCNN:
    """Train a run, or continue it where it was interrupted, and write WEIGHTS and FACTS to its folder.

    The state of the optimizer and of a running mean of the weights is lost at an interruption.

    Args:
        run: The run.
        train_set: Images to train on.
        held_back: Images that decide when a run with `patience` ends; None without `patience`.
        folder: Folder of the run.

    Returns:
        The model in training mode with the weights that count.
    """
    keras.utils.set_random_seed(run.seed)
    run.config.SEED = run.seed
    model = mrcnn.MaskRCNN("training", run.config, folder / "logs")
    if (folder / WEIGHTS).is_file():
        model.load_weights(folder / WEIGHTS, resume=False)
        return model
    facts = read_facts(folder / FACTS)
    if facts.get("epochs"):
        model.load_weights(model.find_last())
    else:
        load_initial_weights(model, run.weights)
    callbacks: list[keras.callbacks.Callback] = [Clock(folder / FACTS)]
    best = folder / "best.h5"
    if run.patience is not None:
        callbacks += [
            mrcnn.callbacks.Evaluate(model, held_back, detection_config(run.config), every=run.every),
            mrcnn.callbacks.SaveBest(best, baseline=best_value(facts)),
            Patience(folder / FACTS, run.patience),
        ]
    for stage in remaining(run.stages, model.epoch, int(run.config.STEPS_PER_EPOCH or 0)):
        if run.patience is None or not is_exhausted(read_facts(folder / FACTS), run.patience):
            model.train(
                train_set,
                None,
                **stage._asdict(),
                augmentation=run.augmentation,
                custom_callbacks=callbacks,
            )
    if best.is_file():
        model.load_weights(best, resume=False)
    model.save(folder / WEIGHTS)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    return model


def load_initial_weights(model: mrcnn.MaskRCNN, weights: str) -> None:
    """Load "imagenet" or a weight file. "scratch" keeps random weights."""
    if weights != "scratch":
        model.load_weights(weights, resume=False)


def detection_config(config: mrcnn.Config) -> mrcnn.Config:
    """Return the settings of detection that rank all detections, as average precision needs."""
    settings = whole_image_config(config)
    settings.DETECTION_MIN_CONFIDENCE = 0.0
    return settings


def evaluate(
    model: mrcnn.MaskRCNN,
    config: mrcnn.Config,
    dataset: Dataset,
    groups: Mapping[str, Sequence[int]] | None = None,
    min_score: float | None = None,
) -> dict[str, dict[str, float]]:
    """Return the MEASURES of a model on all images and on groups of them.

    Args:
        model: A model in any mode.
        config: Settings of detection.
        dataset: The images.
        groups: Image ids by name of the group.
        min_score: Lowest score that counts for AP(tau), which is left out without it.
    """
    results = evaluate_groups(
        model.inference_model(config).detect,
        dataset,
        {"all": dataset.image_ids, **(groups or {})},
        max_detections=(1, 10, max(100, config.DETECTION_MAX_INSTANCES)),
        min_score=min_score,
        verbose=0,
    )
    return {
        group: {name: float(table[name][0]) for name in MEASURES if name in table}
        for group, table in results.items()
    }


def add_arguments(parser: argparse.ArgumentParser, rows: Sequence[str]) -> None:
    """Add the options that all experiments have."""
    parser.add_argument("--row", choices=rows, help="row of the table to train and measure")
    parser.add_argument("--seed", type=int, default=0, help="seed of the row (default %(default)s)")
    parser.add_argument("--dataset", type=Path, help="path of the data")
    parser.add_argument(
        "--work", type=Path, default=Path("learning"), help="folder of the runs (default %(default)s)"
    )
    parser.add_argument("--epochs", type=int, help="epochs to train (default: those of the recipe)")
    parser.add_argument("--steps", type=int, help="steps per epoch (default: those of the recipe)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        type=measure.setting,
        metavar="NAME=VALUE",
        help="fields of the Config",
    )
    parser.add_argument("--output", type=Path, help="JSON file of all rows (default results/EXPERIMENT.json)")
    parser.add_argument("--table", action="store_true", help="only print the table of the finished rows")


def run_folder(arguments: argparse.Namespace, *parts: str) -> Path:
    """Return the folder of a run, which its row, seed and other choices name."""
    names = [*parts, str(arguments.row).replace(", ", "-").replace(" ", "-"), f"seed{arguments.seed}"]
    return arguments.work / "-".join(names)


def summary_of(run: Run, folder: Path) -> dict[str, Any]:
    """Return the columns of a row that describe how a finished run trained."""
    facts = read_facts(folder / FACTS)
    return {
        "steps": facts["epochs"] * int(run.config.STEPS_PER_EPOCH or 0),
        "images_per_step": run.config.BATCH_SIZE,
        "weights": run.weights,
        "settings": run.config.to_dict(),
        **facts,
    }


class Results:
    """The finished rows of an experiment, in a JSON file that each row is added to.

    Args:
        path: The file. Rows of an earlier command are kept.
        experiment: Name of the experiment.
    """

    def __init__(self, path: Path, experiment: str) -> None:
        self.path = path
        self.content: dict[str, Any] = {"experiment": experiment, "rows": []}
        if path.is_file():
            self.content = read_json(path)

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the row with these values, or None."""
        return next((row for row in self.content["rows"] if key.items() <= row.items()), None)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row with the machine and versions to what the file holds now, and write the file."""
        if self.path.is_file():
            self.content = read_json(self.path)  # another command may have added rows
        self.content["rows"].append({**row, "machine": measure.machine(), "versions": measure.versions()})
        files.write_json(self.path, self.content, indent=1)

    def table(self, key: Sequence[str] = ("row", "on", "group")) -> str:
        """Return a table with the mean of all seeds for each row, and the largest distance from it."""
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.content["rows"]:
            groups.setdefault(tuple(row.get(name) for name in key), []).append(row)
        lines = [{**dict(zip(key, values, strict=True)), **_summary(rows)} for values, rows in groups.items()]
        heads = {**{name: name for name in key}, "seeds": "seeds", "steps": "steps", "minutes": "CPU minutes"}
        return measure.table(lines, {**heads, **MEASURES})


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of the rows that differ in their seeds."""
    summary: dict[str, Any] = {"seeds": len(rows), "steps": rows[0].get("steps")}
    if all("cpu_seconds" in row for row in rows):
        summary["minutes"] = round(float(np.mean([row["cpu_seconds"] for row in rows])) / 60)
    for name in MEASURES:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            mean = float(np.mean(values))
            spread = max(abs(value - mean) for value in values)
            summary[name] = f"{mean:.3f}" + (f" +- {spread:.3f}" if len(values) > 1 else "")
    return summary

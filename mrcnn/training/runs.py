"""Names of run folders and weight files, as old runs and scripts know them.

A run folder is <model_dir>/<name><YYYYmmdd>T<HHMM>, its weights mask_rcnn_<name>_<epoch, four digits>.h5,
epochs counted from 1.
"""

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrcnn import files

if TYPE_CHECKING:
    from mrcnn.config import Config

WEIGHTS_PATTERN = re.compile(
    r"(?:.*[/\\])?[\w-]*?(?P<date>\d{8}T\d{4})[/\\]mask_rcnn_[\w-]+?_?(?P<epoch>\d{4,})\.h5"
)
DATE_FORMAT = "%Y%m%dT%H%M"


@dataclass(frozen=True)
class Run:
    """One training run: where it writes, and how many epochs are done."""

    log_dir: Path
    checkpoint_path: str
    epoch: int


def new_run(model_dir: str | os.PathLike, name: str) -> Run:
    """A run that begins now. Nothing is created on disk."""
    return _run(model_dir, name, datetime.datetime.now().strftime(DATE_FORMAT), 0)


def resumed_run(model_dir: str | os.PathLike, name: str, weights_path: str | os.PathLike) -> Run | None:
    """The run that a weight file belongs to, continued in `model_dir`; None if its path is not a run's.

    The number in a file's name is the count of epochs done.
    """
    match = WEIGHTS_PATTERN.match(str(weights_path))
    if match is None:
        return None
    return _run(model_dir, name, match["date"], int(match["epoch"]))


def _run(model_dir: str | os.PathLike, name: str, date: str, epoch: int) -> Run:
    name = name.lower()
    log_dir = Path(model_dir) / f"{name}{date}"
    return Run(log_dir, str(log_dir / f"mask_rcnn_{name}_{{epoch:04d}}.h5"), epoch)


def find_last(model_dir: str | os.PathLike, name: str) -> Path:
    """The newest weights of the newest run of this name that has any.

    Raises FileNotFoundError naming the folder and what was looked for.
    """
    folder, name = Path(model_dir), name.lower()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}, so no run of {name!r}. Check model_dir.")
    pattern = re.compile(re.escape(name) + r"\d{8}T\d{4}")
    runs = sorted(path for path in folder.iterdir() if path.is_dir() and pattern.fullmatch(path.name))
    if not runs:
        raise FileNotFoundError(
            f"No run of {name!r} in {folder}: no folder named like {name}20260131T1200. "
            "Check model_dir and the config's NAME."
        )
    for run in reversed(runs):
        weights = sorted(run.glob("mask_rcnn*.h5"))
        if weights:
            return weights[-1]
    raise FileNotFoundError(
        f"No weights mask_rcnn*.h5 in any run of {name!r} in {folder}: "
        f"{', '.join(run.name for run in runs)}. Did the first epoch finish?"
    )


def open_run_folder(log_dir: str | os.PathLike[str], config: "Config") -> None:
    """Create the folder of a run and write the settings into its config.json.

    Raises:
        OSError: If the folder cannot be written, before any training is lost; the error names the folder.
    """
    folder = Path(log_dir)
    try:
        files.write_json(folder / "config.json", config.to_dict(), indent=2)
    except OSError as error:
        raise OSError(
            f"Cannot write to the run folder {folder}: {error}. Choose another model_dir, or free disk space."
        ) from error

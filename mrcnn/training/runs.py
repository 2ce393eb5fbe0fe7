"""Folders of training runs and the names of their weight files.

A run writes to `<model_dir>/<name><YYYYmmdd>T<HHMM>/`, with `name` the lower-cased NAME of the config. Its
weight files are named `mask_rcnn_<name>_<epoch>.h5`; epochs count from 1 and have at least four digits.
"""

import datetime
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn import files

if TYPE_CHECKING:
    from mrcnn.config import Config

logger = logging.getLogger(__name__)

DATE_FORMAT = "%Y%m%dT%H%M"
DATE = r"\d{8}T\d{4}"
DATE_LENGTH = len("20260131T1200")
SETTINGS = "config.json"
# The last number of a weight file's name. Text after ".h5" is allowed, as in "mask_rcnn_coco_0001.h5.bak".
EPOCH = r"(?<!\d)(?P<epoch>\d{4,})\.h5"
# Names may hold any character but a separator. Windows paths are understood everywhere.
WEIGHTS_PATTERN = re.compile(rf"(?P<date>{DATE})[/\\]mask_rcnn_[^/\\]*{EPOCH}[^/\\]*\Z")
EPOCH_FIELD = re.compile(r"\{epoch(?::0?(?P<digits>\d+)d)?\}")


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        log_dir: Its folder.
        checkpoint_path: The pattern of its weight files. The file name holds the field `{epoch:04d}`, which
            `weights_path` fills in.
        epoch: The number of completed epochs.
        is_new: Whether the run has no folder yet.
    """

    log_dir: Path
    checkpoint_path: "CheckpointPath"
    epoch: int
    is_new: bool = False


class CheckpointPath(str):
    """The pattern of a run's weight files, also for `keras.callbacks.ModelCheckpoint`.

    ModelCheckpoint requires a name that ends with ".weights.h5", the layout of Keras. The networks of this
    library write weights by layer name to files of other names, so this path claims to have that ending.
    """

    def endswith(self, suffix: str | tuple[str, ...], *args: int) -> bool:  # type: ignore[override]
        """Return what `str.endswith` does, but True for ".weights.h5"."""
        return suffix == ".weights.h5" or super().endswith(suffix, *args)

    def format(self, *args: Any, **values: Any) -> str:
        """Return the path of an epoch's weight file; see `weights_path`. `epoch` counts from 1."""
        return str(weights_path(self, values["epoch"]))


def new_run(model_dir: str | os.PathLike[str], name: str) -> Run:
    """Return a new run that starts at the current time. Nothing is created on disk."""
    run = _run(model_dir, name, datetime.datetime.now().strftime(DATE_FORMAT), 0)
    return replace(run, is_new=True)


def resumed_run(
    model_dir: str | os.PathLike[str], name: str, weights_path: str | os.PathLike[str]
) -> Run | None:
    """Return the run that a weight file belongs to.

    Args:
        model_dir: The folder of all runs. The run continues there even if the weight file is elsewhere.
        name: NAME of the config.
        weights_path: Path of a weight file. The number in its name is the number of epochs done.

    Returns:
        The run, or None if `weights_path` is not the path of a run's weight file.
    """
    match = WEIGHTS_PATTERN.search(str(weights_path))
    if match is None:
        return None
    return _run(model_dir, name, match["date"], int(match["epoch"]))


def claimed(run: Run, writers: Iterable[Any] = ()) -> Run:
    """Create the folder of a new run, and return the run.

    If another run has this folder, because it started in the same minute, the new run gets the folder of the
    next minute that is free.

    Args:
        run: The new run.
        writers: What writes to the folder, such as the model and callbacks. Their attributes that are paths
            in the folder are changed to the new folder.
    """
    found = _claimed(run)
    if found.log_dir != run.log_dir:
        for writer in writers:
            _move_paths(writer, str(run.log_dir), str(found.log_dir))
    return found


def _move_paths(writer: Any, old: str, new: str) -> None:
    """Replace a folder in all attributes of an object that are paths in it."""
    for name, value in vars(writer).items():
        if isinstance(value, (str, Path)) and (str(value) + os.sep).startswith(old + os.sep):
            setattr(writer, name, type(value)(new + str(value)[len(old) :]))


def _claimed(run: Run) -> Run:
    name, minute = run.log_dir.name[:-DATE_LENGTH], run.log_dir.name[-DATE_LENGTH:]
    while True:
        run = _run(run.log_dir.parent, name, minute, run.epoch)
        try:
            if _claim(run.log_dir):
                return run
        except OSError:
            return run  # `open_run_folder` explains why it cannot be created
        later = datetime.datetime.strptime(minute, DATE_FORMAT) + datetime.timedelta(minutes=1)
        minute = later.strftime(DATE_FORMAT)


def _claim(folder: Path) -> bool:
    """Create the folder of a run. Returns False if another run has it.

    A run has a folder once it has created the file of its settings, which only one program can do. Before
    that, the folder may exist, because the user's program has put other files there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("mask_rcnn*.h5")):
        return False
    try:
        (folder / SETTINGS).open("x").close()
    except FileExistsError:
        return False
    return True


def model_dir_of(weights_path: str | os.PathLike[str]) -> Path | None:
    """Return the folder of all runs above a run's weight file, or None if the file is not in a run folder."""
    path = Path(weights_path)
    return path.absolute().parents[1] if WEIGHTS_PATTERN.search(str(path.absolute())) else None


def _run(model_dir: str | os.PathLike[str], name: str, date: str, epoch: int) -> Run:
    name = name.lower()
    log_dir = Path(model_dir) / f"{name}{date}"
    return Run(log_dir, CheckpointPath(log_dir / f"mask_rcnn_{name}_{{epoch:04d}}.h5"), epoch)


def weights_path(checkpoint_path: str | os.PathLike[str], epoch: int) -> Path:
    """Return the path of an epoch's weight file.

    Args:
        checkpoint_path: A path with a field such as `{epoch:04d}` in its file name.
        epoch: Number of the epoch, from 1.
    """
    # Not str.format, because all other braces belong to the name or the folder.
    folder, pattern = os.path.split(checkpoint_path)
    fields = list(EPOCH_FIELD.finditer(pattern))
    if not fields:
        return Path(checkpoint_path)
    field = fields[-1]  # NAME may hold others
    number = f"{epoch:0{field['digits'] or 1}d}"
    return Path(folder, pattern[: field.start()] + number + pattern[field.end() :])


def find_last(model_dir: str | os.PathLike[str], name: str) -> Path:
    """Return the newest weight file of the newest run that has one.

    Args:
        model_dir: The folder of all runs.
        name: NAME of the config.

    Raises:
        FileNotFoundError: If there is no such file; the error names the folder and the expected names.
    """
    folder, name = Path(model_dir), name.lower()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Cannot look for runs of NAME={name!r}: there is no folder {folder}. Check model_dir."
        )
    pattern = re.compile(re.escape(name) + DATE)
    run_folders = sorted(path for path in folder.iterdir() if path.is_dir() and pattern.fullmatch(path.name))
    if not run_folders:
        raise FileNotFoundError(
            f"{folder} has no run of NAME={name!r}. Expected a folder named like {name}20260131T1200. "
            "Check model_dir and the NAME of the config."
        )
    for run_folder in reversed(run_folders):
        weight_files = sorted(run_folder.glob("mask_rcnn*.h5"), key=_by_epoch)
        if weight_files:
            return weight_files[-1]
    raise FileNotFoundError(
        f"The runs of NAME={name!r} in {folder} have no weight file mask_rcnn*.h5: "
        f"{', '.join(path.name for path in run_folders)}. Weights are saved after each epoch; the first "
        "epoch may not have finished."
    )


def _by_epoch(path: Path) -> tuple[int, str]:
    """Return a key for sorting: epoch 10000 is after epoch 9999, and a file without a number is first."""
    match = re.search(EPOCH + r"\Z", path.name)
    return int(match["epoch"]) if match else -1, path.name


def open_run_folder(log_dir: str | os.PathLike[str], config: "Config", epoch: int) -> None:
    """Create the folder of a run and write the settings to its config.json.

    Unfinished files that a killed run left in the folder are removed. If the run continues from an earlier
    epoch than its last one, the weight files of the later epochs move to a subfolder.

    Args:
        log_dir: The folder.
        config: The settings.
        epoch: Number of completed epochs.

    Raises:
        OSError: If the folder cannot be written. The message names the folder.
    """
    folder = Path(log_dir)
    try:
        files.write_json(folder / SETTINGS, config.stored_settings(), indent=2)
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise OSError(
            error.errno,
            f"Cannot write to the run folder: {cause.strerror}. Choose another model_dir, or free disk space",
            str(folder),
        ) from error
    files.remove_leftovers(folder)
    _set_aside(folder, epoch)


def move_aside(paths: Sequence[Path]) -> Path:
    """Move files of one folder to a new subfolder, `replaced-<time>`, and return the subfolder."""
    aside = paths[0].parent / f"replaced-{datetime.datetime.now():%Y%m%dT%H%M%S}"
    number = 1
    while any((aside / path.name).exists() for path in paths):
        number += 1
        aside = aside.with_name(f"{aside.name.partition('_')[0]}_{number}")
    aside.mkdir(exist_ok=True)
    for path in paths:
        path.rename(aside / path.name)
    return aside


def _set_aside(folder: Path, epoch: int) -> None:
    """Move the weight files of epochs after this one to a subfolder, because the run would replace them."""
    later = [path for path in folder.glob("mask_rcnn*.h5") if _by_epoch(path)[0] > epoch]
    if not later:
        return
    aside = move_aside(later)
    logger.warning(
        "The training continues after epoch %d. Weight files of later epochs (%d) were moved to %s.",
        epoch,
        len(later),
        aside,
    )

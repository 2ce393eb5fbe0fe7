"""Build batches in other processes, for data that one Python process cannot prepare fast enough.

loky starts new processes instead of forking this one: a fork copies the locks of the threads of TensorFlow,
JAX and CUDA but not the threads themselves, and hangs. The processes import no deep-learning framework unless
the dataset's own module does. They can use classes defined in scripts and notebooks without a `__main__`
guard.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any

import cloudpickle
import loky
import numpy as np
from loky.backend import resource_tracker

from mrcnn.data import image_errors
from mrcnn.data.batches import Batch, BatchBuilder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Linux keeps the files in this folder in memory.
MEMORY_FOLDER = Path("/dev/shm")
FOLDER_PREFIX = "mrcnn-"
# A file in each folder that the main process keeps locked while it runs.
OWNER_FILE = "owner"

# Seconds between a process' checks that its main process is still running.
PARENT_CHECK_SECONDS = 2.0


class BatchProcesses:
    """Builder of batches in processes, each with a copy of a BatchBuilder.

    Several threads may call `batch`. The first call starts the processes. `close` ends them, and so does the
    end of the main process, even if it is killed. Arrays are passed through files, which are in memory on
    Linux and temporary files elsewhere, or through a pipe if there is no space for a file. If the main
    process is killed, loky's resource tracker, a separate process, removes the files. If the tracker is
    killed as well, the next BatchProcesses on this machine removes them.

    Args:
        builder: Builds the batches.
        workers: Number of processes.

    Attributes:
        folder: The folder of these files; empty before the first call of `batch`.

    Raises:
        TypeError: If the dataset cannot be sent to another process. The error says what to do.
    """

    def __init__(self, builder: BatchBuilder, workers: int) -> None:
        self._builder = builder
        self._workers = workers
        self._executor: loky.ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self.folder = ""

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the arrays of one batch.

        Raises:
            RuntimeError: If a process ended, or if more than MAX_IMAGE_ERRORS images could not be loaded.
        """
        try:
            built, reasons = self._running().submit(_build, epoch, index).result()
        except loky.BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                f"A loader process ended unexpectedly at batch {index} of epoch {epoch + 1}: {error}. The "
                f"usual cause is a lack of memory, because each of the {self._workers} processes holds a "
                "copy of the dataset. Lower LOADER_WORKERS, or set LOADER_PROCESSES=False to use threads."
            ) from error
        self._builder.failures.merge(reasons)
        return built if isinstance(built, dict) else _received(built)

    def close(self) -> None:
        """End the processes and remove their files. A later call of `batch` starts new processes."""
        with self._lock:
            if self._executor is not None:
                self._end()
                self._executor = None

    def _running(self) -> loky.ProcessPoolExecutor:
        with self._lock:
            if self._executor is None:
                pickled = self._pickled()
                parent = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else Path(tempfile.gettempdir())
                remove_abandoned_folders(parent)
                self.folder, owner = _new_folder(parent)
                self._executor = loky.ProcessPoolExecutor(
                    self._workers, initializer=_start, initargs=(pickled, self.folder, os.getpid())
                )
                self._end = weakref.finalize(self, _end, self._executor, self.folder, owner)
            return self._executor

    def _pickled(self) -> bytes:
        try:
            pickled: bytes = cloudpickle.dumps(self._builder)
        except Exception as error:
            raise TypeError(
                f"The dataset, its config or the augmentation cannot be sent to another process: {error}. "
                "Open files and connections inside load_image and load_mask instead of storing them in the "
                "dataset, or set LOADER_PROCESSES=False to use threads."
            ) from error
        return pickled

    def __getstate__(self) -> dict[str, Any]:
        return {"_builder": self._builder, "_workers": self._workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_builder"], state["_workers"])  # type: ignore[misc]


def remove_abandoned_folders(parent: Path) -> None:
    """Remove the folders that main processes left behind when they were killed."""
    if fcntl is None:
        return
    for owner_file in parent.glob(f"{FOLDER_PREFIX}*/{OWNER_FILE}"):
        with contextlib.suppress(OSError), open(owner_file) as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner_file.parent, ignore_errors=True)


def _new_folder(parent: Path) -> tuple[str, IO[str]]:
    """Create a folder for batches; return its path and its locked OWNER_FILE."""
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)
    resource_tracker.register(folder, "folder")
    unlocked = Path(folder, f".{OWNER_FILE}")
    owner = open(unlocked, "w")  # noqa: SIM115  # it stays open while the folder is in use
    if fcntl is not None:
        fcntl.flock(owner, fcntl.LOCK_EX)
    # The file gets its name after it is locked, so that no other process takes the folder for an abandoned
    # one.
    with contextlib.suppress(OSError):
        os.replace(unlocked, unlocked.with_name(OWNER_FILE))
    return folder, owner


def _end(executor: loky.ProcessPoolExecutor, folder: str, owner: IO[str]) -> None:
    executor.shutdown(wait=True, kill_workers=True)
    owner.close()
    shutil.rmtree(folder, ignore_errors=True)
    resource_tracker.unregister(folder, "folder")


def _received(path: str) -> Batch:
    """Return the arrays that `_sent` wrote, and remove their file."""
    with open(path, "rb") as file:
        names = str(np.load(file)).split()
        arrays = {name: np.load(file) for name in names}
    os.unlink(path)
    return arrays


# --- In the loader processes ---

# The builder and the folder for its batches, set once in each process.
_builder: BatchBuilder
_folder: str


def _start(pickled: bytes, folder: str, parent: int) -> None:
    global _builder, _folder
    _builder, _folder = cloudpickle.loads(pickled), folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the others
    image_errors.logger.disabled = True  # the main process receives every failure and logs it
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process if the process that started it was killed."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _build(epoch: int, index: int) -> tuple[str | Batch, dict[int, str]]:
    """Return a batch or the path of its file, and the images that could not be loaded so far."""
    batch = _builder.batch(epoch, index)
    return _sent(batch), dict(_builder.failures.reasons)


def _sent(batch: Batch) -> str | Batch:
    """Write the arrays to a file and return its path; return the arrays if there is no room for a file."""
    handle, path = tempfile.mkstemp(dir=_folder)
    try:
        with open(handle, "wb") as file:
            np.save(file, np.array(" ".join(batch)))
            for array in batch.values():
                np.save(file, array)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return batch
    return path

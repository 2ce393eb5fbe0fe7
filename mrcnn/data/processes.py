"""Batches built in other processes, for data that one Python process cannot prepare fast enough.

Processes are started anew (loky), not forked: a fork copies the locks of TensorFlow's, JAX's and CUDA's
threads but not the threads, and hangs. They load no deep-learning framework unless the data set's own module
does, and take classes of scripts and notebooks without a `__main__` guard.
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
from typing import Any

import cloudpickle
import loky
import numpy as np

from mrcnn.data import image_errors
from mrcnn.data.batches import Batch, BatchBuilder

# Where Linux keeps files in memory.
MEMORY_FOLDER = Path("/dev/shm")

# Seconds after which a process looks whether the one that started it still lives.
PATROL = 2.0


class BatchProcesses:
    """Builds batches as a BatchBuilder does, in `workers` processes with a copy of it each.

    batch() may be called from several threads. The copies start with the first call; close() ends them, and
    so does the end of this process, whatever its cause. Arrays travel through files in memory (on Linux;
    elsewhere through temporary files, or a pipe where the disk is full).
    Raises TypeError, saying what to do, if the data set cannot be sent to another process.
    """

    def __init__(self, builder: BatchBuilder, workers: int) -> None:
        self._builder = builder
        self._workers = workers
        self._executor: loky.ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._folder = ""

    def batch(self, epoch: int, index: int) -> Batch:
        """The arrays of one batch. RuntimeError if a process ended, or too many images failed."""
        try:
            built, reasons = self._running().submit(_build, epoch, index).result()
        except loky.BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                f"A process that prepares batches ended at batch {index} of epoch {epoch + 1}: {error}. "
                f"The usual cause is a lack of memory: {self._workers} processes hold a copy of the data set "
                "each. Lower LOADER_WORKERS, or set LOADER_PROCESSES=False to use threads."
            ) from error
        self._builder.failures.merge(reasons)
        return built if isinstance(built, dict) else _received(built)

    def close(self) -> None:
        """End the processes and remove their files. A later batch() starts new ones."""
        with self._lock:
            if self._executor is not None:
                self._end()
                self._executor = None

    def _running(self) -> loky.ProcessPoolExecutor:
        with self._lock:
            if self._executor is None:
                memory = os.access(MEMORY_FOLDER, os.W_OK)
                self._folder = tempfile.mkdtemp(prefix="mrcnn-", dir=MEMORY_FOLDER if memory else None)
                self._executor = loky.ProcessPoolExecutor(
                    self._workers, initializer=_start, initargs=(self._pickled(), self._folder, os.getpid())
                )
                self._end = weakref.finalize(self, _end, self._executor, self._folder)
            return self._executor

    def _pickled(self) -> bytes:
        try:
            return cloudpickle.dumps(self._builder)
        except Exception as error:
            raise TypeError(
                f"The data set, its config or the augmentation cannot be sent to another process: {error}. "
                "Open files and connections in load_image and load_mask instead of keeping them, or set "
                "LOADER_PROCESSES=False to use threads."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"_builder": self._builder, "_workers": self._workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_builder"], state["_workers"])  # type: ignore[misc]


def _end(executor: loky.ProcessPoolExecutor, folder: str) -> None:
    executor.shutdown(wait=True, kill_workers=True)
    shutil.rmtree(folder, ignore_errors=True)


def _received(path: str) -> Batch:
    """The arrays that `_sent` wrote; their file is removed."""
    with open(path, "rb") as file:
        names = str(np.load(file)).split()
        arrays = {name: np.load(file) for name in names}
    os.unlink(path)
    return arrays


# --- In the processes ---

# The builder and the folder for its batches, set once in each process.
_builder: BatchBuilder
_folder: str


def _start(pickled: bytes, folder: str, parent: int) -> None:
    global _builder, _folder
    _builder, _folder = cloudpickle.loads(pickled), folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the rest
    image_errors.logger.disabled = True  # the first process hears of every failure and logs it
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it was killed and could not."""
    while os.getppid() == parent:
        time.sleep(PATROL)
    os._exit(1)


def _build(epoch: int, index: int) -> tuple[str | Batch, dict[int, str]]:
    """A batch, or the file it was put in, and the images that could not be loaded so far."""
    batch = _builder.batch(epoch, index)
    return _sent(batch), dict(_builder.failures.reasons)


def _sent(batch: Batch) -> str | Batch:
    """The path of a file with the arrays; the arrays themselves if there is no room for it."""
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

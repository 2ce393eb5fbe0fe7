"""Hide the start-up messages of TensorFlow.

TensorFlow writes a dozen lines to the terminal before a program writes its first one: about instructions that
it was compiled for, CUDA libraries that it did not find, and cost estimates that it could not make. Real
errors reach the user as Python exceptions.

Two mechanisms are needed. The environment variable TF_CPP_MIN_LOG_LEVEL hides messages below a level (0
shows all, 1 hides INFO, 2 WARNING too, 3 ERROR too), but libraries ignore it while they are being loaded.
Therefore lines that appear during the import of TensorFlow are filtered by the same level. A level that the
user sets takes precedence: `TF_CPP_MIN_LOG_LEVEL=0 python ...` shows everything.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LETTERS = "IWE"  # info, warning, error: the first letter of a message; level n hides the first n
# Present where an NVIDIA driver is loaded: on Linux, and in the Windows subsystem for Linux.
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
HEADING = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"


def quiet_tensorflow() -> None:
    """Hide the start-up messages of TensorFlow, unless it is already loaded."""
    if "tensorflow" in sys.modules or any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        return
    # Without a GPU, each missing CUDA library is reported as an error. With one, such an error matters.
    has_gpu = any(os.path.exists(path) for path in GPU_FILES)
    os.environ.setdefault(LEVEL, "2" if has_gpu else "3")
    sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Import hook that filters stderr while TensorFlow is imported, and ignores all other modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader: importlib.abc.Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            with _filtered_stderr():
                execute(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Capture output to file descriptor 2, and pass on everything except hidden log messages."""
    pattern = _hidden_lines(os.environ.get(LEVEL, ""))
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (AttributeError, OSError, ValueError):  # a program without a terminal
        pattern = None
    if pattern is None:
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not pattern.match(line):
                    os.write(2, line)


def _hidden_lines(level: str) -> re.Pattern[bytes] | None:
    """Return a pattern for the log messages that a level hides, or None if it hides nothing."""
    letters = LETTERS[: int(level)] if level.isdecimal() else ""
    if not letters:
        return None
    message = rb"[%b]\d{4} [\d:.]+\s+\d+ \S+:\d+\]" % letters.encode()
    return re.compile(rb"%b|%b|To enable the following instructions:" % (message, re.escape(HEADING)))

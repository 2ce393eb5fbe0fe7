"""Import Keras and TensorFlow quietly, and without packages that nothing uses.

TensorFlow writes a dozen lines to the terminal before a program writes its first one: about instructions that
it was compiled for, CUDA libraries that it did not find, and cost estimates that it could not make. Real
errors reach the user as Python exceptions.

Two mechanisms are needed. The environment variable TF_CPP_MIN_LOG_LEVEL hides messages below a level (0
shows all, 1 hides INFO, 2 WARNING too, 3 ERROR too), but libraries ignore it while they are being loaded.
Therefore lines that appear during the import of TensorFlow are filtered by the same level. A level that the
user sets takes precedence: `TF_CPP_MIN_LOG_LEVEL=0 python ...` shows everything.

Keras imports several large packages that this one does not use, such as scikit-learn. They take as long as
Keras itself. They are loaded when something uses them. PyTorch's compiler is one of them: detection does not
need it.
"""

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

# Runs the code of a module.
Execute: TypeAlias = Callable[[ModuleType], None]
# Gets such a function and the module, and calls it in a way of its own, or later.
Way: TypeAlias = Callable[[Execute, ModuleType], None]

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LETTERS = "IWE"  # info, warning, error: the first letter of a message; level n hides the first n
# Present where an NVIDIA driver is loaded: on Linux, and in the Windows subsystem for Linux.
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
HEADING = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
# Parts of Keras that import scikit-learn and matplotlib.
POSTPONED = ("keras.src.visualization", "keras.visualization", "keras.wrappers")
COMPILER = "torch._dynamo"
# Modules of Keras that import the compiler for one line, the decorator `dynamo.disable()`.
DECORATED = ("keras.src.backend.torch.image", "keras.src.backend.torch.random")


def prepare_imports() -> None:
    """Arrange how TensorFlow and Keras will be imported, unless they are loaded already."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    ways: dict[str, Way] = {}
    if "tensorflow" not in sys.modules:
        # Without a GPU, each missing CUDA library is reported as an error. With one, such an error matters.
        has_gpu = any(os.path.exists(path) for path in GPU_FILES)
        os.environ.setdefault(LEVEL, "2" if has_gpu else "3")
        ways["tensorflow"] = _execute_quietly
    if "keras" not in sys.modules:
        ways["keras"] = _execute_without_collector
        ways |= dict.fromkeys(POSTPONED, _postpone) | dict.fromkeys(DECORATED, _execute_without_compiler)
    sys.meta_path.insert(0, _Finder(ways))


class _Finder(importlib.abc.MetaPathFinder):
    """Import hook that runs the code of some modules in ways of their own, and ignores all others.

    Args:
        ways: The way of each module by its name.
    """

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self.ways = ways

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.ways or target is not None:  # a target is reloaded: as usual
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self.ways[fullname])  # type: ignore[assignment]
        return spec


class _Loader:
    """A loader that stands in for another one until a module is loaded.

    Args:
        loader: The other loader. Several modules may share it.
        way: How the code of the module runs.
    """

    def __init__(self, loader: Any, way: Way) -> None:
        self.loader, self.way = loader, way

    def exec_module(self, module: ModuleType) -> None:
        """Put the other loader back in its place, and run the code of the module in its way."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.way(self.loader.exec_module, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


# --- TensorFlow ---


def _execute_quietly(execute: Execute, module: ModuleType) -> None:
    with _filtered_stderr():
        execute(module)


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Capture output to file descriptor 2, and pass on everything except hidden log messages."""
    pattern = _hidden_lines(os.environ.get(LEVEL, ""))
    held = terminal = None
    if pattern is not None:
        # Without a terminal, or without a folder for temporary files, nothing is captured.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
            held = tempfile.TemporaryFile()  # noqa: SIM115
            terminal = os.dup(2)
    if pattern is None or held is None or terminal is None:
        yield
        return
    with held:
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


# --- Keras ---


def _execute_without_collector(execute: Execute, module: ModuleType) -> None:
    """Run the code of a module without the garbage collector.

    The imported objects stay, and each collection would visit all of them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        execute(module)
    finally:
        if was_on:
            gc.enable()


def _postpone(execute: Execute, module: ModuleType) -> None:
    """Run the code of a module, once, when something reads an attribute that the module lacks until then.

    Unlike a module of importlib.util.LazyLoader, it has a file before that. Programs that search all modules
    for a file, such as `inspect`, do not run the code.
    """
    lock, is_running = threading.RLock(), threading.Event()
    # The import of a submodule reads the path, which runs the code.
    path = vars(module).pop("__path__", None)

    def get(name: str) -> Any:
        is_special = name.startswith("__") and name not in ("__all__", "__path__", "__version__")
        if not is_special:  # what tools look for in every module
            with lock:  # other threads wait for the end
                if vars(module).get("__getattr__") is get and not is_running.is_set():
                    run()
            if vars(module).get("__getattr__") is not get:
                return getattr(module, name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    def names() -> list[str]:
        with contextlib.suppress(AttributeError):
            get("__all__")
        return sorted(vars(module))

    def run() -> None:
        is_running.set()
        try:
            if path is not None:
                module.__path__ = path
            execute(module)
            for name, function in functions.items():
                if vars(module).get(name) is function:
                    delattr(module, name)
        finally:
            is_running.clear()

    functions = {"__getattr__": get, "__dir__": names}
    vars(module).update(functions)


# --- PyTorch's compiler ---


def _execute_without_compiler(execute: Execute, module: ModuleType) -> None:
    """Run the code of a module with a stub in the place of COMPILER. If that fails, run it as usual.

    The stub has the decorator `disable`, which keeps a function out of compiled programs. It is the one of
    PyTorch's own functions, and loads COMPILER when such a function is called. Reading any other attribute
    loads COMPILER at once.
    """
    if COMPILER in sys.modules:
        execute(module)
        return
    stub = ModuleType(COMPILER)

    def remove() -> None:
        if sys.modules.get(COMPILER) is stub:
            del sys.modules[COMPILER]

    def get(name: str) -> Any:
        if name.startswith("__"):  # what tools look for in every module
            raise AttributeError(f"module {COMPILER!r} has no attribute {name!r}")
        remove()
        return getattr(importlib.import_module(COMPILER), name)

    with contextlib.suppress(Exception):  # PyTorch may have no such decorator, or the module need more
        vars(stub).update(disable=sys.modules["torch"]._disable_dynamo, __getattr__=get)
        sys.modules[COMPILER] = stub
        try:
            execute(module)
            return
        finally:
            remove()
    execute(module)

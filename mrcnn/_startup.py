"""Import Keras and TensorFlow quietly, and without packages that nothing uses.

TensorFlow writes a dozen lines to the terminal before a program writes its first one: about instructions that
it was compiled for, CUDA libraries that it did not find, and cost estimates that it could not make. Real
errors reach the user as Python exceptions.

Two mechanisms are needed. The environment variable TF_CPP_MIN_LOG_LEVEL hides messages below a level (0
shows all, 1 hides INFO, 2 WARNING too, 3 ERROR too), but libraries ignore it while they are being loaded.
Therefore lines that appear during the import of TensorFlow are filtered by the same level. A level that the
user sets takes precedence: `TF_CPP_MIN_LOG_LEVEL=0 python ...` shows everything.

Keras imports several large packages that this one does not use, such as scikit-learn. They take as long as
Keras itself. `postpone_optional_packages` delays them until something uses them. PyTorch's compiler is one of
them: detection does not need it.
"""

import contextlib
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

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
        return _wrapped_spec(self, "tensorflow", _filtered_stderr, fullname, path, target)


def _wrapped_spec(
    hook: importlib.abc.MetaPathFinder,
    name: str,
    context: Callable[[], AbstractContextManager[None]],
    fullname: str,
    path: Sequence[str] | None,
    target: ModuleType | None,
) -> importlib.machinery.ModuleSpec | None:
    """Return what a hook finds for a module: if it has the given name, a spec that loads it in a context.

    The hook is removed when the module is loaded.
    """
    if fullname != name:
        return None
    others = (finder for finder in sys.meta_path if finder is not hook)
    specs = (finder.find_spec(fullname, path, target) for finder in others)
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
        return spec
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(hook)
        with context():
            execute(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


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


# --- Optional packages ---

# Modules whose code runs when something reads an attribute of them: parts of Keras that import scikit-learn
# and matplotlib.
POSTPONED = ("keras.src.visualization", "keras.visualization", "keras.wrappers")


def postpone_optional_packages() -> None:
    """Run the code of POSTPONED modules and of COMPILER when something uses them.

    Does nothing if Keras is already loaded.
    """
    if "keras" in sys.modules or any(isinstance(finder, _LazyImport) for finder in sys.meta_path):
        return
    sys.meta_path[:0] = [_LazyImport(), _CompilerImport(), _KerasImport()]


class _KerasImport(importlib.abc.MetaPathFinder):
    """Import hook that turns the garbage collector off while Keras is imported, and ignores all others.

    The imported objects stay, and each collection would visit all of them.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return _wrapped_spec(self, "keras", _without_collector, fullname, path, target)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Turn the garbage collector off, and on again if it was on."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _LazyImport(importlib.abc.MetaPathFinder):
    """Import hook that loads POSTPONED modules with a `_LazyLoader`, and ignores all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in POSTPONED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(importlib.abc.Loader):
    """A loader that runs the code of a module when something reads an attribute of it.

    Unlike those of importlib.util.LazyLoader, its modules have a file before that. Programs that search all
    modules for a file, such as `inspect`, do not run their code.

    Args:
        loader: The loader that runs the code.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()
        self._is_running = False

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return an empty module."""
        module = _LazyModule(spec.name)
        module.__path__ = []  # the import system looks for one before it calls `exec_module`
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing yet, unless the module is reloaded."""
        if type(module) is not _LazyModule:
            self._loader.exec_module(module)
            return
        vars(module).pop("__path__", None)  # reading it, which the import of a submodule does, runs the code

    def run(self, module: ModuleType) -> None:
        """Run the code, once. Other threads wait for the end."""
        with self._lock:
            if self._is_running or type(module) is not _LazyModule:
                return
            self._is_running = True
            try:
                spec = module.__spec__
                if spec is not None and spec.submodule_search_locations is not None:
                    module.__path__ = spec.submodule_search_locations
                self._loader.exec_module(module)
                module.__class__ = ModuleType  # type: ignore[assignment]
            finally:
                self._is_running = False


class _LazyModule(ModuleType):
    """A module whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        is_special = name.startswith("__") and name not in ("__all__", "__path__", "__version__")
        if not is_special:  # what tools look for in every module
            self.__spec__.loader.run(self)  # type: ignore[union-attr]
            if name in vars(self):
                return vars(self)[name]
            if type(self) is not _LazyModule:
                return getattr(self, name)  # by a function of the module
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> Iterable[str]:
        getattr(self, "__all__", None)
        return ModuleType.__dir__(self)


# --- PyTorch's compiler ---

COMPILER = "torch._dynamo"
# Modules of Keras that import the compiler for one line, the decorator `dynamo.disable()`.
DECORATED = ("keras.src.backend.torch.image", "keras.src.backend.torch.random")


class _CompilerImport(importlib.abc.MetaPathFinder):
    """Import hook that loads DECORATED modules without COMPILER, and ignores all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in DECORATED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = functools.partial(_execute_without_compiler, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _execute_without_compiler(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Run the code of a module with a stub in the place of COMPILER. If that fails, run it as usual."""
    try:
        with _compiler_stub():
            execute(module)
    except Exception:  # the module needs more than the stub has
        execute(module)


@contextlib.contextmanager
def _compiler_stub() -> Iterator[None]:
    """Put a stub in the place of COMPILER, unless that is loaded already, and take it away again."""
    if COMPILER in sys.modules:
        yield
        return
    stub = _CompilerStub(sys.modules["torch"])
    sys.modules[COMPILER] = stub
    try:
        yield
    finally:
        stub.remove()


class _CompilerStub(ModuleType):
    """What a module gets for COMPILER. Attributes other than `disable` load the real one.

    Args:
        torch: PyTorch.

    Attributes:
        disable: A decorator that keeps a function out of compiled programs, as PyTorch applies it to its own
            functions. It loads COMPILER when such a function is called.
    """

    def __init__(self, torch: ModuleType) -> None:
        super().__init__(COMPILER)
        self.disable = torch._disable_dynamo

    def remove(self) -> None:
        """Leave the place to the real module."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what tools look for in every module
            raise AttributeError(f"module {COMPILER!r} has no attribute {name!r}")
        self.remove()
        return getattr(importlib.import_module(COMPILER), name)

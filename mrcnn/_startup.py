"""Import Keras and TensorFlow quietly, and without what this package does not use.

TensorFlow writes a dozen lines to the terminal before a program writes its first one: about instructions that
it was compiled for, CUDA libraries that it did not find, and cost estimates that it could not make. Real
errors reach the user as Python exceptions.

Two mechanisms are needed. The environment variable TF_CPP_MIN_LOG_LEVEL hides messages below a level (0
shows all, 1 hides INFO, 2 WARNING too, 3 ERROR too), but libraries ignore it while they are being loaded.
Therefore lines that appear during the import of TensorFlow are filtered by the same level. A level that the
user sets takes precedence: `TF_CPP_MIN_LOG_LEVEL=0 python ...` shows everything.

Keras and TensorFlow import several large packages if they are installed, such as scikit-learn and matplotlib.
Together they take as long as the rest. `postpone_optional_packages` delays each of them until something uses
it.
"""

import contextlib
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LETTERS = "IWE"  # info, warning, error: the first letter of a message; level n hides the first n
# Present where an NVIDIA driver is loaded: on Linux, and in the Windows subsystem for Linux.
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
LOCK = threading.RLock()
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
    if spec is None or spec.loader is None:
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


# --- Optional packages ---

# Modules whose code runs when something reads one of their attributes.
LAZY = ("keras.src.visualization", "keras.visualization", "keras.wrappers")


def postpone_optional_packages() -> None:
    """Let the optional packages that Keras and TensorFlow know be imported when they are used first.

    This does nothing if Keras is already loaded.
    """
    if "keras" in sys.modules or any(isinstance(finder, _LeanImport) for finder in sys.meta_path):
        return
    sys.meta_path[:0] = [_LazyModules(), _LeanImport()]


class _LazyModules(importlib.abc.MetaPathFinder):
    """Import hook that delays LAZY modules, and ignores all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in LAZY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(importlib.abc.Loader):
    """A loader that runs the code of a module when something reads an attribute of it.

    Unlike those of importlib.util.LazyLoader, its modules have a file and a path before that. Programs that
    search all modules for a file, such as `inspect`, do not run their code.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return an empty module."""
        return _LazyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""


class _LazyModule(ModuleType):
    """A module whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # what tools look for in every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with LOCK:
            if type(self) is _LazyModule:
                self.__class__ = ModuleType  # type: ignore[assignment]
                self.__spec__.loader.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)

    def __dir__(self) -> Iterable[str]:
        getattr(self, "__all__", None)
        return ModuleType.__dir__(self)  # the class is another one now


class _LeanImport(importlib.abc.MetaPathFinder):
    """Import hook that delays optional packages while Keras is imported, and ignores all other modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return _wrapped_spec(self, "keras", _with_stand_ins, fullname, path, target)


@contextlib.contextmanager
def _with_stand_ins() -> Iterator[None]:
    """Put stand-ins in the place of optional packages, and turn the search for garbage off.

    The imported modules stay, and each search would visit all of them.
    """
    stand_ins = {name: module for name, module in _stand_ins().items() if _is_delayable(name, module)}
    sys.modules.update(stand_ins)
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _is_delayable(name: str, module: ModuleType) -> bool:
    """Return whether a module is installed and not loaded. If so, give its stand-in the same file."""
    if name in sys.modules:
        return False
    package, _, inner = name.partition(".")
    spec = importlib.machinery.PathFinder.find_spec(package)
    if inner and spec is not None:  # without importing the package
        spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
    if spec is None:
        return False
    module.__spec__, module.__file__ = spec, spec.origin
    return True


def _stand_ins() -> dict[str, ModuleType]:
    """Return a stand-in for each optional package, with the attributes that Keras reads in the beginning."""
    tables = {name: _InstancesOf(name, (), {"package": "pandas"}) for name in ("Series", "DataFrame")}
    modules = [
        _StandIn("IPython"),
        _StandIn("pandas", **tables),
        _StandIn("torch._dynamo", disable=_disable),
    ]
    if not _runs_on_jax():
        # Keras adds record_scalar to versions of JAX that lack it. TensorFlow Lite imports jit.
        monitoring = SimpleNamespace(record_scalar=None)
        modules.append(_StandIn("jax", monitoring=monitoring, jit=_jit))
    return {module.__name__: module for module in modules}


def _runs_on_jax() -> bool:
    """Return whether the environment or the configuration file of Keras may choose JAX."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen == "jax"
    folder = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
    try:
        return "jax" in Path(folder, "keras.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


class _StandIn(ModuleType):
    """A module in the place of another one, which it imports when an unknown attribute is read.

    Args:
        name: Name of the module.
        **known: Attributes that can be read without the module.
    """

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__path__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with LOCK:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _InstancesOf(type):
    """A class in the place of one of a module: isinstance() checks against that one if it is loaded."""

    package: str

    def __instancecheck__(cls, instance: Any) -> bool:
        owner = getattr(sys.modules.get(cls.package), cls.__name__, cls)
        return owner is not cls and isinstance(instance, owner)


def _jit(*args: Any, **options: Any) -> Any:
    """Stand in for jax.jit."""
    return importlib.import_module("jax").jit(*args, **options)


def _disable(*_: Any, **__: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Stand in for torch._dynamo.disable: without torch._dynamo there is no compiler to hide code from."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            dynamo = sys.modules.get("torch._dynamo")
            hidden = function if dynamo is None else dynamo.disable(function)
            return hidden(*args, **options)

        return call

    return decorate

"""Errors for bad data: a file, an entry of a file, or an array that cannot be used.

    DataError
        InvalidDataError        also a ValueError: the content is not what it must be
        UnreadableFileError     also an OSError: the file cannot be opened or decoded
            MissingFileError    also a FileNotFoundError: there is no such file

    CappedWarning               a UserWarning: a result has as many objects as a setting allows
    LeftOutWarning              a UserWarning: images that cannot be read were left out

Catch `DataError` to catch all of them, or catch the built-in classes. The message begins with the file and
the entry. Programs can read them from the attributes `file`, `entry` and `field`.
"""

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any


class DataError(Exception):
    """Base class of errors about data.

    Attributes:
        file: Path of the file, followed by the member's name for a zip archive; None for data in memory.
        entry: The entry of the file, such as "annotations[4]" or "line 3"; None for the file as a whole.
        field: Name of a field of the entry; None if the error concerns the whole entry.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        entry: str | None = None,
        field: str | None = None,
    ) -> None:
        self.file = None if file is None else os.fspath(file)
        self.entry = entry
        self.field = field
        location = ": ".join(part for part in (self.file, entry) if part)
        super().__init__(f"{location}: {message}" if location else message)

    def __reduce__(self) -> Any:
        # The message is complete already: a copy in another process must not add the location once more.
        return _copy, (type(self), self.args, self.__dict__)


class InvalidDataError(DataError, ValueError):
    """The content of a file or an array is not what it must be."""


class UnreadableFileError(DataError, OSError):
    """A file cannot be opened or decoded, or needs more memory than allowed."""


class MissingFileError(UnreadableFileError, FileNotFoundError):
    """A file or folder does not exist."""


# What makes an image useless, but not the next one.
IMAGE_ERRORS = (OSError, ValueError, MemoryError)


class CappedWarning(UserWarning):
    """A result has as many objects as a setting allows, so others may be missing."""


class LeftOutWarning(UserWarning):
    """Images that cannot be read were left out. The message has their number and the first of them."""


@contextlib.contextmanager
def redirect_warnings(kind: type[Warning], receive: Callable[[str], object]) -> Iterator[None]:
    """Return a context in which a function receives the warnings of a kind, which are then not shown.

    Python has one function that shows the warnings of all threads, so the warnings of other threads are
    received, too. Contexts may overlap in time, in one thread or in several: of those of a kind, the one that
    was entered last receives.

    Args:
        kind: A class of warnings.
        receive: Called with the text of each, also if the same warning came before.
    """
    context = object()
    with _lock:
        if not _receivers:
            _usual.enter_context(warnings.catch_warnings())
            warnings.showwarning = functools.partial(_pass_on, warnings.showwarning)
        _receivers[context] = kind, receive
        warnings.simplefilter("always", kind)
    try:
        yield
    finally:
        with _lock:
            del _receivers[context]
            if not _receivers:  # only then: the contexts of threads may end in any order
                _usual.close()


# The open contexts of `redirect_warnings`, in the order of their entry, and what ends with the last of them.
_receivers: dict[object, tuple[type[Warning], Callable[[str], object]]] = {}
_usual = contextlib.ExitStack()
_lock = threading.Lock()


def _pass_on(
    show: Callable[..., object], message: Warning | str, category: type[Warning], *place: Any, **options: Any
) -> None:
    """Give a warning to the last receiver of its kind, or else show it."""
    for kind, receive in reversed(list(_receivers.values())):
        if issubclass(category, kind):
            receive(str(message))
            return
    show(message, category, *place, **options)


def reason(error: BaseException) -> str:
    """Return the first line of an error's text, or its class name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _copy(kind: type[DataError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DataError:
    error = kind(*args)
    error.__dict__.update(attributes)
    return error

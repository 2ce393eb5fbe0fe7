"""The family of errors about data: classes, locations in messages, copies in other processes."""

import pickle
import warnings
from pathlib import Path

import pytest

from mrcnn.errors import (
    CappedWarning,
    DataError,
    InvalidDataError,
    LeftOutWarning,
    MissingFileError,
    UnreadableFileError,
    reason,
    redirect_warnings,
)


@pytest.mark.parametrize(
    "kind, builtin",
    [
        (InvalidDataError, ValueError),
        (UnreadableFileError, OSError),
        (MissingFileError, FileNotFoundError),
        (MissingFileError, UnreadableFileError),
    ],
)
def test_each_error_is_also_a_builtin_one(kind, builtin):
    assert issubclass(kind, builtin) and issubclass(kind, DataError)


def test_the_message_begins_with_the_location():
    error = InvalidDataError(
        "`id` must be an integer.", file=Path("a") / "x.json", entry="images[3]", field="id"
    )
    assert str(error) == "a/x.json: images[3]: `id` must be an integer."
    assert (error.file, error.entry, error.field) == ("a/x.json", "images[3]", "id")
    assert str(UnreadableFileError("no image", file="b.png")) == "b.png: no image"
    assert str(InvalidDataError("no location")) == "no location"


@pytest.mark.parametrize("kind", [InvalidDataError, UnreadableFileError, MissingFileError])
def test_errors_travel_between_processes(kind):
    error = kind("broken", file="a.png", entry="line 3", field="x")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error) == "a.png: line 3: broken"
    assert (copy.file, copy.entry, copy.field) == ("a.png", "line 3", "x")


def test_the_reason_is_one_line():
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"


def test_warnings_of_one_category_are_redirected():
    received = []
    with pytest.warns(LeftOutWarning) as shown, redirect_warnings(CappedWarning, received.append):
        for _ in range(2):
            warnings.warn("a.png", CappedWarning, stacklevel=1)
        warnings.warn("b.png", LeftOutWarning, stacklevel=1)
    assert received == ["a.png", "a.png"]
    assert [str(warning.message) for warning in shown] == ["b.png"]
    with pytest.warns(CappedWarning, match="c.png"):
        warnings.warn("c.png", CappedWarning, stacklevel=1)


def test_contexts_of_redirected_warnings_end_in_any_order():
    """As in two threads, of which the one that began first also ends first."""
    received = {"first": [], "second": []}
    usual, filters = warnings.showwarning, list(warnings.filters)
    first, second = (redirect_warnings(CappedWarning, received[name].append) for name in received)
    first.__enter__()
    second.__enter__()
    warnings.warn("a.png", CappedWarning, stacklevel=1)
    first.__exit__(None, None, None)
    warnings.warn("b.png", CappedWarning, stacklevel=1)
    second.__exit__(None, None, None)
    assert received == {"first": [], "second": ["a.png", "b.png"]}
    assert warnings.showwarning is usual and warnings.filters == filters
    with pytest.warns(CappedWarning, match=r"c\.png"):
        warnings.warn("c.png", CappedWarning, stacklevel=1)

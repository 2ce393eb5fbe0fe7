"""Check arguments that are lists of numbers."""

import operator
import re
import reprlib
from collections.abc import Iterable

from mrcnn.errors import InvalidDataError

# What to do about files that hold several images.
CHOOSE_PAGE = "Choose one with `page`, from 0 (--page on the command line)."
# What errors say about the command line, which other programs leave out.
OPTIONS = re.compile(r" \(--[^()]* on the command line\)")


def integers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """Return an argument that must be a list of integers as a tuple.

    Args:
        name: Name of the argument, for the error.
        values: Its value. Integers of NumPy count as integers.

    Raises:
        InvalidDataError: If it is a single number, or anything else.
    """
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        example = values if isinstance(values, int) else 0
        raise InvalidDataError(
            f"`{name}` must be a list of integers, such as {name}=[{example}]. "
            f"Received: {name}={reprlib.repr(values)}",
            field=name,
        ) from None

"""Parse pickle files as data. Nothing in the file is imported, called or executed.

A pickle is a program for a small stack machine, which can import and call anything. In this module, its
instructions only build a description of the result: a name to import becomes a `Global`, and a call becomes a
`Call`. The readers of each format convert descriptions of arrays to arrays and ignore the rest.
"""

import dataclasses
import pickletools
import reprlib
from collections.abc import Iterator
from typing import Any, BinaryIO

MARK = object()
# Instructions that push the value behind them.
VALUES = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MAX_INSTRUCTIONS = 20_000_000

_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel = 2


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that the pickle would import, such as "collections.OrderedDict"."""

    name: str


# Descriptions can hold each other, and the text of one that holds another twice, level by level, has no end.
@dataclasses.dataclass(eq=False, repr=False)
class Call:
    """An object that the pickle would create by a call, and the state that it would give it."""

    function: Any
    arguments: Any
    state: Any = None
    entries: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Persistent:
    """The identifier of an object outside the pickle."""

    id: Any


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Parsed:
    """A parsed pickle: its value, and its references to objects outside the pickle."""

    value: Any
    persistent: list[Persistent]


class PickleError(ValueError):
    """A pickle is damaged or uses instructions that weight files do not need."""


def short(value: object) -> str:
    """Return a value of a pickle as a short text for a message, even if it is deeply nested."""
    return _SHORTENER.repr(value)


def parse(stream: BinaryIO) -> Parsed:
    """Parse one pickle from a stream, and leave the stream positioned after it.

    Returns:
        A value made of plain Python values, `Global`, `Call` and `Persistent`. Dicts have only strings and
        numbers as keys.

    Raises:
        PickleError: If the pickle is damaged or uses an unsupported instruction.
    """
    try:
        machine = _Machine()
        return Parsed(machine.run(_instructions(stream)), machine.persistent)
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PickleError(f"damaged pickle: {error}") from error


def _instructions(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_INSTRUCTIONS:
            raise PickleError(
                f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions, more than any weight file needs"
            )
        yield opcode.name, argument


class _Machine:
    """The stack machine of the pickle format, for the instructions that data needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent: list[Persistent] = []

    def run(self, instructions: Iterator[tuple[str, Any]]) -> Any:
        for name, argument in instructions:
            if name == "STOP":
                (value,) = self.stack
                return value
            if name in VALUES:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in TUPLE_SIZES:
                size = TUPLE_SIZES[name]
                self.stack[len(self.stack) - size :] = [tuple(self._last(size))]
            elif (step := getattr(self, f"_{name.lower()}", None)) is not None:
                step(argument)
            else:
                raise PickleError(f"the instruction {name}, which weight files do not need")
        raise PickleError("no end")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise PickleError("too few values on the stack")
        return self.stack[len(self.stack) - count :]

    def _pop_to_mark(self) -> list[Any]:
        position = len(self.stack) - 1
        while position >= 0 and self.stack[position] is not MARK:
            position -= 1
        if position < 0:
            raise PickleError("no mark on the stack")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def _proto(self, argument: Any) -> None:
        """Ignore the version of the format, because each unknown instruction raises an error."""

    _frame = _proto  # a hint for buffered reading

    def _mark(self, argument: Any) -> None:
        self.stack.append(MARK)

    def _pop(self, argument: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, argument: Any) -> None:
        self._pop_to_mark()

    # --- Containers ---

    def _tuple(self, argument: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _empty_list(self, argument: Any) -> None:
        self.stack.append([])

    def _list(self, argument: Any) -> None:
        self.stack.append(self._pop_to_mark())

    def _append(self, argument: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, argument: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.entries if isinstance(target, Call) else target).extend(values)

    def _empty_dict(self, argument: Any) -> None:
        self.stack.append({})

    def _dict(self, argument: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append({})
        self._update(values)

    def _setitem(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _setitems(self, argument: Any) -> None:
        self._update(self._pop_to_mark())

    def _update(self, values: list[Any]) -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        target = self.stack[-1]
        if isinstance(target, Call):
            target.entries.extend(pairs)
            return
        for key, value in pairs:
            # The hash of nested tuples can take forever.
            if not isinstance(key, str | int | float | bytes | None):
                raise PickleError(f"a dictionary with keys of type {type(key).__name__}")
            target[key] = value

    # --- What a pickle would import, call or look up elsewhere ---

    def _global(self, argument: str) -> None:
        self.stack.append(Global(argument.replace(" ", ".")))

    def _stack_global(self, argument: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("a name to import that is not a string")
        self.stack.append(Global(f"{module}.{name}"))

    def _reduce(self, argument: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(Call(function, arguments))

    _newobj = _reduce

    def _newobj_ex(self, argument: Any) -> None:
        self.stack.pop()  # keyword arguments
        self._reduce(argument)

    def _build(self, argument: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def _binpersid(self, argument: Any) -> None:
        self.persistent.append(Persistent(self.stack.pop()))
        self.stack.append(self.persistent[-1])

    # --- Values that occur several times ---

    def _memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    _binput = _long_binput = _put

    def _get(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    _binget = _long_binget = _get

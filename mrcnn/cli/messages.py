"""The end of a command: its result as text or JSON, an error as one sentence, and the exit code."""

import contextlib
import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sized
from typing import Any

import typer

from mrcnn.errors import DataError, InvalidDataError, LeftOutWarning, redirect_warnings

FAILED, LEFT_OUT, INTERRUPTED = 1, 3, 130

# What a user can correct; anything else is an error of the program.
USER_ERRORS = (DataError, ValueError, OSError, ImportError, RuntimeError, FloatingPointError)

_shows_traceback = False


class IncompleteError(Exception):
    """A command finished, but left out some images or entries.

    Args:
        result: What the command would have returned.
        left_out: A sentence that says what was left out.
    """

    def __init__(self, result: Any, left_out: str) -> None:
        super().__init__(left_out)
        self.result = result


def check_any(counts: Sized, images: int) -> None:
    """Raise InvalidDataError if no image gave results."""
    if images and not len(counts):
        what = "The image could not" if images == 1 else f"None of the {images} images could"
        raise InvalidDataError(f"{what} be used; see above. Nothing was saved.")


def report_errors(with_traceback: bool) -> None:
    """Choose whether to print the traceback of an error."""
    global _shows_traceback
    _shows_traceback = with_traceback


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings for users in this context as sentences, without a path and a line of Python."""
    usual = warnings.formatwarning

    def as_sentence(message: Any, category: type[Warning], *place: Any, **options: Any) -> str:
        is_for_users = issubclass(category, UserWarning)
        return f"Warning: {message}\n" if is_for_users else usual(message, category, *place, **options)

    warnings.formatwarning = as_sentence
    try:
        yield
    finally:
        warnings.formatwarning = usual


def finish(command: Callable[..., Any]) -> Callable[..., None]:
    """Turn a function into a command.

    The function returns a value for --json and a text for people. An error becomes one sentence. With --json,
    everything that the function prints goes to standard error. A KeyboardInterrupt may have a text that says
    how to continue. A LeftOutWarning leads to the exit code of an IncompleteError.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        as_json, code = bool(options.get("json")), 0
        left_out: list[str] = []

        def show(message: str) -> None:
            left_out.append(message)
            typer.secho(f"Warning: {message}", err=True, fg="yellow")

        try:
            with (
                contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
                redirect_warnings(LeftOutWarning, show),
                contextlib.nullcontext() if _shows_traceback else _plain_warnings(),
            ):
                value, text = command(*args, **options)
            code = LEFT_OUT if left_out else 0
        except IncompleteError as incomplete:
            value, text = incomplete.result
            typer.secho(f"Warning: {incomplete}", err=True, fg="yellow")
            code = LEFT_OUT
        except KeyboardInterrupt as interruption:
            advice = f" {interruption}" if str(interruption) else ""
            typer.echo(f"Interrupted.{advice}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except USER_ERRORS as error:
            if _shows_traceback:
                raise
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(FAILED) from None
        typer.echo(json.dumps(value, indent=2) if as_json else text)
        if code:
            raise typer.Exit(code)

    return run

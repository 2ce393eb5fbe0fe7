"""Tell users who watch a progress bar that the network is being compiled."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence

from tqdm import tqdm

# Seconds after which a user wonders what is happening.
PATIENCE = 3.0


@contextlib.contextmanager
def announced(shape: Sequence[int]) -> Iterator[threading.Timer | None]:
    """Announce that the network is being compiled, if that takes long and stderr is a terminal.

    Args:
        shape: (height, width, ...) of the molded images for which the network is compiled.

    Yields:
        The timer that prints a line; None if stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    line = f"Compiling for images of {shape[0]} x {shape[1]} pixels, once ..."
    timer = threading.Timer(PATIENCE, tqdm.write, [line], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()

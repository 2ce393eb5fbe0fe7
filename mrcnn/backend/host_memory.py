"""The heap of the C library: keep freed memory between steps, or return it to the system (glibc only)."""

import ctypes
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

# Parameters of mallopt(3): how much free memory at the end of the heap goes back to the system, and how much
# is asked for beyond what is needed.
M_TRIM_THRESHOLD, M_TOP_PAD = -1, -2
KEPT_BYTES, REQUESTED_BYTES = (1 << 31) - 1, 1 << 26


def keep_host_memory() -> None:
    """Let the C library keep freed memory for the next step.

    Otherwise it returns large blocks to the system and requests them again, zeroed page by page. TensorFlow
    changes the setting whenever it starts to read a generator, so repeat the call afterwards.
    """
    mallopt = _glibc_function("mallopt")
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_TOP_PAD, REQUESTED_BYTES)


def give_back_host_memory() -> None:
    """Return freed memory to the system, such as memory from building a network."""
    trim = _glibc_function("malloc_trim")
    if trim is not None:
        gc.collect()
        trim(0)


@functools.cache
def _glibc_function(name: str) -> Callable[..., Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., Any] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return function

"""The heap of the C library: keep freed memory between steps, or return it to the system (glibc only)."""

import ctypes
import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

# Parameters of mallopt(3): how much free memory at the end of the heap goes back to the system, how much is
# asked for beyond what is needed, and from which size on, and how many, blocks lie outside the heap. Those go
# back to the system as soon as they are free.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
KEPT_BYTES, REQUESTED_BYTES = (1 << 31) - 1, 1 << 26
LARGEST_THRESHOLD = 1 << 25  # the C library accepts no larger one

# Environment variables by which users set these parameters themselves.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_host_memory(large_blocks: bool = False) -> None:
    """Make the C library keep freed memory for the next step.

    Otherwise it returns large blocks to the system and requests them again, zeroed page by page. TensorFlow
    changes the setting whenever it starts to read a generator, so repeat the call afterwards. Variables of
    the environment, such as MALLOC_MMAP_THRESHOLD_, take precedence: if one is set, nothing changes.

    Args:
        large_blocks: Whether to keep blocks of more than 32 MB, too, as feature maps of large images.
    """
    mallopt = _glibc_function("mallopt")
    if mallopt is None or any(name in os.environ for name in VARIABLES):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_TOP_PAD, REQUESTED_BYTES)
    # Without this, the calls above would fix the threshold at its present value.
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    if large_blocks:
        mallopt(M_MMAP_MAX, 0)


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

"""Build the next batches in threads while the current one is in use."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Prefetcher(Generic[Result]):
    """Returns results in the order of the requests and builds the following ones in advance.

    While indices are requested out of order, nothing is built in advance.

    Args:
        build: `f(index)`; several threads call it.
        count: Number of results; indices go from 0 to count - 1.
        workers: Number of threads.
        ahead: Maximum number of results built in advance.
    """

    def __init__(self, build: Callable[[int], Result], count: int, workers: int, ahead: int) -> None:
        self._build = build
        self._count = count
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Result]] = {}
        self._next_index = 0
        self._is_closed = False

    def get(self, index: int) -> Result:
        """Return the result for an index, or raise the error that occurred while it was built."""
        with self._lock:
            if index == self._next_index and not self._is_closed:
                last = min(index + self._ahead, self._count - 1)
                for following in range(index, last + 1):
                    if following not in self._pending:
                        self._pending[following] = self._pool.submit(self._build, following)
            self._next_index = index + 1
            future = self._pending.pop(index, None)
        with contextlib.suppress(CancelledError):
            if future is not None:
                return future.result()
        return self._build(index)

    def close(self) -> None:
        """Cancel pending results. Each thread ends after the result that it is building."""
        with self._lock:
            self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

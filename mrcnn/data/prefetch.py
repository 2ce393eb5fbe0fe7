"""The next batches built in threads while the present one is used."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any


class Prefetcher:
    """Hands out results in the order they are asked for and builds those that follow meanwhile.

    build: f(index), safe to call from several threads. count: indices go from 0 to count - 1.
    workers: threads. ahead: results kept ready at most. Nothing is built in advance while indices
    are asked for out of order.
    """

    def __init__(self, build: Callable[[int], Any], count: int, workers: int, ahead: int) -> None:
        self._build = build
        self._count = count
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._lock = threading.Lock()
        self._waiting: dict[int, Future] = {}
        self._expected = 0
        self._closed = False

    def get(self, index: int) -> Any:
        """The result for an index; raises what building it raised."""
        with self._lock:
            if index == self._expected and not self._closed:
                last = min(index + self._ahead, self._count - 1)
                for following in range(index, last + 1):
                    if following not in self._waiting:
                        self._waiting[following] = self._pool.submit(self._build, following)
            self._expected = index + 1
            future = self._waiting.pop(index, None)
        with contextlib.suppress(CancelledError):
            if future is not None:
                return future.result()
        return self._build(index)

    def close(self) -> None:
        """Drop what waits; threads end when they have finished their present result."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

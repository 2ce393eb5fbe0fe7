"""Work on one item after another in threads, with the results in order.

Pipelines are nested calls: while the caller of the outer one works on a result, threads work on the next
items.

    images = in_order(read, paths)  # threads read ahead
    for path in in_order(save, map(detect, images)):  # this thread detects; others save behind it
        print(path)
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# More threads than this wait for each other, because Python runs one of them at a time.
MAX_THREADS = 8


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Return one thread for each core that this process may use, at most MAX_THREADS."""
    return min(available_cores(), MAX_THREADS)


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int | None = None,
    ahead: int | None = None,
) -> Generator[Result, None, None]:
    """Yield the results of a function for each item, in the order of the items, computed ahead in threads.

    The items themselves are taken in the thread of the caller. When the caller stops early, by Ctrl-C, an
    error or `close`, results that no thread works on yet are canceled, and the others are awaited.

    Args:
        function: Called with one item, by several threads at once.
        items: Any number of items. Only those that are needed soon are taken.
        threads: Number of threads; see `default_threads`.
        ahead: The most results that are computed or wait while the caller works on one; by default one more
            than there are threads.

    Raises:
        Exception: What the function raised, in place of its result; or what `items` raised, after the results
            of the items before.
    """
    count = threads or default_threads()
    limit = ahead or count + 1
    waiting: deque[Future[Result]] = deque()
    error: Exception | None = None
    source = iter(items)
    pool = ThreadPoolExecutor(count, thread_name_prefix="in-order")
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as raised:
                error = raised
                break
            waiting.append(pool.submit(function, item))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if error is not None:
            raise error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(source, "close", None)
        if close is not None:
            close()

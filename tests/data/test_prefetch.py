"""Prefetcher: results in order, built ahead but not too far, errors where they belong."""

import threading
import time

import pytest

from mrcnn.data.prefetch import Prefetcher


class Work:
    """Counts what was built and in which threads; may be told to wait."""

    def __init__(self):
        self.built = []
        self.threads = set()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, index):
        self.open.wait(60)
        self.built.append(index)
        self.threads.add(threading.current_thread().name)
        if index == 13:
            raise ValueError("unlucky")
        return index * index


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ahead", [0, 2, 50])
def test_results_come_in_order_and_once(workers, ahead):
    work = Work()
    prefetcher = Prefetcher(work, 10, workers, ahead)
    assert [prefetcher.get(index) for index in range(10)] == [n * n for n in range(10)]
    prefetcher.close()
    assert sorted(work.built) == list(range(10))
    assert threading.current_thread().name not in work.threads


def test_only_so_many_are_built_ahead():
    work = Work()
    prefetcher = Prefetcher(work, 100, workers=1, ahead=3)
    prefetcher.get(0)
    prefetcher.get(1)
    deadline = time.monotonic() + 10
    while len(work.built) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)  # for more, which must not come
    assert work.built == [0, 1, 2, 3, 4]
    prefetcher.close()


def test_out_of_order_nothing_is_built_ahead():
    work = Work()
    prefetcher = Prefetcher(work, 100, workers=1, ahead=3)
    assert [prefetcher.get(index) for index in (7, 4, 90)] == [49, 16, 8100]
    assert work.built == [7, 4, 90]
    prefetcher.close()


def test_an_error_is_raised_for_its_own_index():
    work = Work()
    prefetcher = Prefetcher(work, 15, workers=2, ahead=14)
    assert [prefetcher.get(index) for index in range(13)] == [n * n for n in range(13)]
    with pytest.raises(ValueError, match="unlucky"):
        prefetcher.get(13)
    assert prefetcher.get(14) == 196
    prefetcher.close()


def test_after_closing_results_are_built_on_demand():
    work = Work()
    prefetcher = Prefetcher(work, 10, workers=1, ahead=5)
    assert prefetcher.get(0) == 0
    work.open.clear()
    prefetcher.close()
    work.open.set()
    assert [prefetcher.get(index) for index in range(1, 10)] == [n * n for n in range(1, 10)]

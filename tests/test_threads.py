"""Results in order, work ahead in threads, errors and early ends."""

import itertools
import os
import sys
import threading
from types import ModuleType

import pytest

from mrcnn.errors import InvalidDataError
from mrcnn.runtime.engines import LiteRtEngine
from mrcnn.threads import in_order


@pytest.mark.parametrize("count", [0, 1, 20])
def test_results_are_in_order(count):
    first = threading.Event()

    def square(number):
        if number == 0 and count > 1:
            assert first.wait(30)  # until a later item is done
        first.set()
        return number**2

    assert list(in_order(square, range(count), threads=2)) == [n**2 for n in range(count)]


def test_items_are_taken_as_needed_in_the_thread_of_the_caller():
    taken = []

    def items():
        for number in itertools.count():
            taken.append(threading.current_thread())
            yield number

    results = in_order(lambda number: threading.current_thread(), items(), threads=2, ahead=3)
    assert next(results) is not threading.current_thread()
    assert len(taken) == 4 and set(taken) == {threading.current_thread()}
    next(results)
    assert len(taken) == 5
    results.close()


def test_an_error_comes_in_place_of_its_result():
    def invert(number):
        return 1 / number

    results = in_order(invert, [1, 2, 0, 4], threads=2)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_results_before_an_error_of_the_items_come_first():
    def items():
        yield from (1, 2)
        raise OSError("no more")

    results = in_order(str, items(), threads=2, ahead=9)
    assert [next(results), next(results)] == ["1", "2"]
    with pytest.raises(OSError, match="no more"):
        next(results)


def test_an_early_end_cancels_what_waits_and_closes_the_items():
    started, may_end, closed = [], threading.Event(), []

    def work(number):
        started.append(number)
        if number:
            assert may_end.wait(30)

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    results = in_order(work, items(), threads=1, ahead=5)
    next(results)
    threading.Timer(0.1, may_end.set).start()
    results.close()  # waits for the item that is in work
    assert len(started) <= 2 and closed == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("in-order")]


def test_stages_follow_each_other():
    numbers = in_order(lambda number: number + 1, range(50), threads=3)
    doubled = (2 * number for number in numbers)
    assert list(in_order(str, doubled, threads=2)) == [str(2 * (n + 1)) for n in range(50)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity of processes")
def test_litert_takes_the_cores_that_the_process_may_use(monkeypatch):
    """A container or a batch system may give a process few of the cores of a machine."""
    taken = []

    def interpreter(model_path, num_threads):
        taken.append(num_threads)
        raise ValueError("no model")

    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(999)))
    with pytest.raises(InvalidDataError):
        LiteRtEngine("model.tflite")
    assert taken == [999]

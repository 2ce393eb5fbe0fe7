"""The queue: batches, places, errors, cancellation and the end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mrcnn.serving.queueing import DetectionQueue, QueueFullError

IMAGE = np.zeros((4, 5, 3), np.uint8)


class Gate:
    """A detector that waits until it may go on, and notes its batches."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches = []

    def __call__(self, images):
        self.entered.set()
        assert self.open.wait(60)
        self.batches.append(len(images))
        if any(image.max() == 255 for image in images):
            raise ValueError("white image")
        return [int(image.max()) for image in images]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def start(gate):
    queues = []

    def start_queue(**options):
        queues.append(DetectionQueue(gate, **{"batch": 3, "places": 100, **options}))
        queues[-1].start()
        return queues[-1]

    yield start_queue
    gate.open.set()
    for queue in queues:
        queue.close()
        assert not queue.is_running


def test_what_waits_becomes_batches_in_order(gate, start):
    seen = []
    queue = start(observe=lambda images, seconds: seen.append(images))
    first = queue.submit(IMAGE)
    assert gate.entered.wait(60)
    others = [queue.submit(IMAGE + number) for number in range(1, 6)]
    gate.open.set()
    assert [future.result(10) for future in (first, *others)] == [0, 1, 2, 3, 4, 5]
    assert gate.batches == [1, 3, 2]
    queue.close()
    assert seen == gate.batches


def test_a_batch_is_bounded_in_pixels(gate, start):
    queue = start(batch_pixels=2 * 20)
    blocker = queue.submit(IMAGE)
    assert gate.entered.wait(60)
    futures = [
        queue.submit(IMAGE),
        queue.submit(IMAGE),
        queue.submit(IMAGE),
        queue.submit(np.zeros((90, 90))),
    ]
    gate.open.set()
    for future in (blocker, *futures):
        future.result(10)
    assert gate.batches == [1, 2, 1, 1]


def test_places_are_bounded_and_given_back(start):
    queue = start(places=2)
    with queue.place():
        with queue.place():
            assert queue.taken == 2
            with pytest.raises(QueueFullError) as full, queue.place():
                pass
            assert full.value.seconds >= 1
        with queue.place():
            pass
    assert queue.taken == 0


def test_one_bad_image_fails_alone(gate, start):
    queue = start()
    blocker = queue.submit(IMAGE)
    assert gate.entered.wait(60)
    good, bad, other = (queue.submit(IMAGE + value) for value in (1, 255, 2))
    gate.open.set()
    assert (good.result(10), other.result(10), blocker.result(10)) == (1, 2, 0)
    with pytest.raises(ValueError, match="white image"):
        bad.result(10)


def test_what_nobody_needs_is_not_detected(gate, start):
    queue = start()
    queue.submit(IMAGE)
    assert gate.entered.wait(60)
    first, second = queue.submit(IMAGE), queue.submit(IMAGE)
    assert first.cancel()
    gate.open.set()
    second.result(10)
    assert gate.batches == [1, 1]


def test_closing_finishes_what_waits(gate, start):
    queue = start()
    futures = [queue.submit(IMAGE + number) for number in range(7)]
    gate.open.set()
    queue.close()
    assert [future.result(0) for future in futures] == list(range(7))
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(IMAGE)


def test_the_first_image_starts_a_queue_that_nobody_started(gate):
    others = set(threading.enumerate())
    queue = DetectionQueue(gate, batch=3, places=100)
    assert queue.is_running
    gate.open.set()
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda number: queue.submit(IMAGE + number), range(20)))
    assert [future.result(10) for future in futures] == list(range(20))
    queue.start()  # changes nothing
    assert queue.submit(IMAGE).result(10) == 0
    assert len(set(threading.enumerate()) - others) == 1
    queue.close()
    assert not queue.is_running


def test_a_queue_without_images_can_be_closed(gate):
    queue = DetectionQueue(gate, batch=3, places=100)
    queue.close()
    assert not queue.is_running
    for begin in (queue.start, lambda: queue.submit(IMAGE)):
        with pytest.raises(RuntimeError, match="The queue is closed"):
            begin()

"""A thread that detects in batches of waiting images, and a bounded number of places for requests.

Requests do not wait for a place: if none is free, a request is refused at once, before its image is read.
"""

import collections
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from mrcnn.results import Detections
from mrcnn.typing import Image

logger = logging.getLogger(__name__)

Detect = Callable[[Sequence[Image]], list[Detections]]
# The weight of the newest batch in the running mean of the time per image.
NEWEST = 0.2


class QueueFullError(Exception):
    """The queue is full.

    Args:
        seconds: Expected time until a place is free, in whole seconds.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The queue is full. Try again in {seconds} s.")
        self.seconds = seconds


class DetectionQueue:
    """Detect in the images of many requests with one thread, which the first image starts if `start` did not.

    Args:
        detect: Returns the detections of each image, in order.
        batch: Number of images per call of `detect`.
        places: Number of simultaneous requests.
        batch_pixels: Largest number of pixels of all images in a call. An image with more pixels runs alone.
        pixels_of: Returns how many pixels an image counts; by default all of its own.
        observe: Function to call after each batch with the number of images and the time in seconds.
    """

    def __init__(
        self,
        detect: Detect,
        *,
        batch: int,
        places: int,
        batch_pixels: float = math.inf,
        pixels_of: Callable[[Image], int] = lambda image: int(image.shape[0] * image.shape[1]),
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._detect = detect
        self._batch = batch
        self._batch_pixels = batch_pixels
        self._pixels_of = pixels_of
        self._observe = observe
        self._places = places
        self._taken = 0
        self._jobs: collections.deque[tuple[Image, Future[Detections]]] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._seconds_per_image = 0.0
        self._thread = threading.Thread(target=self._work, name="mrcnn-detect", daemon=True)

    def start(self) -> None:
        """Start the thread, once.

        Raises:
            RuntimeError: If the queue is closed.
        """
        with self._changed:
            self._start()

    def _start(self) -> None:
        """Start the thread unless it is started. The caller holds the lock."""
        if self._is_closed:
            raise RuntimeError("The queue is closed and takes no more images. Create a new one.")
        if self._thread.ident is None:
            self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the queue accepts images."""
        is_alive = self._thread.ident is None or self._thread.is_alive()
        return is_alive and not self._is_closed

    @property
    def taken(self) -> int:
        """The number of places that are taken."""
        return self._taken

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            QueueFullError: If all places are taken.
        """
        with self._changed:
            if self._taken >= self._places:
                raise QueueFullError(max(1, math.ceil(self._taken * self._seconds_per_image)))
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1

    def submit(self, image: Image) -> "Future[Detections]":
        """Queue an image. Hold a place until the result arrives; cancel the result if nobody needs it.

        Raises:
            RuntimeError: If the queue is closed.
        """
        future: Future[Detections] = Future()
        with self._changed:
            # A mounted application is not told of the start of the program.
            self._start()
            self._jobs.append((image, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Detect in the waiting images, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while jobs := self._next_jobs():
            started = time.perf_counter()
            self._run(jobs)
            seconds = time.perf_counter() - started
            mean, newest = self._seconds_per_image, seconds / len(jobs)
            self._seconds_per_image = mean + NEWEST * (newest - mean) if mean else newest
            self._observe(len(jobs), seconds)

    def _next_jobs(self) -> list[tuple[Image, Any]]:
        """Wait for images and return those of the next batch, or none after the queue is closed."""
        jobs: list[tuple[Image, Any]] = []
        pixels = 0
        with self._changed:
            while True:
                while self._jobs and len(jobs) < self._batch:
                    size = self._pixels_of(self._jobs[0][0])
                    if jobs and pixels + size > self._batch_pixels:
                        break
                    image, future = self._jobs.popleft()
                    if future.set_running_or_notify_cancel():
                        jobs.append((image, future))
                        pixels += size
                if jobs or self._is_closed:
                    return jobs
                self._changed.wait()

    def _run(self, jobs: list[tuple[Image, Any]]) -> None:
        try:
            results = self._detect([image for image, _ in jobs])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][1].set_exception(error)
                return
            logger.info("A batch failed; its images run one by one: %s", error)
            for job in jobs:  # one of them is to blame, the others get their results
                self._run([job])
            return
        for (_, future), result in zip(jobs, results, strict=True):
            future.set_result(result)

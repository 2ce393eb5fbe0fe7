"""Counts and times of a service, in the format of Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one application.

    Args:
        taken: Returns the number of requests in progress.
    """

    def __init__(self, taken: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "mrcnn_requests", "Requests by address and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mrcnn_request_seconds",
            "Time from the request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "mrcnn_batch_images",
            "Number of images in a batch.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self._detection = Histogram(
            "mrcnn_batch_seconds",
            "Time that the network takes for a batch.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._objects = Counter("mrcnn_objects", "Number of detected objects.", registry=self._registry)
        places = Gauge(
            "mrcnn_requests_in_progress",
            "Requests that are waiting or being processed.",
            registry=self._registry,
        )
        places.set_function(taken)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(images)
        self._detection.observe(seconds)

    def objects(self, count: int) -> None:
        """Count the objects of an answer."""
        self._objects.inc(count)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)


class CountRequests:
    """Middleware that counts requests and measures their time.

    Args:
        app: The application.
        metrics: Where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # The path of the route, not of the address: of those there are any number.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.request(path, status, time.perf_counter() - started)

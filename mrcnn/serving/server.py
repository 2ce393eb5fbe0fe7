"""Run an application until a signal arrives, then finish the requests in progress."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn

from mrcnn.serving.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

# How long an idle connection of a client stays open, in seconds.
KEEP_ALIVE = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        host: "127.0.0.1" for this machine only, "0.0.0.0" for all networks.
        port: The port. 0 picks a free one.

    Raises:
        OSError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(
            f"The service cannot use port {port} of {host}: {getattr(error, 'strerror', None) or error}. "
            "Choose another port or host with --port or --host."
        ) from error
    return listener


def serve(
    app: "FastAPI",
    listener: socket.socket,
    *,
    settings: Settings | None = None,
    root_path: str = "",
    ready: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
) -> None:
    """Run an application until SIGINT or SIGTERM, and finish the requests in progress.

    Args:
        app: The application, from `create_app`.
        listener: A socket, from `listen`.
        settings: Read for `shutdown_seconds`.
        root_path: The path under which a proxy shows the service, such as "/nuclei".
        ready: Function to call when the service accepts requests.
        stop: Event that ends the service like a signal, for a service in a thread.
    """
    settings = settings or Settings()
    config = uvicorn.Config(
        app,
        log_level="warning",
        root_path=root_path,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(max(1, settings.shutdown_seconds)),
    )
    with listener, _signals_end_quietly():
        _Server(config, ready, stop or threading.Event()).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that reports when it is ready, and that another thread can stop."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        self.should_exit |= self._stop.is_set()
        return await super().on_tick(counter)


@contextlib.contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Ignore the signal that uvicorn raises once more at its end, for earlier handlers."""
    try:
        before = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
    except ValueError:  # signals reach the main thread only
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

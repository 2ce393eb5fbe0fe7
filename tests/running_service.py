"""A service that runs in a thread, on a port of its own."""

import contextlib
import threading

from mrcnn.serving import create_app, serve
from mrcnn.serving import server as server_module


@contextlib.contextmanager
def service(model, settings=None, name="nuclei", **options):
    """Yield the address of a running service; stop it at the end as a signal does."""
    listener = server_module.listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(model, name, settings)
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=serve, args=(app, listener), kwargs={"ready": ready.set, "stop": stop, **options}, daemon=True
    )
    thread.start()
    assert ready.wait(60)
    try:
        yield address
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()

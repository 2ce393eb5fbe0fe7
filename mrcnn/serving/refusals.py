"""Refused requests: answer with a status and one sentence, and read the rest of the upload."""

import asyncio
import contextlib
import json
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Number of bytes to read of a refused upload. A client that cannot finish sending may miss the answer.
DRAINED_BYTES = 1 << 30
DRAINED_SECONDS = 10.0


class RefusedError(Exception):
    """A request is refused.

    Args:
        status: The HTTP status.
        sentence: The reason, for the client.
        retry_after: Seconds after which to try again.
        is_uploading: Whether the client may still be sending its image.
    """

    def __init__(
        self, status: int, sentence: str, *, retry_after: int | None = None, is_uploading: bool = False
    ) -> None:
        # Decoders end their reasons without a period.
        super().__init__(sentence if sentence.endswith((".", "!", "?")) else f"{sentence}.")
        self.status = status
        self.retry_after = retry_after
        self.is_uploading = is_uploading

    def response(self) -> Response:
        """Return the answer, JSON with the reason in `detail`."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        kind = UploadRefusal if self.is_uploading else Response
        content = json.dumps({"detail": str(self)})
        return kind(content, self.status, headers, media_type="application/json")


class UploadRefusal(Response):
    """A response that is sent at once, then reads and discards the rest of the upload."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[Any] = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drain(receive), DRAINED_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    count = 0
    while count < DRAINED_BYTES:
        message = await receive()
        count += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return

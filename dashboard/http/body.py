"""Reading a request body with limits on the time it takes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from asgiref.typing import ASGIReceiveCallable

PAUSE_SECONDS = 60.0  # the longest pause between two parts of a body
MIN_BYTES_PER_SECOND = 1000.0  # after the first minute, so that slow clients can't hold connections and files open
LINGER_SECONDS = 2.0  # how long `drain` reads


class ClientDisconnectedError(Exception):
    """The client closed the connection before the body was complete."""


class SlowBodyError(Exception):
    """The body arrived too slowly."""


class RequestBody:
    """The body of an ASGI request, read in chunks."""

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._has_more = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the chunks that haven't been read yet. Raises ClientDisconnectedError and SlowBodyError."""
        deadline = time.monotonic() + PAUSE_SECONDS
        while self._has_more:
            try:
                async with asyncio.timeout(max(0.0, min(PAUSE_SECONDS, deadline - time.monotonic()))):
                    message = await self._receive()
            except TimeoutError:
                raise SlowBodyError from None
            if message["type"] != "http.request":
                raise ClientDisconnectedError
            chunk = message.get("body", b"")
            deadline += len(chunk) / MIN_BYTES_PER_SECOND
            self._has_more = message.get("more_body", False)
            if chunk:
                yield chunk

    async def drain(self) -> None:
        """Read and discard the rest for up to LINGER_SECONDS.

        Closing the connection while the client is still sending would discard the response.
        """
        with suppress(TimeoutError, ClientDisconnectedError, SlowBodyError):
            async with asyncio.timeout(LINGER_SECONDS):
                async for _ in self.chunks():
                    pass

"""The client's side of a request in a plain ASGI application: what it sends, and whether it is still there."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DISCONNECT_CHECK_SECONDS = 0.5  # an answer may take this long before it is asked whether the client still waits for it


class ClientDisconnectedError(Exception):
    """The client has left; nobody reads an answer."""


async def receive_body_part(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    """Return the next message of the body. Raises ClientDisconnectedError, or TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    return message


class CancelOnDisconnect:
    """Cancel the enclosed block when the client disconnects, and raise ClientDisconnectedError.

    It only looks when the answer takes longer than DISCONNECT_CHECK_SECONDS: most are there before.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> None:
        self._request = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(DISCONNECT_CHECK_SECONDS, self._start)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watching:
            self._watching.cancel()
        if self._gone and self._request and kind is asyncio.CancelledError:
            self._request.uncancel()
            raise ClientDisconnectedError from None

    def _start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._request:
            self._request.cancel()

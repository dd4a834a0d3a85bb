"""The client's side of a request in a plain ASGI application: what it sends, and whether it is still there."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOK_SECONDS = 0.5  # an answer may take this long before it is asked whether the client still waits for it


class Gone(Exception):
    """The client has left; nobody reads an answer."""


async def next_part(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    """The next message with a part of the body. Raises Gone, or TimeoutError when none comes for so long."""
    async with asyncio.timeout(seconds):
        message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message


class WhileWaited:
    """Gives up what it surrounds (by Gone) when the client leaves, so that the service need not work for nobody.

    It only looks when the answer takes longer than LOOK_SECONDS: most are there before.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> None:
        self._request = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._start)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watching:
            self._watching.cancel()
        if self._gone and self._request and kind is asyncio.CancelledError:
            self._request.uncancel()
            raise Gone from None

    def _start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._request:
            self._request.cancel()

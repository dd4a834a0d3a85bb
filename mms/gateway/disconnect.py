"""Reading a request's body in a plain ASGI application, and noticing when the client disconnects."""

import asyncio

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent

DISCONNECT_CHECK_SECONDS = 0.5  # start watching the client once a response takes longer than this


class ClientDisconnectedError(Exception):
    """The client disconnected, so no response can be sent."""


async def receive_body_part(receive: ASGIReceiveCallable, seconds: float) -> ASGIReceiveEvent:
    """Return the next message of the body. Raises ClientDisconnectedError, or TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    return message


class CancelOnDisconnect:
    """Cancel the enclosed block when the client disconnects, and raise ClientDisconnectedError.

    Starts watching only after DISCONNECT_CHECK_SECONDS: most responses arrive earlier, and watching costs a task.
    """

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._has_disconnected = False

    async def __aenter__(self) -> None:
        self._request = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(DISCONNECT_CHECK_SECONDS, self._start_watcher)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watcher:
            self._watcher.cancel()
        if self._has_disconnected and self._request and kind is asyncio.CancelledError:
            self._request.uncancel()
            raise ClientDisconnectedError from None

    def _start_watcher(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_disconnected = True
        if self._request:
            self._request.cancel()

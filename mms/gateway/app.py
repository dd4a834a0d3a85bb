"""The gateway as an ASGI application, mounted in the web server for scoring URLs that name its port.

The gateway's own program (`python -m mms.gateway`) serves new scoring URLs. It doesn't use this module.
"""

import asyncio

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, HTTPScope, Scope

from mms.gateway.forward import (
    BODY_IDLE_SECONDS,
    CONTENT_TYPES,
    SECURITY_HEADERS,
    Answer,
    Gateway,
    GatewayError,
    Target,
    body_timed_out,
)
from mms.gateway.request import RequestHead

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


class GatewayApp:
    """The ASGI application for all paths below /scoring."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": None})
        elif scope["type"] == "http":
            head = _read_head(scope)
            try:
                answer = self._gateway.answer_directly(head) or await self._score(head, receive)
            except GatewayError as error:
                answer = error.answer
            except ClientDisconnectedError:
                return
            await self._send(send, head, answer)

    async def _score(self, head: RequestHead, receive: ASGIReceiveCallable) -> Answer:
        """Return the service's response. Raises GatewayError or ClientDisconnectedError."""
        target = self._gateway.admit(head)
        body = await self._read_body(target, head, receive)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._gateway.buffered_bytes += len(body)
        call = self._gateway.forward(target, head, body, answer.set_result)
        try:
            async with CancelOnDisconnect(receive):
                return await answer
        except BaseException:
            call.cancel()
            raise
        finally:
            self._gateway.buffered_bytes -= len(body)

    async def _read_body(self, target: Target, head: RequestHead, receive: ASGIReceiveCallable) -> bytes:
        """Return the request's body, at most as large as the route allows."""
        parts: list[bytes] = []
        size, has_more = 0, True
        try:
            while has_more:
                event = await receive_body_part(receive, BODY_IDLE_SECONDS)
                if event["type"] != "http.request":
                    continue
                if part := event.get("body", b""):
                    size += len(part)
                    parts.append(part)
                self._gateway.check_size(target, size)
                has_more = event.get("more_body", False)
        except TimeoutError:
            error = body_timed_out()
            self._gateway.observe(head, error.answer.status)
            raise error from None
        except GatewayError as error:
            self._gateway.observe(head, error.answer.status)
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, send: ASGISendCallable, head: RequestHead, answer: Answer) -> None:
        headers = [(b"content-type", CONTENT_TYPES[answer.kind]), *SECURITY_HEADERS, *answer.headers]
        headers += [*self._gateway.origin_headers(head), (b"content-length", str(len(answer.body)).encode())]
        body = b"" if head.method == "HEAD" else answer.body
        await send({"type": "http.response.start", "status": answer.status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _read_head(scope: HTTPScope) -> RequestHead:
    client_host, _ = scope.get("client") or ("", 0)
    head = RequestHead(client_host)
    head.method, head.path = scope["method"], scope["path"]
    for name, value in scope["headers"]:
        head.add(name, value)
    return head

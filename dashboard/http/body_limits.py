"""Limits on the size and duration of request bodies, applied before Django reads them.

Otherwise, Django would write a body of any length to disk, however slowly it arrives, before it checks the sender.

BodyLimit limits each body, and BodyBudget all unfinished bodies together: a form is buffered completely before its
sender is known, so anyone could fill the memory with many connections.
"""

import ipaddress
import json
from collections import Counter

from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPDisconnectEvent,
    HTTPRequestEvent,
    HTTPScope,
    Scope,
)
from django.conf import settings
from django.template.loader import render_to_string

from dashboard.http import asgi, problems
from dashboard.http.body import ClientDisconnectedError, RequestBody, SlowBodyError

TOO_LARGE = "The request body is larger than this site accepts. Nothing was changed."
TOO_SLOW = "The request was too slow. Nothing was changed. Go back and send it again."
BUSY = "This site is receiving too many large requests at the moment. Nothing was changed. Try again in a minute."
TOO_MANY = "Your address is sending too many large requests at once. Nothing was changed. Try again in a minute."
RETRY_SECONDS = 60  # until an incomplete body is rejected; see PAUSE_SECONDS in body.py
MAX_TOTAL_BYTES = 32 * 1024**2  # of all unfinished bodies that this process holds
MAX_ADDRESS_BYTES = 8 * 1024**2  # of those from one address, which can be a proxy or the office of a team
FREE_BYTES = 16 * 1024  # of each body aren't counted, so that small forms, such as sign-in, always work


class LargeBodyError(Exception):
    """The body exceeds DATA_UPLOAD_MAX_MEMORY_SIZE."""


class BodyLimit:
    """ASGI middleware that reads each request body up to the limits and passes it on as one message."""

    def __init__(self, application: ASGI3Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return await self._application(scope, receive, send)
        body = RequestBody(receive)
        try:
            content = await _read(body)
        except ClientDisconnectedError:
            return None
        except (LargeBodyError, SlowBodyError) as error:
            status = 413 if isinstance(error, LargeBodyError) else 408
            await _send_error(send, status, as_json=scope["path"].startswith(problems.API_PREFIX))
            await body.drain()
            return await asgi.end_response(send)
        return await self._application(scope, _replay(content, receive), send)


class BodyBudget:
    """ASGI middleware that limits the bytes that unfinished bodies occupy, in total and per address.

    One instance is shared by all applications of a process. `holding` wraps an application that holds at most
    `max_bytes` of a body in memory.
    """

    def __init__(self, total: int = MAX_TOTAL_BYTES, per_address: int = MAX_ADDRESS_BYTES) -> None:
        self.total, self.per_address = total, per_address
        self.held: Counter[str] = Counter()  # bytes by address

    def holding(self, max_bytes: int, application: ASGI3Application) -> ASGI3Application:
        """Return the application, with its bodies counted."""

        async def limited(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            body = _CountedBody(self, scope, receive, send, max_bytes)
            try:
                await application(scope, body.receive, body.send)
            finally:
                body.release()
            if body.is_refused:
                await RequestBody(receive).drain()
                await asgi.end_response(send)

        return limited

    def refusal(self, address: str, size: int) -> int:
        """Return the status for a body that would occupy `size` more bytes; 0 if there is room."""
        if self.held[address] + size > self.per_address:
            return 429
        return 503 if self.held.total() + size > self.total else 0


class _CountedBody:
    """The body of one request. It is refused, and the application sees a disconnect, once the budget is exceeded."""

    def __init__(
        self,
        budget: BodyBudget,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        max_bytes: int,
    ) -> None:
        self._budget, self._scope, self._receive, self._send = budget, scope, receive, send
        self._address = address_group(scope)
        self._max_bytes, self._received, self._held = max_bytes, 0, 0
        self.is_refused = False

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message."""
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        self._received += len(message.get("body", b""))
        size = min(self._received, self._max_bytes) - FREE_BYTES - self._held
        if size <= 0:
            return message
        if status := self._budget.refusal(self._address, size):
            self.is_refused = True
            await _send_refusal(self._send, status, self._scope["path"])
            disconnect: HTTPDisconnectEvent = {"type": "http.disconnect"}
            return disconnect
        self._held += size
        self._budget.held[self._address] += size
        return message

    async def send(self, event: ASGISendEvent) -> None:
        """Pass on what the application sends, unless its request was refused."""
        if not self.is_refused:
            await self._send(event)

    def release(self) -> None:
        """Return the bytes to the budget."""
        self._budget.held[self._address] -= self._held
        if not self._budget.held[self._address]:
            del self._budget.held[self._address]


def address_group(scope: HTTPScope) -> str:
    """Return the client's address; for IPv6 its /64 network, because a client can use any address in it."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


async def _send_refusal(send: ASGISendCallable, status: int, path: str) -> None:
    """Send the headers and the text of the error, in the format of the interface."""
    message = TOO_MANY if status == 429 else BUSY
    if path.startswith(problems.API_PREFIX):
        text = json.dumps(problems.error_body(status, message))
    elif path.startswith(("/api/", "/uploads/")):
        code = problems.CODES[status]
        text = json.dumps({"error": {"code": code, "message": message, "details": []}})
    else:
        text = message + "\n"
    await _send_text(send, status, text, "text/plain" if text.startswith(message) else "application/json")


async def _send_text(send: ASGISendCallable, status: int, text: str, content_type: str) -> None:
    """Send the headers and the body, and ask the client to close the connection. The caller ends the response."""
    headers = {"content-type": f"{content_type}; charset=utf-8", "connection": "close", "cache-control": "no-store"}
    headers |= {"content-length": str(len(text.encode())), "x-content-type-options": "nosniff"}
    if status in {429, 503}:
        headers["retry-after"] = str(RETRY_SECONDS)
    await asgi.start_response(send, status, [(name.encode(), value.encode()) for name, value in headers.items()])
    await asgi.send_chunk(send, text.encode())


async def _read(body: RequestBody) -> bytes:
    """Return the whole body. Raises ClientDisconnectedError, LargeBodyError and SlowBodyError."""
    content = bytearray()
    async for chunk in body.chunks():
        content += chunk
        if len(content) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise LargeBodyError
    return bytes(content)


def _replay(content: bytes, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """Replay the buffered body as one ASGI message, then pass through (normally http.disconnect)."""
    messages: list[HTTPRequestEvent] = [{"type": "http.request", "body": content, "more_body": False}]

    async def next_message() -> ASGIReceiveEvent:
        return messages.pop() if messages else await receive()

    return next_message


async def _send_error(send: ASGISendCallable, status: int, *, as_json: bool) -> None:
    if as_json:
        text = json.dumps(problems.error_body(status, TOO_LARGE if status == 413 else TOO_SLOW))
        content_type = "application/json"
    elif status == 413:
        text, content_type = render_to_string("413.html"), "text/html"
    else:
        text, content_type = TOO_SLOW + "\n", "text/plain"
    await _send_text(send, status, text, content_type)

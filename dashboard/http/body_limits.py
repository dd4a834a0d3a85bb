"""Limits on the size and duration of request bodies, applied before Django reads them.

Otherwise, Django would write a body of any length to disk, however slowly it arrives, before it checks the sender.
"""

import json

from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    HTTPRequestEvent,
    Scope,
)
from django.conf import settings
from django.template.loader import render_to_string

from dashboard.http import asgi, problems
from dashboard.http.body import ClientDisconnectedError, RequestBody, SlowBodyError

TOO_LARGE = "The request body is larger than this site accepts. Nothing was changed."
TOO_SLOW = "The request was too slow. Nothing was changed. Go back and send it again."


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
    headers = {"content-type": f"{content_type}; charset=utf-8", "connection": "close", "cache-control": "no-store"}
    headers |= {"content-length": str(len(text.encode())), "x-content-type-options": "nosniff"}
    await asgi.start_response(send, status, [(name.encode(), value.encode()) for name, value in headers.items()])
    await asgi.send_chunk(send, text.encode())

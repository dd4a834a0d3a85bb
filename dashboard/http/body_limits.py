"""What is sent to pages, read before Django sees it: no longer than a form of this site is, and not for ever.

Django itself would write a body of any length to the disk, as slowly as it comes, before it asks who sends it.
"""

import json
from collections.abc import MutableMapping
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string

from dashboard.api import errors as problems
from dashboard.files.multipart import Application, Body, Gone, Receive, Refused, Send

TOO_LONG = "The request body is larger than this site accepts, so nothing was done."
TOO_SLOW = "The request was too slow, so nothing was done. Go back and send it again.\n"


class Bounded:
    """An ASGI application in front of `pages`."""

    def __init__(self, pages: Application) -> None:
        self._pages = pages

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._pages(scope, receive, send)
        body = Body(receive)
        try:
            content = await _content(body)
        except Gone:
            return
        except Refused as refusal:
            await _answer(send, refusal.status, str(scope["path"]).startswith(problems.PREFIX))
            await body.throw_away()
            return await send({"type": "http.response.body", "body": b""})
        await self._pages(scope, _replay(content, receive), send)


async def _content(body: Body) -> bytes:
    """All of it. Raises Gone, and Refused where it is too long or too slow."""
    content = bytearray()
    async for part in body.parts():
        content += part
        if len(content) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise Refused(413, "too_large", "This request is too large.")
    return bytes(content)


def _replay(content: bytes, receive: Receive) -> Receive:
    """The whole body as one message; then whatever still comes, which is word of the client's leaving."""
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": content, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return next_message


async def _answer(send: Send, status: int, as_json: bool) -> None:
    kind, text = ("text/html", render_to_string("413.html")) if status == 413 else ("text/plain", TOO_SLOW)
    if as_json:
        kind, text = (
            "application/json",
            json.dumps(problems.body(status, TOO_LONG if status == 413 else TOO_SLOW.strip())),
        )
    headers = {"content-type": f"{kind}; charset=utf-8", "connection": "close", "cache-control": "no-store"}
    headers |= {"content-length": str(len(text.encode())), "x-content-type-options": "nosniff"}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

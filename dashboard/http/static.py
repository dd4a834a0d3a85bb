"""Static files, answered in front of Django: no page should wait for its stylesheet behind sessions and threads.

WhiteNoise knows the files, their compressed forms and their headers; ours are small, so each is one piece.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from whitenoise.middleware import WhiteNoiseMiddleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ASKED = {
    b"accept-encoding": "HTTP_ACCEPT_ENCODING",
    b"if-none-match": "HTTP_IF_NONE_MATCH",
    b"if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    b"range": "HTTP_RANGE",
}


class StaticFiles:
    """An ASGI application for what lies below STATIC_URL; what it does not know is up to `otherwise`."""

    def __init__(self, otherwise: Application) -> None:
        self._known = WhiteNoiseMiddleware(None)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        find = self._known.find_file if self._known.autorefresh else self._known.files.get
        found = find(scope["path"])
        if found is None:
            return await self._otherwise(scope, receive, send)
        asked = {ASKED[name]: value.decode("latin-1") for name, value in scope["headers"] if name in ASKED}
        answer = found.get_response(scope["method"], asked)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
        headers.append((b"x-content-type-options", b"nosniff"))
        content = b""
        if answer.file is not None:
            with answer.file:
                content = answer.file.read()
        await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
        await send({"type": "http.response.body", "body": content})

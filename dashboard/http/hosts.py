"""Parts in front of Django answer to the hosts of ALLOWED_HOSTS only, as Django does, and say so in words.

Not the MMS API, the gateway and files: their callers show a token or a key, and call them by names of their own.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dashboard.auth.request_user import header, is_known_host

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class KnownHosts:
    """`part` for requests that name a known host; 400 for others."""

    def __init__(self, part: Application) -> None:
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_known_host(scope):
            return await self._part(scope, receive, send)
        text = f"Unknown host {header(scope, b'host')[:100]!r}. To serve it, add it to ALLOWED_HOSTS.\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

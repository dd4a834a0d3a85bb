"""Host and origin of a request to the ASGI applications in front of Django.

Like Django, they serve only the hosts in ALLOWED_HOSTS. The MMS API, the gateway and file downloads are exempt, because
their callers authenticate with a token or a key and may use other host names.
"""

from urllib.parse import urlsplit

from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from dashboard.http import asgi
from dashboard.http.asgi import header


def is_known_host(scope: HTTPScope) -> bool:
    """Return True if ALLOWED_HOSTS includes the host of the request."""
    domain, _ = split_domain_port(header(scope, b"host"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_same_origin(scope: HTTPScope) -> bool:
    """Return True if the browser reports that a page of this site sent the request, False if unknown."""
    if site := header(scope, b"sec-fetch-site"):
        return site == "same-origin"
    origin = header(scope, b"origin") or header(scope, b"referer")
    if not origin:
        return False
    parts = urlsplit(origin)
    return parts.netloc == header(scope, b"host") or f"{parts.scheme}://{parts.netloc}" in settings.CSRF_TRUSTED_ORIGINS


class AllowedHostsMiddleware:
    """ASGI middleware that responds with 400 to requests for a host that isn't in ALLOWED_HOSTS."""

    def __init__(self, application: ASGI3Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http" or is_known_host(scope):
            return await self._application(scope, receive, send)
        host = header(scope, b"host")[:100]
        text = f"Unknown host {host!r}. To serve it, add it to ALLOWED_HOSTS.\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        return await asgi.send_response(send, 400, headers, text.encode())

"""Static files, served in front of Django, so that a stylesheet never waits for middleware or a free thread.

WhiteNoise provides the files, compressed variants and headers. The files are small, so each is sent in one piece.
"""

from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from whitenoise.middleware import WhiteNoiseMiddleware

from dashboard.http import asgi

# The request headers that WhiteNoise reads, with their names in WSGI.
WSGI_NAMES = {
    b"accept-encoding": "HTTP_ACCEPT_ENCODING",
    b"if-none-match": "HTTP_IF_NONE_MATCH",
    b"if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    b"range": "HTTP_RANGE",
}


class StaticFiles:
    """ASGI application for the files below STATIC_URL. Passes other paths to `fallback`."""

    def __init__(self, fallback: ASGI3Application) -> None:
        self._whitenoise = WhiteNoiseMiddleware(None)
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return await self._fallback(scope, receive, send)
        find = self._whitenoise.find_file if self._whitenoise.autorefresh else self._whitenoise.files.get
        static_file = find(scope["path"])
        if static_file is None:
            return await self._fallback(scope, receive, send)
        request_headers = {
            WSGI_NAMES[name]: value.decode("latin-1") for name, value in scope["headers"] if name in WSGI_NAMES
        }
        response = static_file.get_response(scope["method"], request_headers)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers]
        headers.append((b"x-content-type-options", b"nosniff"))
        content = b""
        if response.file is not None:
            with response.file:
                content = response.file.read()
        return await asgi.send_response(send, int(response.status), headers, content)

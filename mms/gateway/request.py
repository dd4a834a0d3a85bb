"""The head of a request to the gateway: what the gateway needs of it, collected header by header."""

import time
from hashlib import sha256
from urllib.parse import unquote

# Request headers that services receive. Credentials, cookies and hop-by-hop headers are dropped.
FORWARDED_HEADERS = frozenset({b"content-type", b"content-encoding", b"x-request-id", b"traceparent", b"tracestate"})
PROXY_HEADERS = frozenset({b"forwarded", b"x-real-ip", b"via", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip"})
# The response to a preflight request, by which a browser asks whether a page of another origin may call a service.
PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-allow-headers", b"authorization, " + b", ".join(sorted(FORWARDED_HEADERS))),
    (b"access-control-max-age", b"600"),
]


class RequestHead:
    """Method, path and relevant headers of a request."""

    __slots__ = (
        "authorization",
        "client_host",
        "content_length",
        "expects_continue",
        "forwarded",
        "host",
        "is_chunked",
        "is_proxied",
        "method",
        "origin",
        "path",
        "requested_method",
        "service_id",
        "started",
    )

    def __init__(self, client_host: str = "") -> None:
        self.client_host = client_host
        self.started = time.perf_counter()
        self.method = ""
        self.path = ""  # without the query
        self.service_id = ""  # once the service is known
        self.host = self.authorization = self.origin = self.requested_method = b""
        self.content_length = 0
        self.expects_continue = self.is_chunked = False
        self.is_proxied = False
        self.forwarded = b""  # lines for the request to the service

    def add(self, name: bytes, value: bytes) -> None:
        """Record a header; `name` is in lower case. Of several headers with one name, the first counts."""
        if name in FORWARDED_HEADERS:
            self.forwarded += b"%s: %s\r\n" % (name, value)
        elif name == b"authorization":
            self.authorization = self.authorization or value
        elif name == b"content-length":
            self.content_length = int(value) if value.isdigit() and len(value) < 20 else 0
        elif name == b"transfer-encoding":
            self.is_chunked = True
        elif name == b"host":
            self.host = self.host or value
        elif name == b"origin":
            self.origin = self.origin or value
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif name == b"access-control-request-method":
            self.requested_method = value
        elif name in PROXY_HEADERS or name.startswith(b"x-forwarded-"):
            self.is_proxied = True

    def set_target(self, url: bytes) -> None:
        """Set the path from the request line, which has a path or, for proxies, a URL."""
        if not url.startswith(b"/"):
            url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
        path = url.partition(b"?")[0].decode("latin-1")
        self.path = unquote(path) if "%" in path else path

    def bearer_digest(self) -> bytes:
        """Return the SHA-256 digest of the bearer token in hex, or b"" if there is none."""
        kind, _, token = self.authorization.partition(b" ")
        token = token.strip()
        return sha256(token).hexdigest().encode() if token and kind.lower() == b"bearer" else b""

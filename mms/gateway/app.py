"""The gateway: one stable scoring URL per service.

A plain ASGI application without Django, mounted in front of it or run as a separate program (`python -m mms.gateway`).
It knows only routes and keys. A model's response never becomes a page on our origin: it is sent as sandboxed JSON, and
no cookies or credentials are forwarded in either direction.
"""

import hmac
import ipaddress
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from mms.gateway import upstream
from mms.gateway.disconnect import CancelOnDisconnect, ClientDisconnectedError, receive_body_part
from mms.gateway.metrics import Metrics
from mms.gateway.route_cache import RouteCache, RouteUnreadableError
from mms.gateway.routes import Route

Headers = list[tuple[bytes, bytes]]

BODY_IDLE_SECONDS = 30.0  # maximum pause while a client sends a body
MAX_BUFFERED_BYTES = 256 * 1024**2  # of all bodies held at the same time
# Allowed statuses of a service. 1xx, 204, 205 and 304 have no body: bytes that a driver sent along would be read as the
# next response of this origin. A redirect would send our clients to another site.
ALLOWED_STATUSES = frozenset({200, 201, 202, 203, *range(400, 600)})
METHODS = {b"": ("GET", "HEAD"), b"score": ("POST",), b"swagger.json": ("GET", "HEAD")}
# Request headers that services receive. Credentials, cookies and hop-by-hop headers are dropped.
FORWARDED_HEADERS = frozenset({b"content-type", b"content-encoding", b"x-request-id", b"traceparent", b"tracestate"})
SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
JSON_HEADERS: Headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]
PROXY_HEADERS = frozenset({b"forwarded", b"x-real-ip", b"via", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip"})
HEALTHY = b'{"ok": true, "parts": {"gateway": "works"}}'
_CLOSE_CONNECTION = (b"connection", b"close")  # the rest of the request is not read
_RETRY_SOON = (b"retry-after", b"1")
log = logging.getLogger(__name__)


class GatewayError(Exception):
    """An error response of the gateway itself."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status, self.headers = status, list(headers)
        self.body = json.dumps({"error": {"code": code, "message": message}}).encode()


class Gateway:
    """The ASGI application for all paths below `prefix`."""

    def __init__(self, routes: Path, prefix: str = "/scoring", metrics_token: str | None = None) -> None:
        """Serve the routes in the folder `routes`.

        `metrics_token` is the bearer token for {prefix}/metrics; it defaults to the environment variable METRICS_TOKEN.
        """
        self._routes = RouteCache(routes)
        self._prefix = prefix.rstrip("/") + "/"
        self._metrics_token = os.environ.get("METRICS_TOKEN", "") if metrics_token is None else metrics_token
        self._metrics = Metrics()
        self._pool = upstream.Pool()
        self._buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle one request, or the lifespan of the process."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": None})
        else:
            await self._respond(scope, receive, send)

    async def _respond(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["path"] == "/healthz":
            return await _send(send, 200, HEALTHY, JSON_HEADERS, len(HEALTHY))
        service_id, _, rest = scope["path"].removeprefix(self._prefix).partition("/")
        if service_id == "metrics" and not rest:
            return await self._send_metrics(scope, send)
        started = time.perf_counter()
        known_id = ""
        try:
            route = self._find_route(service_id)
            known_id = service_id
            status, body, headers = await self._score(route, rest.rstrip("/"), scope, receive)
        except GatewayError as error:
            status, body, headers = error.status, error.body, error.headers
        except ClientDisconnectedError:
            return None
        self._metrics.observe(known_id, status, time.perf_counter() - started)
        sent = b"" if scope["method"] == "HEAD" else body
        return await _send(send, status, sent, [*JSON_HEADERS, *headers], len(body))

    def _find_route(self, service_id: str, fresh: bool = False) -> Route:
        try:
            route = self._routes.find(service_id, fresh)
        except RouteUnreadableError:
            message = (
                "The service's route couldn't be read. Retry in a second; if it fails again, check the server's log."
            )
            raise GatewayError(503, "NoRoute", message, [_RETRY_SOON]) from None
        if route is None:
            message = "No service has this id. Check the scoring URL on the service's page."
            raise GatewayError(404, "NotFound", message, [_CLOSE_CONNECTION])
        return route

    async def _score(
        self, route: Route, path: str, scope: HTTPScope, receive: ASGIReceiveCallable
    ) -> tuple[int, bytes, Headers]:
        """Return the service's status, body and headers. Raises GatewayError or ClientDisconnectedError."""
        _check_path(path, scope["method"])
        _check_key(route, scope)
        body = await self._read_body(route, scope, receive)
        self._buffered_bytes += len(body)
        try:
            async with CancelOnDisconnect(receive):
                response = await self._request(route, path, scope, body)
        finally:
            self._buffered_bytes -= len(body)
        if response.status not in ALLOWED_STATUSES:
            reason = f"{route.name} responded with status {response.status}, which the gateway doesn't forward."
            raise GatewayError(502, "BadAnswer", f"{reason} Check the service's log.")
        retry = response.headers.get(b"retry-after", b"")
        headers = [(b"retry-after", retry)] if re.fullmatch(rb"[0-9]{1,5}", retry) else []
        return response.status, response.body, headers

    async def _read_body(self, route: Route, scope: HTTPScope, receive: ASGIReceiveCallable) -> bytes:
        """Return the request's body, at most as large as the route allows."""
        limit = route.body_max_bytes
        message = f"The request body is larger than {limit} bytes, the limit of this service. Send a smaller body."
        too_large = GatewayError(413, "BodyTooLarge", message, [_CLOSE_CONNECTION])
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length) > limit:
            raise too_large
        if self._buffered_bytes > MAX_BUFFERED_BYTES:
            message = "Too many large requests are in progress. Retry in a second."
            raise GatewayError(503, "Busy", message, [_RETRY_SOON, _CLOSE_CONNECTION])
        parts: list[bytes] = []
        size, has_more = 0, True
        while has_more:
            try:
                event = await receive_body_part(receive, BODY_IDLE_SECONDS)
            except TimeoutError:
                message = f"No more of the request body arrived for {BODY_IDLE_SECONDS:g} s. Send the request again."
                raise GatewayError(408, "TimedOut", message, [_CLOSE_CONNECTION]) from None
            if event["type"] != "http.request":
                continue
            if part := event.get("body", b""):
                size += len(part)
                parts.append(part)
            if size > limit:
                raise too_large
            has_more = event.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _request(self, route: Route, path: str, scope: HTTPScope, body: bytes) -> upstream.Response:
        request = _encode_request(route, path, scope, self._prefix, body)
        is_repeatable = path != "score"
        try:
            try:
                return await self._pool.request(route.address, request, route.timeout, is_repeatable=is_repeatable)
            except upstream.NotSentError:
                # An update may have moved the service since its route was cached.
                newer = self._find_route(route.service_id, fresh=True)
                if newer.address == route.address:
                    raise
                return await self._pool.request(newer.address, request, newer.timeout, is_repeatable=is_repeatable)
        except upstream.UpstreamTimeoutError:
            message = f"{route.name} didn't respond within {route.timeout:g} s. Retry, or check the service's log."
            raise GatewayError(504, "TimedOut", message) from None
        except upstream.NotSentError as error:
            log.warning("Service %s, revision %s: %s.", route.service_id, route.revision, error)
            message = f"{route.name} isn't running and is being restarted. Retry in a second."
            raise GatewayError(503, "ServiceUnavailable", message, [_RETRY_SOON]) from None
        except upstream.BrokenConnectionError as error:
            log.warning("Service %s, revision %s: %s.", route.service_id, route.revision, error)
            message = f"{route.name} stopped while processing this request. Check the service's log before you retry."
            raise GatewayError(502, "BadAnswer", message) from None

    async def _send_metrics(self, scope: HTTPScope, send: ASGISendCallable) -> None:
        if not self._can_read_metrics(scope):
            message = (
                "Metrics are available only from this machine, by the host name localhost, or with METRICS_TOKEN. "
                "Send the token in the header Authorization: Bearer <token>."
            )
            error = GatewayError(403, "Forbidden", message)
            return await _send(send, error.status, error.body, JSON_HEADERS, len(error.body))
        self._metrics.retain(self._is_routed)
        body = self._metrics.render()
        content_type = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        return await _send(send, 200, body, [content_type, *SECURITY_HEADERS], len(body))

    def _is_routed(self, service_id: str) -> bool:
        try:
            return self._routes.find(service_id) is not None
        except RouteUnreadableError:
            return True

    def _can_read_metrics(self, scope: HTTPScope) -> bool:
        if self._metrics_token and _are_equal(_bearer_digest(scope), _digest(self._metrics_token)):
            return True
        # Behind a proxy on this machine every client seems to be local. A proxy shows in the headers that it adds, or
        # in the host name that its clients requested.
        client_host, _ = scope.get("client") or ("", 0)
        is_proxied = any(name in PROXY_HEADERS or name.startswith(b"x-forwarded-") for name, _ in scope["headers"])
        requested = re.sub(rb":[0-9]+$", b"", _header(scope, b"host")).strip(b"[]").decode("latin-1")
        return not is_proxied and _is_loopback(client_host) and (requested == "localhost" or _is_loopback(requested))

    async def _run_lifespan(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                self._pool.close()
                return


def _check_path(path: str, method: str) -> None:
    """Raise GatewayError unless services serve `path` with `method`."""
    methods = METHODS.get(path.encode())
    if methods is None:
        message = "Services have no such path. Use /score, /swagger.json or the service's own address."
        raise GatewayError(404, "NotFound", message, [_CLOSE_CONNECTION])
    if method not in methods:
        allowed = ", ".join(methods)
        headers = [(b"allow", allowed.encode()), _CLOSE_CONNECTION]
        raise GatewayError(405, "MethodNotAllowed", f"This path doesn't support {method}. Use {allowed}.", headers)


def _check_key(route: Route, scope: HTTPScope) -> None:
    """Raise GatewayError unless the request has one of the route's keys. Compares all digests in constant time."""
    sent = _bearer_digest(scope)
    matches = [_are_equal(sent, digest) for digest in route.key_digests]
    if not any(matches):
        message = f"This request has no valid key for {route.name}. Send one in the header Authorization: Bearer <key>."
        raise GatewayError(401, "Unauthorized", message, [(b"www-authenticate", b"Bearer"), _CLOSE_CONNECTION])


def _bearer_digest(scope: HTTPScope) -> str:
    """Return the digest of the request's bearer token, or "" if it has none."""
    kind, _, token = _header(scope, b"authorization").partition(b" ")
    return sha256(token.strip()).hexdigest() if kind.lower() == b"bearer" and token.strip() else ""


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _are_equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode(), expected.encode())


def _header(scope: HTTPScope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _encode_request(route: Route, path: str, scope: HTTPScope, prefix: str, body: bytes) -> bytes:
    """Return the bytes of the request to the service. HEAD becomes GET, so the parser can trust the length."""
    method = "POST" if path == "score" else "GET"
    lines = [
        f"{method} /{path} HTTP/1.1\r\nhost: {route.service_id}\r\ncontent-length: {len(body)}\r\n".encode(),
        f"x-forwarded-prefix: {prefix}{route.service_id}\r\n".encode(),
    ]
    lines += [b"%s: %s\r\n" % pair for pair in scope["headers"] if pair[0] in FORWARDED_HEADERS]
    return b"".join([*lines, b"\r\n", body])


async def _send(send: ASGISendCallable, status: int, body: bytes, headers: Headers, length: int) -> None:
    headers = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": body, "more_body": False})

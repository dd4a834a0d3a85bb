"""The gateway: one stable scoring URL per service.

A plain ASGI application without Django, mounted in front of it or run alone (`python -m mms.gateway`). It knows routes
and keys, nothing else. A model's answer never becomes a page on our origin: whatever the service says goes out as
JSON_HEADERS, sandboxed, and no cookie or credential passes in either direction.
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

from mms.gateway import upstream
from mms.gateway.disconnect import CancelOnDisconnect, ClientDisconnectedError, Receive, Scope, Send, receive_body_part
from mms.gateway.metrics import Metrics
from mms.gateway.route_cache import RouteCache, RouteUnreadableError
from mms.gateway.routes import Route

Headers = list[tuple[bytes, bytes]]

BODY_IDLE_SECONDS = 30.0  # a client may pause this long while it sends
MAX_BUFFERED_BYTES = 256 * 1024**2  # of all bodies being held at a time
# What a service may answer. 1xx, 204, 205 and 304 have no body, whatever is sent along: what a driver put there would
# be read as the next answer of this origin. A redirection would be an answer of ours that leads elsewhere.
ALLOWED_STATUSES = frozenset({200, 201, 202, 203, *range(400, 600)})
METHODS = {b"": ("GET", "HEAD"), b"score": ("POST",), b"swagger.json": ("GET", "HEAD")}
# Everything else a client sends stays here: credentials, cookies and what concerns one connection only.
FORWARDED_HEADERS = frozenset({b"content-type", b"content-encoding", b"x-request-id", b"traceparent", b"tracestate"})
SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
JSON_HEADERS: Headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]
PROXY_HEADERS = frozenset({b"forwarded", b"x-real-ip", b"via", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip"})
log = logging.getLogger(__name__)


class GatewayError(Exception):
    """The gateway's own answer instead of the service's."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status, self.headers = status, list(headers)
        self.body = json.dumps({"error": {"code": code, "message": message}}).encode()


class Gateway:
    """The ASGI application for everything below `prefix`."""

    def __init__(self, routes: Path, prefix: str = "/scoring", metrics_token: str | None = None) -> None:
        """`metrics_token`: bearer token of {prefix}/metrics; by default what METRICS_TOKEN says."""
        self._table = RouteCache(routes)
        self._prefix = prefix.rstrip("/") + "/"
        self._metrics_token = os.environ.get("METRICS_TOKEN", "") if metrics_token is None else metrics_token
        self._metrics = Metrics()
        self._pool = upstream.Pool()
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1000})
        service_id, _, rest = scope["path"].removeprefix(self._prefix).partition("/")
        if service_id == "metrics" and not rest:
            return await self._show_metrics(scope, send)
        began = time.perf_counter()
        known = ""
        try:
            route = self._find(service_id)
            known = service_id
            status, body, headers = await self._answer(route, rest.rstrip("/"), scope, receive)
        except GatewayError as failure:
            status, body, headers = failure.status, failure.body, failure.headers
        except ClientDisconnectedError:
            return
        self._metrics.observe(known, status, time.perf_counter() - began)
        if scope["method"] == "HEAD":
            await _send(send, status, b"", [*JSON_HEADERS, *headers], len(body))
        else:
            await _send(send, status, body, [*JSON_HEADERS, *headers], len(body))

    def _find(self, service_id: str, fresh: bool = False) -> Route:
        try:
            route = self._table.find(service_id, fresh)
        except RouteUnreadableError:
            message = "The service's route cannot be read now; try again."
            raise GatewayError(503, "NoRoute", message, [_RETRY_SOON]) from None
        if route is None:
            raise GatewayError(404, "NotFound", "There is no such service.", [_CLOSE_CONNECTION])
        return route

    async def _answer(self, route: Route, path: str, scope: Scope, receive: Receive) -> tuple[int, bytes, Headers]:
        """Ask the service. Raises GatewayError or ClientDisconnectedError."""
        if (methods := METHODS.get(path.encode())) is None:
            message = "A service answers at score, swagger.json and its own address."
            raise GatewayError(404, "NotFound", message, [_CLOSE_CONNECTION])
        if scope["method"] not in methods:
            allowed = ", ".join(methods)
            headers = [(b"allow", allowed.encode()), _CLOSE_CONNECTION]
            raise GatewayError(405, "MethodNotAllowed", f"Only {allowed} is answered here.", headers)
        _check_key(route, scope)
        body = await self._read(route, scope, receive)
        self._buffered += len(body)
        try:
            async with CancelOnDisconnect(receive):
                answer = await self._ask(route, path, scope, body)
        finally:
            self._buffered -= len(body)
        if answer.status not in ALLOWED_STATUSES:
            raise GatewayError(
                502, "BadAnswer", f"{route.name} answered with the status {answer.status}, which is not passed on."
            )
        retry = answer.headers.get(b"retry-after", b"")
        return answer.status, answer.body, [(b"retry-after", retry)] if re.fullmatch(rb"[0-9]{1,5}", retry) else []

    async def _read(self, route: Route, scope: Scope, receive: Receive) -> bytes:
        """The request's body, at most as large as the route allows."""
        limit = route.body_max_bytes
        too_large = GatewayError(
            413, "BodyTooLarge", f"The body is larger than the {limit} bytes allowed.", [_CLOSE_CONNECTION]
        )
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length) > limit:
            raise too_large
        if self._buffered > MAX_BUFFERED_BYTES:
            raise GatewayError(
                503, "Busy", "Too many large requests are in flight; try again.", [_RETRY_SOON, _CLOSE_CONNECTION]
            )
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                message = await receive_body_part(receive, BODY_IDLE_SECONDS)
            except TimeoutError:
                raise GatewayError(408, "TimedOut", "The rest of the body did not come.", [_CLOSE_CONNECTION]) from None
            if part := message.get("body", b""):
                size += len(part)
                parts.append(part)
            if size > limit:
                raise too_large
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _ask(self, route: Route, path: str, scope: Scope, body: bytes) -> upstream.Response:
        repeatable = path != "score"
        request = _request(route, path, scope, self._prefix, body)
        try:
            try:
                return await self._pool.request(route.address, request, route.timeout, repeatable)
            except upstream.NotSentError:
                # An update may have moved the service since the route was read.
                newer = self._find(route.service_id, fresh=True)
                if newer.address == route.address:
                    raise
                return await self._pool.request(newer.address, request, newer.timeout, repeatable)
        except upstream.UpstreamTimeoutError:
            raise GatewayError(504, "TimedOut", f"{route.name} did not answer within {route.timeout:g} s.") from None
        except upstream.NotSentError as reason:
            log.warning("service %s revision %s: %s", route.service_id, route.revision, reason)
            message = f"{route.name} is not running at the moment; it is being started again. Try again shortly."
            raise GatewayError(503, "ServiceUnavailable", message, [_RETRY_SOON]) from None
        except upstream.BrokenConnectionError as reason:
            log.warning("service %s revision %s: %s", route.service_id, route.revision, reason)
            raise GatewayError(502, "BadAnswer", f"{route.name} ended while it was working on this request.") from None

    async def _show_metrics(self, scope: Scope, send: Send) -> None:
        if not self._may_read_metrics(scope):
            failure = GatewayError(
                403, "Forbidden", "Metrics are for this machine (asked as localhost), or for METRICS_TOKEN."
            )
            return await _send(send, 403, failure.body, JSON_HEADERS, len(failure.body))
        self._metrics.retain(self._is_routed)
        body = self._metrics.render()
        plain = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        await _send(send, 200, body, [plain, *SECURITY_HEADERS], len(body))

    def _is_routed(self, service_id: str) -> bool:
        try:
            return self._table.find(service_id) is not None
        except RouteUnreadableError:
            return True

    def _may_read_metrics(self, scope: Scope) -> bool:
        if self._metrics_token and _same(_bearer(scope), _digest(self._metrics_token)):
            return True
        # A proxy on this machine makes everybody look as if they were here. It is known by what it adds, or by the
        # name that its clients asked for.
        host, _ = scope.get("client") or ("", 0)
        forwarded = any(name in PROXY_HEADERS or name.startswith(b"x-forwarded-") for name, _ in scope["headers"])
        asked = re.sub(rb":[0-9]+$", b"", _header(scope, b"host")).strip(b"[]").decode("latin-1")
        return not forwarded and _is_loopback(host) and (asked == "localhost" or _is_loopback(asked))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self._pool.close()
                return


_CLOSE_CONNECTION = (b"connection", b"close")  # the rest of the request is not read
_RETRY_SOON = (b"retry-after", b"1")


def _check_key(route: Route, scope: Scope) -> None:
    """Raise GatewayError unless the request has one of the route's keys. Compares all digests in constant time."""
    sent = _bearer(scope)
    matches = [_same(sent, digest) for digest in route.key_digests]
    if not any(matches):
        message = f"Send one of {route.name}'s keys in the header Authorization: Bearer <key>."
        raise GatewayError(401, "Unauthorized", message, [(b"www-authenticate", b"Bearer"), _CLOSE_CONNECTION])


def _bearer(scope: Scope) -> str:
    """The digest of the bearer token that was sent; of nothing when none was."""
    kind, _, token = _header(scope, b"authorization").partition(b" ")
    return sha256(token.strip()).hexdigest() if kind.lower() == b"bearer" and token.strip() else ""


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _same(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode(), expected.encode())


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _request(route: Route, path: str, scope: Scope, prefix: str, body: bytes) -> bytes:
    """The bytes of the request to the service. HEAD is asked as GET: its answer has a length the parser can trust."""
    method = "POST" if path == "score" else "GET"
    lines = [
        f"{method} /{path} HTTP/1.1\r\nhost: {route.service_id}\r\ncontent-length: {len(body)}\r\n".encode(),
        f"x-forwarded-prefix: {prefix}{route.service_id}\r\n".encode(),
    ]
    lines += [b"%s: %s\r\n" % pair for pair in scope["headers"] if pair[0] in FORWARDED_HEADERS]
    return b"".join([*lines, b"\r\n", body])


async def _send(send: Send, status: int, body: bytes, headers: Headers, length: int) -> None:
    headers = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve the gateway alone: HOST, PORT, MMS_ROUTES (a directory) and METRICS_TOKEN from the environment."""
    import uvicorn

    directory = os.environ.get("MMS_ROUTES") or Path(os.environ.get("DATA_DIR", "var")) / "mms" / "routes"
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8001"))
    uvicorn.run(Gateway(Path(directory)), host=host, port=port, access_log=False, server_header=False)

"""The gateway's handling of a request, independent of the server that received it: routes, keys, limits, forwarding."""

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mms.gateway import upstream
from mms.gateway.metrics import Metrics
from mms.gateway.request import PREFLIGHT_HEADERS, RequestHead
from mms.gateway.route_cache import RouteCache, RouteUnreadableError
from mms.gateway.routes import Route

Headers = list[tuple[bytes, bytes]]

PREFIX = "/scoring/"
BODY_IDLE_SECONDS = 30.0  # maximum pause while a client sends a body
MAX_BUFFERED_BYTES = 256 * 1024**2  # of all bodies held at the same time
# Allowed statuses of a service. 1xx, 204, 205 and 304 have no body: bytes that a driver sent along would be read as the
# next response of this origin. A redirect would send our clients to another site.
ALLOWED_STATUSES = frozenset({200, 201, 202, 203, *range(400, 600)})
METHODS = {"": ("GET", "HEAD"), "score": ("POST",), "swagger.json": ("GET", "HEAD")}
SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
CONTENT_TYPES = {
    "json": b"application/json",
    "metrics": b"text/plain; version=0.0.4; charset=utf-8",
}
HEALTHY = b'{"ok": true, "parts": {"gateway": "works"}}'
CLOSE_CONNECTION = (b"connection", b"close")  # the rest of the request is not read
_RETRY_SOON = (b"retry-after", b"1")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A response to a client. `kind` is a key of CONTENT_TYPES."""

    status: int
    body: bytes
    headers: Headers = field(default_factory=list)
    kind: str = "json"


class GatewayError(Exception):
    """An error response of the gateway itself."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        self.answer = Answer(status, body, list(headers))


@dataclass(frozen=True)
class Target:
    """A path of a service, with everything about it that stays the same between requests."""

    route: Route
    path: str
    key_digests: tuple[bytes, ...]  # in hex
    request_head: bytes  # of the request to the service, up to the value of its content-length

    @classmethod
    def prepare(cls, route: Route, path: str) -> "Target":
        """Return the target. HEAD becomes GET, so that the parser of the response can trust its length."""
        method = "POST" if path == "score" else "GET"
        head = (
            f"{method} /{path} HTTP/1.1\r\nhost: {route.service_id}\r\n"
            f"x-forwarded-prefix: {PREFIX}{route.service_id}\r\ncontent-length: "
        )
        return cls(route, path, tuple(digest.encode() for digest in route.key_digests), head.encode())

    @property
    def is_repeatable(self) -> bool:
        """True if the service may process a request twice."""
        return self.path != "score"


class Gateway:
    """Checks requests, forwards them to services, and counts the responses."""

    def __init__(
        self,
        routes: Path,
        metrics_token: str = "",
        metrics_folder: Path | None = None,
        allowed_origins: Iterable[str] = (),
    ) -> None:
        """Serve the routes in the folder `routes`.

        `metrics_token` is the bearer token for /scoring/metrics. Processes with the same `metrics_folder` report the
        sum of their metrics. `allowed_origins`: origins of browser applications that may call services; * for all.
        """
        self.pool = upstream.Pool()
        self.buffered_bytes = 0  # of all request bodies that are being received or forwarded
        self._routes = RouteCache(routes)
        self._targets: dict[tuple[str, str], Target] = {}
        self._metrics_digest = sha256(metrics_token.encode()).hexdigest().encode() if metrics_token else b""
        self._metrics = Metrics(metrics_folder)
        self._origins = frozenset(origin.lower().encode() for origin in allowed_origins)

    def close(self) -> None:
        """Close idle connections and write the metrics."""
        self.pool.close()
        self._metrics.close()

    # --- requests that need no service

    def answer_directly(self, head: RequestHead) -> Answer | None:
        """Return the response to a request that isn't for a service: health, metrics, and preflight requests."""
        if head.path == "/healthz":
            return Answer(200, HEALTHY)
        if head.path.rstrip("/") == f"{PREFIX}metrics":
            return self._render_metrics(head)
        if head.method == "OPTIONS" and head.requested_method and self._is_allowed_origin(head.origin):
            return Answer(204, b"", PREFLIGHT_HEADERS)
        return None

    def origin_headers(self, head: RequestHead) -> Headers:
        """Return the headers that let the page of an allowed origin read a response."""
        if not self._origins or not head.origin:
            return []
        if not self._is_allowed_origin(head.origin):
            return [(b"vary", b"origin")]
        exposed = (b"access-control-expose-headers", b"retry-after")
        return [(b"access-control-allow-origin", head.origin), exposed, (b"vary", b"origin")]

    def _is_allowed_origin(self, origin: bytes) -> bool:
        return bool(origin) and (b"*" in self._origins or origin.lower() in self._origins)

    def _render_metrics(self, head: RequestHead) -> Answer:
        if head.method not in {"GET", "HEAD"}:
            raise method_not_allowed(head.method, ("GET", "HEAD"))
        if not self._can_read_metrics(head):
            message = (
                "Metrics are available only from this machine, by the host name localhost, or with METRICS_TOKEN. "
                "Send the token in the header Authorization: Bearer <token>."
            )
            raise GatewayError(403, "Forbidden", message)
        return Answer(200, self._metrics.render(self._is_routed), kind="metrics")

    def _can_read_metrics(self, head: RequestHead) -> bool:
        if self._metrics_digest and hmac.compare_digest(head.bearer_digest(), self._metrics_digest):
            return True
        # Behind a proxy on this machine every client seems to be local. A proxy shows in the headers that it adds, or
        # in the host name that its clients requested.
        requested = re.sub(rb":[0-9]+$", b"", head.host).strip(b"[]").decode("latin-1")
        is_local = requested == "localhost" or _is_loopback(requested)
        return not head.is_proxied and _is_loopback(head.client_host) and is_local

    def _is_routed(self, service_id: str) -> bool:
        try:
            return self._routes.find(service_id) is not None
        except RouteUnreadableError:
            return True

    # --- requests for services

    def admit(self, head: RequestHead) -> Target:
        """Return the target of a request whose body may be read. Raises GatewayError."""
        prefix, _, rest = head.path.partition(PREFIX)
        service_id, _, path = rest.partition("/")
        path = path.rstrip("/")
        try:
            route = self._find_route("" if prefix else service_id)
            head.service_id = service_id
            target = self._find_target(route, path)
            if head.method not in METHODS[path]:
                raise method_not_allowed(head.method, METHODS[path])
            self._check_key(target, head)
            self._check_room(target, head.content_length)
        except GatewayError as error:
            self.observe(head, error.answer.status)
            raise
        return target

    def check_size(self, target: Target, size: int) -> None:
        """Raise GatewayError if a body of `size` bytes is larger than the service allows."""
        if size > (limit := target.route.body_max_bytes):
            message = f"The request body is larger than {limit} bytes, the limit of this service. Send a smaller body."
            raise GatewayError(413, "BodyTooLarge", message, [CLOSE_CONNECTION])

    def observe(self, head: RequestHead, status: int) -> None:
        """Count a response."""
        self._metrics.observe(head.service_id, status, time.perf_counter() - head.started)

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
            raise GatewayError(404, "NotFound", message, [CLOSE_CONNECTION])
        return route

    def _find_target(self, route: Route, path: str) -> Target:
        target = self._targets.get((route.service_id, path))
        if target and target.route is route:
            return target
        if path not in METHODS:
            message = "Services have no such path. Use /score, /swagger.json or the service's own address."
            raise GatewayError(404, "NotFound", message, [CLOSE_CONNECTION])
        self._targets = {key: old for key, old in self._targets.items() if self._routes.is_known(key[0])}
        target = self._targets[route.service_id, path] = Target.prepare(route, path)
        return target

    def _check_key(self, target: Target, head: RequestHead) -> None:
        """Raise GatewayError unless the request has one of the keys. Compares all digests in constant time."""
        sent = head.bearer_digest()
        matches = [hmac.compare_digest(sent, digest) for digest in target.key_digests]
        if not any(matches):
            name = target.route.name
            message = f"This request has no valid key for {name}. Send one in the header Authorization: Bearer <key>."
            headers = [(b"www-authenticate", b"Bearer"), CLOSE_CONNECTION]
            raise GatewayError(401, "Unauthorized", message, headers)

    def _check_room(self, target: Target, content_length: int) -> None:
        self.check_size(target, content_length)
        if self.buffered_bytes > MAX_BUFFERED_BYTES:
            message = "Too many large requests are in progress. Retry in a second."
            raise GatewayError(503, "Busy", message, [_RETRY_SOON, CLOSE_CONNECTION])

    def forward(self, target: Target, head: RequestHead, body: bytes, respond: Callable[[Answer], None]) -> "Call":
        """Send the request to the service. Calls `respond` later, once, unless the call is canceled."""
        return Call(self, target, head, body, respond)

    async def resend(self, target: Target, request: bytes) -> upstream.Response:
        """Send a request on another connection, after looking for a newer route if the service can't be reached."""
        route = target.route
        try:
            return await self.pool.request(route.address, request, route.timeout, is_repeatable=target.is_repeatable)
        except upstream.NotSentError:
            # An update may have moved the service since its route was cached.
            newer = self._find_route(route.service_id, fresh=True)
            if newer.address == route.address:
                raise
            return await self.pool.request(newer.address, request, newer.timeout, is_repeatable=target.is_repeatable)


class Call:
    """One request on its way to a service."""

    def __init__(
        self, gateway: Gateway, target: Target, head: RequestHead, body: bytes, respond: Callable[[Answer], None]
    ) -> None:
        self._gateway, self._target, self._head, self._respond = gateway, target, head, respond
        self._request = b"%s%d\r\n%s\r\n%s" % (target.request_head, len(body), head.forwarded, body)
        self._task: asyncio.Task[None] | None = None
        self._connection = gateway.pool.take_idle(target.route.address)
        if self._connection:  # the usual case needs neither a task nor a future
            self._connection.send(self._request, target.route.timeout, self._receive)
        else:
            self._start_task()

    def cancel(self) -> None:
        """Close the connection to the service, because the client has disconnected."""
        if self._connection:
            self._connection.close()
        if self._task:
            self._task.cancel()

    def _receive(self, result: upstream.Response | upstream.UpstreamError) -> None:
        connection, self._connection = self._connection, None
        if connection:
            self._gateway.pool.release(self._target.route.address, connection)
        is_unread = isinstance(result, upstream.NotSentError)
        if is_unread or (isinstance(result, upstream.BrokenConnectionError) and self._target.is_repeatable):
            self._start_task()  # the pooled connection was stale
        elif isinstance(result, upstream.Response):
            self._finish(_to_answer(self._target.route, result))
        else:
            self._finish(_explain(self._target.route, result))

    def _start_task(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._resend())

    async def _resend(self) -> None:
        try:
            response = await self._gateway.resend(self._target, self._request)
            answer = _to_answer(self._target.route, response)
        except upstream.UpstreamError as error:
            answer = _explain(self._target.route, error)
        except GatewayError as error:
            answer = error.answer
        self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        self._gateway.observe(self._head, answer.status)
        self._respond(answer)


def method_not_allowed(method: str, allowed: Iterable[str]) -> GatewayError:
    """Return the error for a method that a path doesn't support."""
    names = ", ".join(allowed)
    message = f"This path doesn't support {method}. Use {names}."
    return GatewayError(405, "MethodNotAllowed", message, [(b"allow", names.encode()), CLOSE_CONNECTION])


def body_timed_out() -> GatewayError:
    """Return the error for a client that stopped sending."""
    message = f"The request body stalled for {BODY_IDLE_SECONDS:g} s. Send the request again."
    return GatewayError(408, "TimedOut", message, [CLOSE_CONNECTION])


def _to_answer(route: Route, response: upstream.Response) -> Answer:
    """Return the part of a service's response that clients receive."""
    if response.status not in ALLOWED_STATUSES:
        reason = f"{route.name} responded with status {response.status}, which the gateway doesn't forward."
        return GatewayError(502, "BadAnswer", f"{reason} Check the service's log.").answer
    retry = response.headers.get(b"retry-after", b"")
    headers = [(b"retry-after", retry)] if re.fullmatch(rb"[0-9]{1,5}", retry) else []
    return Answer(response.status, response.body, headers)


def _explain(route: Route, error: upstream.UpstreamError) -> Answer:
    """Return the response for a service that didn't send one."""
    if isinstance(error, upstream.UpstreamTimeoutError):
        message = f"{route.name} didn't respond within {route.timeout:g} s. Retry, or check the service's log."
        return GatewayError(504, "TimedOut", message).answer
    log.warning("Service %s, revision %s: %s.", route.service_id, route.revision, error)
    if isinstance(error, upstream.NotSentError):
        message = f"{route.name} isn't running and is being restarted. Retry in a second."
        return GatewayError(503, "ServiceUnavailable", message, [_RETRY_SOON]).answer
    if isinstance(error, upstream.ResponseTooLargeError):
        limit = upstream.MAX_RESPONSE_BYTES
        message = f"The response is larger than {limit} bytes, the limit for services. Request less at a time."
        return GatewayError(502, "AnswerTooLarge", message).answer
    message = f"{route.name} stopped while processing this request. Check the service's log before you retry."
    return GatewayError(502, "BadAnswer", message).answer


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False

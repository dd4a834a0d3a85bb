"""A small pooled HTTP/1.1 client for the gateway: Unix sockets and plain TCP, parsed by httptools.

General-purpose clients take longer per request than an entire scoring call. This one does only what the gateway needs:
one buffered request, one buffered response, persistent connections, and errors that show whether the request was sent.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from mms.system import service_sockets

CONNECT_SECONDS = 3.0
TICK_SECONDS = 0.1  # between checks of time limits
KEEPALIVE_SECONDS = 20.0  # shorter than the scoring program's own limit, so the service never closes first
MAX_RESPONSE_BYTES = 64 * 1024**2
MAX_OVERHEAD_BYTES = 256 * 1024  # of a response besides its body: headers, chunk sizes, trailers


class UpstreamError(Exception):
    """The service didn't respond."""


class NotSentError(UpstreamError):
    """The service can't have received the complete request, so it is safe to send again."""


class BrokenConnectionError(UpstreamError):
    """The connection closed after the request was sent; the service may have processed it."""


class ResponseTooLargeError(UpstreamError):
    """The service's response is larger than MAX_RESPONSE_BYTES."""


class UpstreamTimeoutError(UpstreamError):
    """No response within the time allowed."""


@dataclass(slots=True)
class Response:
    """A service's complete response."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


Result = Response | UpstreamError


class Connection(asyncio.Protocol):
    """One connection, for one exchange at a time."""

    def __init__(self, pool: "Pool", *, is_local: bool) -> None:
        self._pool = pool
        self._seconds = 0.0  # time limit of the exchange
        self.idle_since = 0.0
        self.is_open = False
        self._is_local = is_local  # a Unix socket
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._receive: Callable[[Result], None] | None = None
        self._expires = 0.0
        self._response = Response()
        self._parts: list[bytes] = []
        self._size = 0
        self._received = 0
        self._is_complete = False

    def send(self, request: bytes, seconds: float, receive: "Callable[[Result], None]") -> None:
        """Send `request`, and call `receive` once with the response or the error. An error closes the connection."""
        self._receive, self._seconds, self._expires = receive, seconds, time.monotonic() + seconds
        self._response, self._parts, self._size = Response(), [], 0
        self._received, self._is_complete = 0, False
        self._pool.watch(self)
        self._transport.write(request)

    async def exchange(self, request: bytes, seconds: float) -> Response:
        """Send `request` and return the response. Raises UpstreamError and closes the connection."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.send(request, seconds, lambda result: None if done.done() else done.set_result(result))
        try:
            result = await done
        except BaseException:
            self.close()
            raise
        if isinstance(result, UpstreamError):
            raise result
        return result

    def close(self) -> None:
        """Close the connection without calling back."""
        self.is_open = False
        self._receive = None
        self._transport.abort()

    def expire(self, now: float) -> bool:
        """End the exchange if its time is over. Return True if none is in progress."""
        if self._receive and now > self._expires:
            self._finish(UpstreamTimeoutError(f"no response within {self._seconds:g} s"))
        return self._receive is None

    # --- called by asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._receive is None:  # unsolicited data: no later response can be trusted
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as reason:
            self.is_open = False
            self._fail(BrokenConnectionError(f"the response is not HTTP: {reason}"))
        if self._received - self._size > MAX_OVERHEAD_BYTES:
            self._fail(
                BrokenConnectionError(f"the response has more than {MAX_OVERHEAD_BYTES} bytes of headers and framing")
            )
        if self._is_complete:  # not before everything that arrived is parsed: it may be more than one response
            self._finish(self._response)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        is_unread = isinstance(exc, BrokenPipeError) or (self._is_local and isinstance(exc, ConnectionResetError))
        if is_unread and not self._response.status:
            self._fail(NotSentError("the service closed the connection before it read the request"))
        else:
            self._fail(BrokenConnectionError("the service closed the connection without a complete response"))

    # --- called by httptools

    def on_message_begin(self) -> None:
        if self._is_complete:  # an extra response, which would be mistaken for the next one
            self.is_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_complete:
            return
        self._response.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self._is_complete:
            self._response.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        if self._is_complete:
            return
        self._size += len(part)
        if self._size > MAX_RESPONSE_BYTES:
            self._fail(ResponseTooLargeError(f"the response is larger than {MAX_RESPONSE_BYTES} bytes"))
            return
        self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._is_complete:
            return
        if self._response.status < 200:  # 100 Continue and similar precede the final response
            self._response = Response()
            return
        self._is_complete = True
        if not self._parser.should_keep_alive():
            self.is_open = False
        self._response.body = b"".join(self._parts)

    def _fail(self, error: UpstreamError) -> None:
        if not self._is_complete:
            self._finish(error)

    def _finish(self, result: "Result") -> None:
        if receive := self._receive:
            self._receive = None
            if isinstance(result, UpstreamError):
                self.close()
            receive(result)


class Pool:
    """Open connections to services, by address (unix:/path or http://host:port)."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[Connection]] = defaultdict(deque)
        self._swept_at = 0.0
        self._busy: set[Connection] = set()
        self._is_ticking = False

    async def request(self, address: str, request: bytes, seconds: float, *, is_repeatable: bool) -> Response:
        """Send `request`, the bytes of a complete HTTP/1.1 request, and return the response.

        Resends it only if a pooled connection turned out to be stale, and only if the service can't have processed the
        request or processing it twice is harmless (`is_repeatable`). Raises UpstreamError.
        """
        while connection := self.take_idle(address):
            try:
                return await self._exchange(address, connection, request, seconds)
            except NotSentError:
                continue
            except BrokenConnectionError:
                if not is_repeatable:
                    raise
        connection = await self._connect(address)
        return await self._exchange(address, connection, request, seconds)

    def watch(self, connection: Connection) -> None:
        """Enforce the time limit of an exchange that begins. One timer serves all exchanges."""
        self._busy.add(connection)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        for connection in list(self._busy):
            if connection.expire(now):
                self._busy.discard(connection)
        self._is_ticking = bool(self._busy)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def close(self) -> None:
        """Close all idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _exchange(self, address: str, connection: Connection, request: bytes, seconds: float) -> Response:
        response = await connection.exchange(request, seconds)
        self.release(address, connection)
        return response

    def release(self, address: str, connection: Connection) -> None:
        """Store a connection after an exchange for the next one, if it is still open."""
        if connection.is_open:
            connection.idle_since = time.monotonic()
            self._idle[address].append(connection)
        else:
            connection.close()

    def take_idle(self, address: str) -> Connection | None:
        """Return the most recently used connection that is still open, or None."""
        now = time.monotonic()
        if now > self._swept_at + 1.0:
            self._sweep(now)
        connections = self._idle.get(address)
        while connections:
            connection = connections.pop()
            if connection.is_open and now < connection.idle_since + KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _sweep(self, now: float) -> None:
        """Close connections that have been idle for too long; the oldest are leftmost."""
        self._swept_at = now
        for address, connections in list(self._idle.items()):
            while connections and (not connections[0].is_open or now > connections[0].idle_since + KEEPALIVE_SECONDS):
                connections.popleft().close()
            if not connections:
                del self._idle[address]

    async def _connect(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.startswith("unix:"):
                    with service_sockets.verified(address.removeprefix("unix:")) as path:
                        _, connection = await loop.create_unix_connection(lambda: Connection(self, is_local=True), path)
                else:
                    target = urlsplit(address)
                    _, connection = await loop.create_connection(
                        lambda: Connection(self, is_local=False), target.hostname or "", target.port or 80
                    )
        except (OSError, ValueError) as reason:  # TimeoutError is an OSError
            raise NotSentError(f"couldn't connect to the service: {reason}") from None
        return connection

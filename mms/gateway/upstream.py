"""A small pooled HTTP/1.1 client for the gateway: unix sockets and plain TCP, parsed by httptools.

General clients cost more per request than a whole scoring call; this one does only what the gateway needs: one
buffered request, one buffered answer, connections kept for the next request, and an exact word about what was sent.
"""

import asyncio
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 3.0
KEEPALIVE_SECONDS = 20.0  # less than the scoring program's own limit, so it is never the one that closes first
MAX_RESPONSE_BYTES = 64 * 1024**2
MAX_OVERHEAD_BYTES = 256 * 1024  # of an answer besides its body: headers, sizes of chunks, trailers


class UpstreamError(Exception):
    """The service gave no answer."""


class NotSentError(UpstreamError):
    """The service cannot have received the whole request, so it has not acted on it: safe to send again."""


class BrokenConnectionError(UpstreamError):
    """The connection ended after the request was sent; whether the service acted on it is unknown."""


class UpstreamTimeoutError(UpstreamError):
    """No answer within the time allowed."""


@dataclass
class Response:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class _Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    def __init__(self, local: bool) -> None:
        self.idle_since = 0.0
        self.open = False
        self._local = local  # a unix socket
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self._answer = Response()
        self._parts: list[bytes] = []
        self._size = 0
        self._received = 0
        self._complete = False

    async def exchange(self, request: bytes, timeout: float) -> Response:
        """Send `request` and return its answer. Raises UpstreamError; the connection is closed then."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._answer, self._parts, self._size = Response(), [], 0
        self._received, self._complete = 0, False
        self._transport.write(request)
        timer = loop.call_later(timeout, self._fail, UpstreamTimeoutError(f"no answer within {timeout:g} s"))
        try:
            return await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    # --- what asyncio calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nobody asked: what follows cannot be trusted
            return self.close()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as reason:
            self._fail(BrokenConnectionError(f"the answer is not HTTP: {reason}"))
        if self._received - self._size > MAX_OVERHEAD_BYTES:
            self._fail(BrokenConnectionError(f"the answer has more than {MAX_OVERHEAD_BYTES} bytes around its body"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        unread = isinstance(exc, BrokenPipeError) or (self._local and isinstance(exc, ConnectionResetError))
        if unread and not self._answer.status:
            self._fail(NotSentError("the service closed the connection before it had read the request"))
        else:
            self._fail(BrokenConnectionError("the service closed the connection without a complete answer"))

    # --- what httptools calls

    def on_message_begin(self) -> None:
        if self._complete:  # more than was asked for: what follows would be taken for the next answer
            self.open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._answer.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        if self._complete:
            return
        self._size += len(part)
        if self._size > MAX_RESPONSE_BYTES:
            return self._fail(BrokenConnectionError(f"the answer is larger than {MAX_RESPONSE_BYTES} bytes"))
        self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._answer.status < 200:  # 100 Continue and the like announce the answer
            self._answer = Response()
            return
        self._complete = True
        if not self._parser.should_keep_alive():
            self.open = False
        self._answer.body = b"".join(self._parts)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(self._answer)

    def _fail(self, error: UpstreamError) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(error)


class Pool:
    """Connections to services, kept by address (unix:/path or http://host:port)."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[_Connection]] = defaultdict(deque)
        self._swept_at = 0.0

    async def request(self, address: str, request: bytes, timeout: float, repeatable: bool) -> Response:
        """Send `request` (the bytes of a whole HTTP/1.1 request) and return its answer.

        It is sent again only where the service cannot have acted on it, or where doing so twice does no harm
        (`repeatable`), and only when a kept connection turned out to be stale. Raises UpstreamError.
        """
        while connection := self._kept(address):
            try:
                return await self._exchange(address, connection, request, timeout)
            except NotSentError:
                continue
            except BrokenConnectionError:
                if not repeatable:
                    raise
        connection = await self._connect(address)
        return await self._exchange(address, connection, request, timeout)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _exchange(self, address: str, connection: _Connection, request: bytes, timeout: float) -> Response:
        answer = await connection.exchange(request, timeout)
        if connection.open:
            connection.idle_since = time.monotonic()
            self._idle[address].append(connection)
        else:
            connection.close()
        return answer

    def _kept(self, address: str) -> _Connection | None:
        """The connection used last, if one is still good."""
        now = time.monotonic()
        if now > self._swept_at + 1.0:
            self._sweep(now)
        connections = self._idle.get(address)
        while connections:
            connection = connections.pop()
            if connection.open and now < connection.idle_since + KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _sweep(self, now: float) -> None:
        """Close what nobody has used for long; the oldest are at the left."""
        self._swept_at = now
        for address, connections in list(self._idle.items()):
            while connections and (not connections[0].open or now > connections[0].idle_since + KEEPALIVE_SECONDS):
                connections.popleft().close()
            if not connections:
                del self._idle[address]

    async def _connect(self, address: str) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.startswith("unix:"):
                    _, connection = await loop.create_unix_connection(
                        lambda: _Connection(local=True), address.removeprefix("unix:")
                    )
                else:
                    place = urlsplit(address)
                    _, connection = await loop.create_connection(
                        lambda: _Connection(local=False), place.hostname or "", place.port or 80
                    )
        except (OSError, ValueError) as reason:  # TimeoutError is an OSError
            raise NotSentError(f"no connection to the service: {reason}") from None
        return connection

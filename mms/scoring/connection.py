"""One HTTP/1.1 connection. httptools parses; this module enforces limits and the order of responses."""

import asyncio
import time
from collections import deque
from typing import Any, Protocol

import httptools

from .errors import UNKNOWN_FAILURE, error, log_exception
from .worker import Job

HEAD_MAX_BYTES = 32 * 1024
IDLE_SECONDS = 75.0  # clients that pool connections, such as the gateway, must close them earlier
READ_SECONDS = 30.0  # without a byte of a request that has begun
PIPELINED = 16  # requests read ahead of the current one
STORED_HEADERS = frozenset({b"content-length", b"content-encoding", b"expect", b"x-forwarded-prefix"})
REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class Request:
    """A received request: `path` without query, the relevant headers, the body."""

    __slots__ = ("body", "charset_from", "headers", "keep_alive", "method", "path")

    def __init__(self) -> None:
        self.path = b""
        self.charset_from: bytes | None = None  # the Content-Type, if it has a charset
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.method = b""
        self.keep_alive = False


class Answerer(Protocol):
    """The interface of the server that a connection uses."""

    body_max_bytes: int
    draining: bool
    date: bytes
    connections: "set[Connection]"

    def answer(self, request: Request, connection: "Connection") -> None:
        """Call `connection.respond` exactly once, now or later."""


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, server: Answerer) -> None:
        self.job: Job | None = None  # set by the server while the request is in the driver's queue
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._incoming: Request | None = None
        self._parts: list[bytes] = []
        self._size = 0  # bytes received of an unfinished head, then of the body
        self._head = 0  # bytes of the head's lines
        self._in_head = True
        self._current: Request | None = None
        self._waiting: deque[Request] = deque()
        self._refusal: tuple[int, bytes] | None = None
        self._last = False  # nothing is read after this request
        self._choked = False  # the client doesn't read its responses
        self._touched = time.monotonic()

    # --- called by asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self.job:
            self.job.answered = True  # so that it isn't started, if it is still in the queue

    def pause_writing(self) -> None:
        self._choked = True
        self._adjust_reading()

    def resume_writing(self) -> None:
        self._choked = False
        self._adjust_reading()

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        self._touched = time.monotonic()
        if self._in_head:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = True  # the request is answered without an upgrade; data after it isn't HTTP/1.1
        except httptools.HttpParserError as reason:
            self._refuse(400, "MalformedRequest", f"This is not a valid HTTP request: {reason}.")
        if self._in_head and self._size > HEAD_MAX_BYTES:
            self._refuse_head()
        if self._refusal and not self._current:
            self._respond_refusal()

    # --- called by httptools

    def on_message_begin(self) -> None:
        self._incoming = Request()
        self._parts = []

    def on_url(self, url: bytes) -> None:
        if self._incoming:
            self._incoming.path += url
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value)
        name = name.lower()
        if name in STORED_HEADERS and self._incoming:
            self._incoming.headers[name] = value
        elif name == b"content-type" and self._incoming and b"charset" in value.lower():
            self._incoming.charset_from = value

    def on_headers_complete(self) -> None:
        if (request := self._incoming) is None:
            return
        request.method = self._parser.get_method()
        request.path = request.path.partition(b"?")[0]
        if self._head > HEAD_MAX_BYTES:
            self._refuse_head()
        self._in_head, self._size, self._head = False, 0, 0
        headers = request.headers
        if not headers:
            return
        if int(headers.get(b"content-length", 0)) > self._server.body_max_bytes:
            self._refuse_body()
        elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self._refuse(415, "EncodedBody", "Compressed bodies aren't supported. Send the body uncompressed.")
        elif headers.get(b"expect", b"").lower() == b"100-continue" and not self._current:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._server.body_max_bytes:
            self._refuse_body()
        if not self._refusal:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        request, self._incoming = self._incoming, None
        self._in_head, self._size = True, 0
        if request is None or self._refusal:
            return
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        request.keep_alive = self._parser.should_keep_alive()
        self._parts = []
        if self._current:
            self._waiting.append(request)
            self._adjust_reading()
        else:
            self._begin(request)

    # --- called by the server

    def respond(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """Send the response to the current request. `headers` are complete additional lines."""
        request, self._current, self.job = self._current, None, None
        if self._transport.is_closing() or request is None:
            return
        close = (
            self._server.draining or not request.keep_alive or (self._last and not self._waiting and not self._refusal)
        )
        self._send(status, b"" if request.method == b"HEAD" else body, len(body), headers, close)
        if close:
            self._transport.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        elif self._refusal:
            self._respond_refusal()

    def close_if_late(self, now: float, idle_seconds: float) -> None:
        """Close a connection on which nothing has happened for too long."""
        silent = now - self._touched
        if self._current or self._waiting:
            return
        if self._incoming is not None or self._size:
            if silent > READ_SECONDS:
                self._refuse(408, "TimedOut", f"The rest of the request did not arrive within {READ_SECONDS:g} s.")
                self._respond_refusal()
        elif silent > idle_seconds:
            self._transport.close()

    # --- internal

    def _begin(self, request: Request) -> None:
        self._current = request
        try:
            self._server.answer(request, self)
        except Exception as raised:
            log_exception(raised)
            self.respond(500, UNKNOWN_FAILURE)

    def _next(self) -> None:
        if self._waiting and not self._current and not self._transport.is_closing():
            request = self._waiting.popleft()
            self._adjust_reading()
            self._begin(request)

    def _adjust_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._choked or len(self._waiting) >= PIPELINED:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _refuse_head(self) -> None:
        self._refuse(431, "HeadersTooLarge", f"The request's headers are larger than {HEAD_MAX_BYTES} bytes.")

    def _refuse_body(self) -> None:
        limit = self._server.body_max_bytes
        self._refuse(413, "BodyTooLarge", f"The body is larger than {limit} bytes, the limit of this service.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Store the first reason to stop reading. It is sent after the responses to earlier requests."""
        self._refusal = self._refusal or (status, error(code, message))
        self._last = True
        self._parts = []

    def _respond_refusal(self) -> None:
        if self._refusal and not self._transport.is_closing():
            status, body = self._refusal
            self._send(status, body, len(body), b"", close=True)
            self._transport.close()

    def _send(self, status: int, body: bytes, length: int, headers: bytes, close: bool) -> None:
        self._touched = time.monotonic()
        self._transport.write(
            b"HTTP/1.1 %d %s\r\ndate: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s%s\r\n%s"
            % (
                status,
                REASONS[status],
                self._server.date,
                length,
                headers,
                b"connection: close\r\n" if close else b"",
                body,
            )
        )

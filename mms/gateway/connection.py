"""One HTTP/1.1 connection of a client: httptools parses it, and the gateway's decisions are carried out in order.

uvicorn would do the same, but takes several times as long per request as everything else in the gateway.
"""

import asyncio
import time
from collections import deque
from http import HTTPStatus
from typing import Any, Protocol

import httptools

from mms.gateway.forward import (
    BODY_IDLE_SECONDS,
    CLOSE_CONNECTION,
    CONTENT_TYPES,
    SECURITY_HEADERS,
    Answer,
    Call,
    Gateway,
    GatewayError,
    Target,
    body_timed_out,
)
from mms.gateway.request import RequestHead

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0  # in which a request's headers must arrive
IDLE_SECONDS = 75.0  # longer than proxies reuse connections (nginx: 60 s), so that a request is never sent too late
UNREAD_SECONDS = 60.0  # a client that reads nothing of its response for this long is disconnected
LINGER_SECONDS = 1.0  # an early response may be lost if the connection is closed while the client still sends
MAX_WAITING = 16  # pipelined requests


class Server(Protocol):
    """The part of the server that connections need."""

    gateway: Gateway
    connections: "set[ClientConnection]"
    date: bytes
    is_draining: bool


class _Incoming:
    """A request that is being received. `answer` is set if it is already decided."""

    __slots__ = ("answer", "head", "keep_alive", "parts", "size", "target", "url")

    def __init__(self, client_host: str) -> None:
        self.head = RequestHead(client_host)
        self.url = b""
        self.parts: list[bytes] = []
        self.size = 0
        self.target: Target | None = None
        self.answer: Answer | None = None
        self.keep_alive = True


class ClientConnection(asyncio.Protocol):
    """Reads requests, passes them to the gateway one after another, and writes the responses."""

    def __init__(self, server: Server) -> None:
        self._server, self._gateway = server, server.gateway
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._client_host = ""
        self._incoming: _Incoming | None = None
        self._head_bytes = 0  # received of the current head
        self._is_in_head = True
        self._waiting: deque[_Incoming] = deque()  # complete requests
        self._current: _Incoming | None = None  # being answered
        self._call: Call | None = None
        self._is_last = False  # nothing more is read
        self._is_blocked = False  # the client doesn't read
        self._unread_bytes = 0  # of the response, when last checked
        self._touched = time.monotonic()

    # --- called by asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client_host = str(peer[0]) if isinstance(peer, tuple) else ""
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._is_last = True
        for request in filter(None, (self._incoming, self._current, *self._waiting)):
            self._forget_body(request)
        self._waiting.clear()
        if self._call:
            self._call.cancel()
        self._incoming = self._current = self._call = None

    def pause_writing(self) -> None:
        self._is_blocked = True
        self._adjust_reading()

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._touched = time.monotonic()
        self._adjust_reading()

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        self._touched = time.monotonic()
        if self._is_in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_last = True  # the request is answered as usual; what follows it is not HTTP/1.1
        except httptools.HttpParserError:
            self._refuse(_error(400, "MalformedRequest", "This is not a valid HTTP request."))
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    # --- called by httptools

    def on_message_begin(self) -> None:
        if not self._is_last:
            self._incoming = _Incoming(self._client_host)

    def on_url(self, url: bytes) -> None:
        if self._incoming:
            self._incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming:
            self._incoming.head.add(name.lower(), value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head_bytes = False, 0
        if (request := self._incoming) is None:
            return
        head = request.head
        head.method = self._parser.get_method().decode("latin-1")
        head.set_target(request.url)
        try:
            request.answer = self._gateway.answer_directly(head)
            if request.answer is None:
                request.target = self._gateway.admit(head)
        except GatewayError as error:
            self._refuse(error.answer)
            return
        if head.expects_continue and (head.content_length or head.is_chunked) and not self._current:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        if (request := self._incoming) is None:
            return
        request.size += len(part)
        self._gateway.buffered_bytes += len(part)
        request.parts.append(part)
        try:
            if request.target is None:
                raise GatewayError(413, "BodyTooLarge", "This path doesn't accept a request body.", [CLOSE_CONNECTION])
            self._gateway.check_size(request.target, request.size)
        except GatewayError as error:
            self._gateway.observe(request.head, error.answer.status)
            self._refuse(error.answer)

    def on_message_complete(self) -> None:
        self._is_in_head = True
        request, self._incoming = self._incoming, None
        if request is None:
            return
        # Clients with HTTP/1.0 wait for the end of the connection, unless the response says that it stays open.
        request.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        self._take(request)

    # --- called by the server

    def close_if_late(self, now: float, idle_seconds: float) -> None:
        """Close the connection if nothing has happened on it for too long."""
        if self._is_blocked and (unread := self._transport.get_write_buffer_size()) != self._unread_bytes:
            self._unread_bytes, self._touched = unread, now  # the client reads slowly
        silent = now - self._touched
        if self._is_blocked:
            if silent > UNREAD_SECONDS:
                self._transport.abort()
        elif self._current or self._waiting:
            return
        elif self._is_last:
            if silent > LINGER_SECONDS:
                self._transport.close()
        elif self._incoming and self._incoming.target:
            if silent > BODY_IDLE_SECONDS:
                error = body_timed_out()
                self._gateway.observe(self._incoming.head, error.answer.status)
                self._refuse(error.answer)
        elif self._incoming:
            if time.perf_counter() - self._incoming.head.started > HEAD_SECONDS:
                self._refuse(_error(408, "TimedOut", f"The request's headers didn't arrive within {HEAD_SECONDS:g} s."))
        elif silent > idle_seconds:
            self._transport.close()

    # --- one request after another

    def _take(self, request: _Incoming) -> None:
        if self._current or self._waiting:  # the next waiting request may not have been started yet
            self._waiting.append(request)
            self._adjust_reading()
        else:
            self._start(request)

    def _start(self, request: _Incoming) -> None:
        self._current = request
        if request.answer or request.target is None:
            self._respond(request.answer or _error(400, "MalformedRequest", "This is not a valid HTTP request."))
        else:
            body = request.parts[0] if len(request.parts) == 1 else b"".join(request.parts)
            self._call = self._gateway.forward(request.target, request.head, body, self._respond)

    def _respond(self, answer: Answer) -> None:
        """Send the response of the current request. The next one starts from the event loop, not from this call."""
        request, self._current, self._call = self._current, None, None
        if request is None:
            return
        self._forget_body(request)
        if self._transport.is_closing():
            return
        is_end = self._is_last and not self._waiting
        close = not request.keep_alive or self._server.is_draining or is_end or CLOSE_CONNECTION in answer.headers
        self._write(request.head, answer, close)
        if is_end and CLOSE_CONNECTION in answer.headers:
            self._transport.write_eof()  # close_if_late() closes it, once the client has had time to read
        elif close:
            self._is_last = True
            self._transport.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        if self._waiting and not self._current and not self._transport.is_closing():
            request = self._waiting.popleft()
            self._adjust_reading()
            self._start(request)

    def _refuse(self, answer: Answer) -> None:
        """Answer the incoming request early, after those before it, and read nothing more."""
        if self._is_last:
            return
        self._is_last = True
        request, self._incoming = self._incoming or _Incoming(self._client_host), None
        self._forget_body(request)
        headers = [header for header in answer.headers if header != CLOSE_CONNECTION]
        request.answer = Answer(answer.status, answer.body, [*headers, CLOSE_CONNECTION], answer.kind)
        self._take(request)

    def _refuse_head(self) -> None:
        message = f"The request's headers are larger than {MAX_HEAD_BYTES} bytes."
        self._refuse(_error(431, "HeadersTooLarge", message))

    def _forget_body(self, request: _Incoming) -> None:
        self._gateway.buffered_bytes -= request.size
        request.size, request.parts = 0, []

    def _adjust_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._is_blocked or len(self._waiting) >= MAX_WAITING:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self, head: RequestHead, answer: Answer, close: bool) -> None:
        self._touched = time.monotonic()
        headers = answer.headers
        if origin_headers := self._gateway.origin_headers(head):
            headers = [*headers, *origin_headers]
        if close and CLOSE_CONNECTION not in headers:
            headers = [*headers, CLOSE_CONNECTION]
        extra = b"".join([b"%s: %s\r\n" % header for header in headers]) if headers else b""
        length = b"" if answer.status == HTTPStatus.NO_CONTENT else b"content-length: %d\r\n" % len(answer.body)
        body = b"" if head.method == "HEAD" else answer.body
        start = _STARTS.get((answer.status, answer.kind)) or _encode_start(answer.status, answer.kind)
        self._transport.write(b"%sdate: %s\r\n%s%s\r\n%s" % (start, self._server.date, length, extra, body))


_STARTS: dict[tuple[int, str], bytes] = {}  # status line and fixed headers of a response


def _encode_start(status: int, kind: str) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    headers = [*SECURITY_HEADERS]
    if status != HTTPStatus.NO_CONTENT:
        headers.insert(0, (b"content-type", CONTENT_TYPES[kind]))
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    start = _STARTS[status, kind] = f"HTTP/1.1 {status} {reason}\r\n".encode() + lines
    return start


def _error(status: int, code: str, message: str) -> Answer:
    return GatewayError(status, code, message, [CLOSE_CONNECTION]).answer

"""Connections of clients: the order of pipelined requests, the count of buffered bytes, and slow readers."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from mms.gateway.connection import UNREAD_SECONDS, ClientConnection, Server
from mms.gateway.forward import Answer, Gateway, Target
from mms.gateway.request import RequestHead
from tests.support import loops

BODY = b"12345"


class Transport:
    """Transport that records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = self.is_closed = False
        self.unread = 0

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return "127.0.0.1", 1

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...


class ManualGateway(Gateway):
    """Gateway that admits everything. A test responds to its requests, in `pending`."""

    def __init__(self) -> None:
        self.buffered_bytes = 0
        self._origins = frozenset()
        self.pending: list[tuple[str, Callable[[Answer], None]]] = []

    def answer_directly(self, head: RequestHead) -> Answer | None:
        return None

    def admit(self, head: RequestHead) -> Target:
        return cast(Target, head)

    def check_size(self, target: Target, size: int) -> None: ...

    def forward(self, target: Target, head: RequestHead, body: bytes, respond: Callable[[Answer], None]) -> Any:
        self.pending.append((head.path, respond))

    def respond(self) -> None:
        """Respond to the oldest pending request with its path."""
        path, respond = self.pending.pop(0)
        respond(Answer(200, path.encode()))


class OneServer:
    """The part of the server that connections need."""

    date = b"now"
    is_draining = False

    def __init__(self) -> None:
        self.gateway = ManualGateway()
        self.connections: set[ClientConnection] = set()


@pytest.fixture
def server() -> Iterator[OneServer]:
    """Return a server, and check at the end that no buffered bytes are left."""
    server = OneServer()
    yield server
    for connection in list(server.connections):
        connection.connection_lost(None)
    assert server.gateway.buffered_bytes == 0


def connect(server: OneServer) -> tuple[ClientConnection, Transport]:
    """Return a new connection and its transport."""
    connection, transport = ClientConnection(cast(Server, server)), Transport()
    connection.connection_made(transport)
    return connection, transport


def request(path: str) -> bytes:
    """Return the bytes of a request."""
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY


def test_a_request_that_arrives_between_two_responses_waits_for_those_before_it(server: OneServer) -> None:
    async def run() -> bytes:
        connection, transport = connect(server)
        connection.data_received(request("/a") + request("/b"))
        server.gateway.respond()
        connection.data_received(request("/c"))  # before the event loop has started the second
        while server.gateway.pending or len(transport.written.split(b"HTTP/1.1 200")) < 4:
            await asyncio.sleep(0)
            if server.gateway.pending:
                server.gateway.respond()
        return transport.written

    written = loops.run(run())
    assert written.index(b"/a") < written.index(b"/b") < written.index(b"/c")


def test_the_body_of_a_request_is_released_if_its_client_disconnects(server: OneServer) -> None:
    connection, transport = connect(server)
    connection.data_received(request("/a"))
    assert server.gateway.buffered_bytes == len(BODY)
    transport.is_closed = True  # connection_lost() follows later
    server.gateway.respond()
    connection.connection_lost(None)
    assert server.gateway.buffered_bytes == 0


def test_a_client_is_disconnected_only_if_it_reads_nothing(server: OneServer) -> None:
    connection, transport = connect(server)
    connection.data_received(request("/a"))
    transport.unread = 1000
    connection.pause_writing()
    now = connection._touched
    for transport.unread in (900, 800, 700):
        now += UNREAD_SECONDS * 0.9
        connection.close_if_late(now, 1)
    assert not transport.is_aborted
    connection.close_if_late(now + UNREAD_SECONDS + 1, 1)
    assert transport.is_aborted


@pytest.mark.parametrize("framing", ["content-length: 5", "transfer-encoding: chunked"])
def test_a_client_that_waits_to_send_its_body_is_told_to(server: OneServer, framing: str) -> None:
    connection, transport = connect(server)
    connection.data_received(f"POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{framing}\r\n\r\n".encode())
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_the_connection_of_an_http_1_0_client_is_closed_after_the_response(server: OneServer) -> None:
    connection, transport = connect(server)
    connection.data_received(b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    server.gateway.respond()
    assert transport.is_closed
    assert b"connection: close\r\n" in transport.written

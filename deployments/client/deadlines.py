"""HTTP connections that enforce a deadline for the whole call.

requests only limits the wait for each byte, so a server that sends one from time to time can block a call indefinitely.
Here every wait is limited to the remaining time of the call, and `Call.sent` is True if any of the request may have
been sent. Name resolution can't be interrupted, but it precedes sending, and nothing is sent after the deadline.
`netguard.addresses` decides which addresses may be called. A proxy from the environment resolves names itself, so there
the proxy decides.
"""

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar

from urllib3 import HTTPConnectionPool

from netguard.http import (
    FinalResponse,
    GuardedAdapter,
    GuardedConnection,
    GuardedPool,
    GuardedTLSConnection,
    GuardedTLSPool,
)

WRITE_BYTES = 16 * 1024  # bytes per write: one TLS record


@dataclass
class Call:
    """Call that the current thread is making."""

    ends: float  # time.monotonic()
    sent: bool = False  # the server may have received some of the request

    @property
    def over(self) -> bool:
        """Return True if the deadline has passed."""
        return time.monotonic() >= self.ends

    def left(self, limit: float | None) -> float:
        """Return the remaining seconds, at most `limit`. Raises TimeoutError after the deadline."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if limit is None else min(limit, left)


CALL: ContextVar[Call] = ContextVar("CALL")


@contextmanager
def call_within(seconds: float) -> Iterator[Call]:
    """Limit the calls made in this block, and later reads of their responses, to `seconds` in total."""
    call = Call(time.monotonic() + seconds)
    previous = CALL.set(call)
    try:
        yield call
    finally:
        CALL.reset(previous)


class TimedReader(io.RawIOBase):
    """Socket reader that waits no longer than the remaining time of its call."""

    def __init__(self, raw: Any, sock: socket.socket):
        self.raw, self.sock, self.timeout, self.call = raw, sock, sock.gettimeout(), CALL.get()

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.raw.fileno())

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.call.left(self.timeout))
        found: int | None = self.raw.readinto(buffer)
        return found

    def close(self) -> None:
        self.raw.close()
        super().close()


class TimedResponse(FinalResponse):
    """HTTP response that is read within the deadline of its call."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any):
        super().__init__(sock, *args, **more)
        self.fp: Any = io.BufferedReader(TimedReader(self.fp.detach(), sock))


class Timed:
    """Mixin for connections that are opened, written and read within the deadline of the current call."""

    response_class = TimedResponse
    sock: Any
    timeout: Any

    def connect(self) -> None:
        call = CALL.get()
        self.timeout = call.left(self.timeout)
        try:
            super().connect()  # type: ignore[misc]
        finally:
            call.sent = False  # a CONNECT request to a proxy doesn't count
        call.left(None)  # raises if connecting used up the time, before anything is sent

    def send(self, data: bytes) -> None:
        call = CALL.get()
        if self.sock is None:
            self.connect()
        call.sent = True
        for at in range(0, len(data), WRITE_BYTES):
            self.sock.settimeout(call.left(self.timeout))
            super().send(data[at : at + WRITE_BYTES])  # type: ignore[misc]


class Connection(Timed, GuardedConnection):  # type: ignore[misc] # both declare `sock` and `timeout`
    """HTTP connection with deadlines."""


class TLSConnection(Timed, GuardedTLSConnection):  # type: ignore[misc] # both declare `sock` and `timeout`
    """HTTPS connection with deadlines."""


class Pool(GuardedPool):
    """Pool of HTTP connections with deadlines."""

    ConnectionCls = Connection


class TLSPool(GuardedTLSPool):
    """Pool of HTTPS connections with deadlines."""

    ConnectionCls = TLSConnection


class TimedAdapter(GuardedAdapter):
    """Adapter that makes requests use these connections, with and without a proxy."""

    pool_classes: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": Pool, "https": TLSPool}

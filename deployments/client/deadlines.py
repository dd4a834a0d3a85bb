"""Connections on which a call ends in time, whatever the server does.

requests limits the wait for each byte, and nothing else: a server that sends one now and then, in its headers or
between two chunks, holds a call as long as it likes. Here no wait is longer than what is left of the whole call, and it
is known whether anything of the request has left. (Only the search for a host's address cannot be cut short: nothing
has left by then, and nothing leaves after it once the time is over.) netguard checks
the addresses.
"""

import http.client
import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar

from urllib3 import HTTPConnectionPool

from netguard.http import GuardedAdapter, GuardedConnection, GuardedPool, GuardedTLSConnection, GuardedTLSPool

PIECE = 16 * 1024  # bytes handed over at once: one record of TLS


@dataclass
class Call:
    """The call that this thread is making."""

    ends: float  # time.monotonic()
    sent: bool = False  # the server may have something of the request

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends

    def left(self, most: float | None) -> float:
        """How long may be waited now: `most` seconds, or what the call has left. Raises TimeoutError."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if most is None else min(most, left)


CALL: ContextVar[Call] = ContextVar("CALL")


@contextmanager
def call_within(seconds: float) -> Iterator[Call]:
    """Whatever is called in this block, and read of its answer later, ends in so many seconds."""
    call = Call(time.monotonic() + seconds)
    mine = CALL.set(call)
    try:
        yield call
    finally:
        CALL.reset(mine)


class TimedReader(io.RawIOBase):
    """What comes from a socket; each wait is cut to what its call has left."""

    def __init__(self, raw: Any, sock: socket.socket):
        self.raw, self.sock, self.most, self.call = raw, sock, sock.gettimeout(), CALL.get()

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.raw.fileno())

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.call.left(self.most))
        found: int | None = self.raw.readinto(buffer)
        return found

    def close(self) -> None:
        self.raw.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any):
        super().__init__(sock, *args, **more)
        self.fp: Any = io.BufferedReader(TimedReader(self.fp.detach(), sock))


class Timed:
    """Of a connection: it is made, written to and read from within the time of the call that is being made."""

    response_class = TimedResponse
    sock: Any
    timeout: Any

    def connect(self) -> None:
        call = CALL.get()
        self.timeout = call.left(self.timeout)
        try:
            super().connect()  # type: ignore[misc]
        finally:
            call.sent = False  # what a proxy was told on the way does not count
        call.left(None)  # a host with many addresses, or a slow name server: too late to send anything

    def send(self, data: bytes) -> None:
        call = CALL.get()
        if self.sock is None:
            self.connect()
        call.sent = True
        for at in range(0, len(data), PIECE):
            self.sock.settimeout(call.left(self.timeout))
            super().send(data[at : at + PIECE])  # type: ignore[misc]


class Connection(Timed, GuardedConnection):  # type: ignore[misc] # both declare `sock` and `timeout`
    """A guarded HTTP connection whose calls end in time."""


class TLSConnection(Timed, GuardedTLSConnection):  # type: ignore[misc] # both declare `sock` and `timeout`
    """A guarded HTTPS connection whose calls end in time."""


class Pool(GuardedPool):
    """A pool of timed HTTP connections."""

    ConnectionCls = Connection


class TLSPool(GuardedTLSPool):
    """A pool of timed HTTPS connections."""

    ConnectionCls = TLSConnection


class TimedAdapter(GuardedAdapter):
    """A transport adapter for requests with these connections."""

    pool_classes: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": Pool, "https": TLSPool}

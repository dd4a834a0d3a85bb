"""The gateway's own server: it listens on one port, alone or with other processes, and shuts down gracefully."""

import asyncio
import gc
import resource
import signal
import socket
import time
from email.utils import formatdate
from functools import partial

from mms.gateway.connection import IDLE_SECONDS, ClientConnection
from mms.gateway.forward import Gateway

TICK_SECONDS = 0.5
LINGER_SECONDS = 0.5  # after the stop signal, idle connections stay open this long: a request may be on its way
DRAIN_SECONDS = 20.0  # after the stop signal, for requests in progress
BACKLOG = 2048


class Server:
    """Accepts connections until `drain` is called, then ends when their requests are answered."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.connections: set[ClientConnection] = set()
        self.date = formatdate(usegmt=True).encode()
        self.is_draining = False
        self._drained_at = 0.0

    async def run(self, listening: socket.socket) -> None:
        """Serve on `listening` until drained."""
        listener = await asyncio.get_running_loop().create_server(
            partial(ClientConnection, self), sock=listening, backlog=BACKLOG
        )
        try:
            while not self._is_done():
                self._tick()
                await asyncio.sleep(TICK_SECONDS if not self.is_draining else TICK_SECONDS / 10)
                if self.is_draining:
                    listener.close()
        finally:
            listener.close()
            self.gateway.close()

    def drain(self) -> None:
        """Stop accepting connections, and end once the requests in progress are answered."""
        if not self.is_draining:
            self.is_draining, self._drained_at = True, time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        self.date = formatdate(usegmt=True).encode()
        idle_seconds = LINGER_SECONDS if self.is_draining else IDLE_SECONDS
        for connection in list(self.connections):
            connection.close_if_late(now, idle_seconds)

    def _is_done(self) -> bool:
        if not self.is_draining:
            return False
        return not self.connections or time.monotonic() > self._drained_at + DRAIN_SECONDS


def listen(host: str, port: int, share: bool = False) -> socket.socket:
    """Return a socket that listens on `port`. `share`: other processes may listen on it as well. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=share)


def serve(gateway: Gateway, listening: socket.socket) -> None:
    """Run the server in this process until SIGTERM or SIGINT."""
    import uvloop

    async def main() -> None:
        server = Server(gateway)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.drain)
        await server.run(listening)

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each request needs a connection on both sides
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # requests leave few cycles; collecting them rarely keeps the slowest fast
    uvloop.run(main())

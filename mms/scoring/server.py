"""Listens, says which path means what, and ends in good order."""

import asyncio
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path

from .connection import IDLE_SECONDS, Connection, Request
from .driver import Driver, error
from .settings import App, Misconfigured, Settings
from .worker import INIT_FAILED, Phase, Worker

TICK = 0.2  # seconds
LINGER = 0.5  # an idle connection is closed this long after the stop signal: a request may be on its way
RETRY = b"retry-after: 1\r\n"
BACKLOG = 1024


class Server:
    """Answers requests with the help of one worker, until a signal or the worker ends it."""

    def __init__(self, settings: Settings, driver: Driver) -> None:
        self.body_max_bytes = settings.body_max_bytes
        self.draining = False
        self.date = b""
        self.connections: set[Connection] = set()
        self._settings, self._driver = settings, driver
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._worker = Worker(driver, settings, self.end)

    def end(self, status: int) -> None:
        """Leave with this exit status at once."""
        if not self._ended.done():
            self._ended.set_result(status)

    async def run(self, listening: socket.socket) -> int:
        """Serve on `listening` until the end; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._drain)
        ticking = self._loop.create_task(self._tick())
        accepting = self._loop.create_task(self._accept(listening))
        try:
            return await self._ended
        finally:
            ticking.cancel()
            accepting.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        if self._settings.late:
            await self._worker.ready.wait()
        listener = await self._loop.create_server(partial(Connection, self), sock=listening, backlog=BACKLOG)
        await self._worker.ready.wait()
        print(f"{self._driver.title}: init() has returned; scoring on {self._settings.listen}.", flush=True)
        while not self.draining:
            await asyncio.sleep(TICK / 2)
        listener.close()

    def _drain(self) -> None:
        """Stop accepting, finish what has begun; without anything to finish the end is here."""
        self.draining = True
        if self._worker.phase is Phase.STARTING:
            self.end(0)

    async def _tick(self) -> None:
        while True:
            now = time.monotonic()
            self.date = formatdate(usegmt=True).encode()
            self._worker.tick()
            for connection in list(self.connections):
                connection.close_if_late(now, LINGER if self.draining else IDLE_SECONDS)
            if self.draining and not self._worker.in_flight and not self.connections:
                self.end(0)
            await asyncio.sleep(TICK)

    def answer(self, request: Request, connection: Connection) -> None:
        """Route one request; the connection's `respond` is called now or when the driver has answered."""
        if request.path in (b"/score", b"/score/"):
            if request.method == b"POST":
                return self._score(request, connection)
            return _not_allowed(connection, b"POST")
        if request.path not in (b"/", b"/swagger.json"):
            return connection.respond(404, error("NotFound", "There are /score, /swagger.json and / here."))
        if request.method not in (b"GET", b"HEAD"):
            return _not_allowed(connection, b"GET, HEAD")
        if request.path == b"/":
            return self._health(connection)
        base = request.headers.get(b"x-forwarded-prefix", b"/").decode("latin-1")
        connection.respond(200, json.dumps(self._driver.schema.document(self._driver.title, base)).encode())

    def _score(self, request: Request, connection: Connection) -> None:
        if self._worker.phase is not Phase.READY:
            return connection.respond(503, error(*_UNREADY[self._worker.phase]), RETRY)
        connection.job = self._worker.submit(request.body, connection.respond)
        if connection.job is None:
            waiting = self._settings.queue_length
            message = f"{waiting} requests are waiting already; try again in a moment."
            connection.respond(503, error("QueueFull", message), RETRY)

    def _health(self, connection: Connection) -> None:
        """`inFlight` tells whoever replaces this process when it may be stopped; one of several cannot know."""
        if self._worker.phase is Phase.READY:
            health: dict[str, str | int] = {"status": "healthy"}
            if not self._settings.shared:
                health["inFlight"] = self._worker.in_flight
            return connection.respond(200, json.dumps(health).encode())
        connection.respond(503, error(*_UNREADY[self._worker.phase]), RETRY)


_UNREADY = {
    Phase.STARTING: ("Starting", "init() has not returned yet; try again in a moment."),
    Phase.STUCK: ("Stuck", "A call of run() takes longer than it may; try again in a moment."),
}


def _not_allowed(connection: Connection, allowed: bytes) -> None:
    message = f"Only {allowed.decode()} is answered here."
    connection.respond(405, error("MethodNotAllowed", message), b"allow: %s\r\n" % allowed)


def open_socket(listen: str) -> socket.socket:
    """The listening socket for unix:/path, tcp:host:port or fd:number; raises Misconfigured."""
    kind, _, place = listen.partition(":")
    try:
        if kind == "fd":
            return socket.socket(fileno=int(place))
        if kind == "unix":
            return _open_unix(Path(place))
        if kind == "tcp":
            host, _, port = place.rpartition(":")
            return socket.create_server((host, int(port)), backlog=BACKLOG, family=_family(host))
    except (OSError, ValueError) as reason:
        raise Misconfigured(f"MMS_LISTEN={listen}: {reason}") from None
    raise Misconfigured(f"MMS_LISTEN must be unix:/path or tcp:host:port, not {listen!r}.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _open_unix(path: Path) -> socket.socket:
    """Bind `path`, readable by its owner only; a socket file left behind by a dead process is replaced."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    listening.listen(BACKLOG)
    return listening


def serve(settings: Settings) -> int:
    """Load the driver and serve it until SIGTERM; returns the exit status."""
    try:
        driver = Driver(App.read(settings.app), Path.cwd())
        listening = open_socket(settings.listen)
    except Misconfigured as reason:
        print(reason, file=sys.stderr)
        return INIT_FAILED
    faulthandler.enable()
    gc.set_threshold(10_000, 20, 50)  # requests make little garbage; collecting it less often keeps the slowest fast

    async def main() -> int:
        return await Server(settings, driver).run(listening)

    try:
        return asyncio.run(main())
    finally:
        faulthandler.cancel_dump_traceback_later()

"""The server: listens, routes requests, and shuts down."""

import asyncio
import faulthandler
import gc
import json
import os
import signal
import socket
import time
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from pathlib import Path

from .connection import IDLE_SECONDS, Connection, Request
from .driver import Driver
from .errors import error, log, log_exception
from .processes import BACKLOG, detach_forks, open_socket
from .settings import INIT_FAILED, App, Settings, SetupError
from .worker import RETRY, Phase, Worker

TICK = 0.2  # seconds
LINGER = 0.5  # seconds from the stop signal until an idle connection is closed: a request may be in transit


class Server:
    """Answers requests with one worker, until a signal or the worker ends it."""

    def __init__(self, settings: Settings, driver: Driver) -> None:
        self.body_max_bytes = settings.body_max_bytes
        self.draining = False
        self.date = b""
        self.connections: set[Connection] = set()
        self._settings, self._driver = settings, driver
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._worker = Worker(driver, settings, self.end)
        self._stopping = asyncio.Event()
        self._siblings_ready = settings.siblings is None

    def end(self, status: int) -> None:
        """Stop with this exit status immediately."""
        if not self._ended.done():
            self._ended.set_result(status)

    async def run(self, listening: socket.socket) -> int:
        """Serve on `listening` until the end and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._drain)
        ticking = self._loop.create_task(self._tick())
        accepting = self._loop.create_task(self._accept(listening))
        accepting.add_done_callback(self._stop_accepting)
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
        self._join_siblings()
        with suppress(Exception):  # a driver may have closed stdout
            print(f"{self._driver.title}: init() has returned; scoring on {self._settings.listen}.", flush=True)
        await self._stopping.wait()
        listener.close()

    def _stop_accepting(self, accepting: "asyncio.Task[None]") -> None:
        if not accepting.cancelled() and (raised := accepting.exception()):
            log_exception(raised)
            self.end(INIT_FAILED)

    def _join_siblings(self) -> None:
        """Report to the parent process that this one is ready, and wait for its signal that all are."""
        if self._settings.siblings:
            report, all_ready = self._settings.siblings
            self._loop.add_reader(all_ready, self._set_siblings_ready, all_ready)
            with suppress(OSError):  # the parent has ended, and this process is about to
                os.write(report, b"%d\n" % os.getpid())

    def _set_siblings_ready(self, all_ready: int) -> None:
        self._loop.remove_reader(all_ready)
        self._siblings_ready = True

    def _drain(self) -> None:
        """Stop accepting, and finish the open requests. During init(), end immediately."""
        self.draining = True
        self._stopping.set()
        if self._worker.phase is Phase.STARTING:
            self.end(0)

    async def _tick(self) -> None:
        while True:
            try:
                self._look()
            except Exception as raised:  # without this loop, there would be no time limits
                log_exception(raised)
            await asyncio.sleep(TICK)

    def _look(self) -> None:
        now = time.monotonic()
        self.date = formatdate(usegmt=True).encode()
        self._worker.tick()
        for connection in list(self.connections):
            connection.close_if_late(now, LINGER if self.draining else IDLE_SECONDS)
        if self.draining and not self._worker.in_flight and not self.connections:
            self.end(0)

    def answer(self, request: Request, connection: Connection) -> None:
        """Route one request. The connection's `respond` is called now, or when the driver has answered."""
        if request.path in (b"/score", b"/score/"):
            if request.method == b"POST":
                self._score(request, connection)
            else:
                _not_allowed(connection, b"POST")
        elif request.path not in (b"/", b"/swagger.json"):
            connection.respond(404, error("NotFound", "This service has the paths /score, /swagger.json and /."))
        elif request.method not in (b"GET", b"HEAD"):
            _not_allowed(connection, b"GET, HEAD")
        elif request.path == b"/":
            self._health(connection)
        else:
            base = request.headers.get(b"x-forwarded-prefix", b"/").decode("latin-1")
            connection.respond(200, json.dumps(self._driver.schema.document(self._driver.title, base)).encode())

    def _score(self, request: Request, connection: Connection) -> None:
        if self._worker.phase is not Phase.READY:
            connection.respond(503, error(*_UNREADY[self._worker.phase]), RETRY)
            return
        connection.job = self._worker.submit(request.body, request.charset_from, connection.respond)
        if connection.job is None:
            waiting = self._settings.queue_length
            message = f"{waiting} requests are already queued. Retry in a moment."
            connection.respond(503, error("QueueFull", message), RETRY)

    def _health(self, connection: Connection) -> None:
        """Send the health. `inFlight` shows when this process may be stopped; one of several doesn't know that."""
        if self._worker.phase is not Phase.READY:
            connection.respond(503, error(*_UNREADY[self._worker.phase]), RETRY)
        elif not self._siblings_ready:
            message = "Other processes of this service are still in init(). Retry in a moment."
            connection.respond(503, error("Starting", message), RETRY)
        else:
            health: dict[str, str | int] = {"status": "healthy"}
            if not self._settings.siblings:
                health["inFlight"] = self._worker.in_flight
            connection.respond(200, json.dumps(health).encode())


_UNREADY = {
    Phase.STARTING: ("Starting", "init() has not returned yet. Retry in a moment."),
    Phase.STUCK: ("Stuck", "A call of run() is taking longer than its limit. Retry in a moment."),
}


def _not_allowed(connection: Connection, allowed: bytes) -> None:
    message = f"This path only supports {allowed.decode()}."
    connection.respond(405, error("MethodNotAllowed", message), b"allow: %s\r\n" % allowed)


def serve(settings: Settings) -> int:
    """Load the driver and serve it until SIGTERM. Return the exit status."""
    try:
        driver = Driver(App.read(settings.app), Path.cwd(), settings.answer_max_bytes)
        listening = open_socket(settings.listen)
        for number in settings.siblings or ():
            os.set_inheritable(number, False)
    except (SetupError, OSError) as reason:
        log(str(reason))
        return INIT_FAILED
    detach_forks(listening)
    faulthandler.enable()
    gc.set_threshold(10_000, 20, 50)  # requests create little garbage; rare collections make the slowest faster

    async def main() -> int:
        return await Server(settings, driver).run(listening)

    try:
        return asyncio.run(main())
    finally:
        faulthandler.cancel_dump_traceback_later()

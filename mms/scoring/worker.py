"""The thread that calls the driver, its bounded queue and its time limits.

`run()` can't be interrupted. When its time is over, its client gets 504, waiting clients get 503, and the process
counts as stuck. If it is still stuck GRACE_SECONDS later, the process exits, so that its supervisor starts a new one. A
driver that holds the interpreter lock (for example in a regular expression that never ends) stops the event loop as
well; the alarm of `faulthandler` needs neither.
"""

import asyncio
import faulthandler
import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue

from .driver import Driver
from .errors import UNKNOWN_FAILURE, describe, error, log, log_exception
from .processes import leave_if_forked
from .settings import INIT_FAILED, STUCK, Settings, SetupError

GRACE_SECONDS = 5.0  # between a run() that is too late and the end of the process
RETRY = b"retry-after: 1\r\n"

Reply = Callable[[int, bytes, bytes], None]  # status, JSON, header lines


class Phase(Enum):
    """What the driver's thread is doing."""

    STARTING = "starting"
    READY = "ready"
    STUCK = "stuck"


class Job:
    """One request on its way through the driver. Only the event loop changes it, except for `started`."""

    __slots__ = ("answered", "body", "charset_from", "reply", "started", "submitted")

    def __init__(self, body: bytes, charset_from: bytes | None, reply: Reply, submitted: float) -> None:
        self.body = body
        self.charset_from = charset_from
        self.reply = reply
        self.submitted = submitted
        self.started = 0.0
        self.answered = False  # or abandoned by the client


class Worker:
    """Calls `driver.init()` once, and then `driver.score()` for one job after another."""

    def __init__(self, driver: Driver, settings: Settings, end: Callable[[int], None]) -> None:
        """`end(status)` is called on the event loop when this process can't serve any more."""
        self.phase = Phase.STARTING
        self.ready = asyncio.Event()
        self._driver, self._settings, self._end = driver, settings, end
        self._loop = asyncio.get_running_loop()
        self._began = self._ticked = time.monotonic()
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._pending: deque[Job] = deque()  # submitted and not delivered, oldest first
        self._running: Job | None = None
        self._done: deque[tuple[Job, int, bytes]] = deque()
        self._awake = False
        self._alarm_at = 0.0
        threading.Thread(target=self._work, name="driver", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """The number of accepted requests that the driver hasn't finished."""
        return len(self._pending)

    def submit(self, body: bytes, charset_from: bytes | None, reply: Reply) -> Job | None:
        """Queue one request; `reply` is called on the event loop later. Return None if the queue is full.

        `charset_from` is the Content-Type of the body, if it has a charset.
        """
        if len(self._pending) > self._settings.queue_length:
            return None
        job = Job(body, charset_from, reply, self._ticked)
        self._pending.append(job)
        self._jobs.put(job)
        return job

    def tick(self) -> None:
        """Check the time limits. The event loop calls this several times per second."""
        now = self._ticked = time.monotonic()
        if self.phase is Phase.STARTING:
            if now > self._began + self._settings.init_timeout:
                log(f"init() did not return within {self._settings.init_timeout:g} s.")
                self._end(INIT_FAILED)
        elif (job := self._running) and job.started:
            self._check(job, now - job.started)
            self._turn_away(now)
        self._set_alarm(now)

    def _check(self, job: Job, seconds: float) -> None:
        limit = self._settings.run_timeout
        if seconds > limit and not job.answered:
            message = f"run() did not return within {limit:g} s."
            log(message)
            self._answer(job, 504, error("TimedOut", message))
        if seconds > limit:
            self.phase = Phase.STUCK
        if seconds > limit + GRACE_SECONDS:
            log(f"run() has not returned for {seconds:.0f} s. This process exits.")
            self._end(STUCK)

    def _turn_away(self, now: float) -> None:
        """Answer waiting requests that can't be processed in time: behind a stuck one, or for too long."""
        limit = self._settings.run_timeout
        for job in self._pending:
            if self.phase is not Phase.STUCK and now - job.submitted <= limit:
                return
            if not job.started and not job.answered:
                message = "Earlier requests took too long, so this one wasn't started. Retry in a moment."
                self._answer(job, 503, error("Busy", message), RETRY)

    def _set_alarm(self, now: float) -> None:
        """Postpone the alarm that ends the process when not even the event loop runs any more."""
        if now < self._alarm_at:
            return
        limit = self._settings.init_timeout if self.phase is Phase.STARTING else self._settings.run_timeout
        self._alarm_at = now + 1.0
        # File 2 is stderr, also if a driver has replaced sys.stderr.
        faulthandler.dump_traceback_later(limit + GRACE_SECONDS + 1.0, exit=True, file=2)

    def _answer(self, job: Job, status: int, body: bytes, headers: bytes = b"") -> None:
        if not job.answered:
            job.answered = True
            job.reply(status, body, headers)

    # --- the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Run the driver. Without this thread the process is useless, so it ends with it."""
        try:
            if self._start():
                self._serve()
        finally:
            self._call_soon(self._end, STUCK)

    def _start(self) -> bool:
        try:
            self._driver.init()
        except SetupError as reason:
            return self._fail(str(reason))
        except BaseException as raised:
            log_exception(raised)
            return self._fail(f"init() failed: {describe(raised)}")
        leave_if_forked(0)
        # Everything loaded so far remains; the collector need not examine it again and again.
        gc.collect()
        gc.freeze()
        self._call_soon(self._set_ready)
        return True

    def _fail(self, message: str) -> bool:
        log(" ".join(message.split("\n")))  # one line, for errors that quote the last line of the log
        leave_if_forked(1)
        self._call_soon(self._end, INIT_FAILED)
        return False

    def _call_soon(self, function: Callable[..., None], *arguments: int) -> None:
        """Call `function` on the event loop, unless the process is ending."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _set_ready(self) -> None:
        self.phase = Phase.READY
        self._alarm_at = 0.0  # from here on, the limit of run() applies
        self._set_alarm(time.monotonic())
        self.ready.set()

    def _serve(self) -> None:
        while True:
            job = None
            try:
                job = self._jobs.get()
                status, body = self._score(job)
            except BaseException:  # raised in this thread by another one of the driver, for example
                if job is None:
                    continue
                status, body = 500, UNKNOWN_FAILURE
            self._running = None
            self._done.append((job, status, body))
            if not self._awake:
                self._awake = True
                self._call_soon(self._deliver)

    def _score(self, job: Job) -> tuple[int, bytes]:
        if job.answered:
            return 0, b""
        job.started = time.monotonic()
        self._running = job
        status, body = self._driver.score(job.body, job.charset_from)
        leave_if_forked(0 if status == 200 else 1)
        return status, body

    def _deliver(self) -> None:
        """Send the answers. The flag is cleared before the queue is read, so that none remains in it."""
        self._awake = False
        while self._done:
            job, status, body = self._done.popleft()
            self._pending.popleft()
            if self.phase is Phase.STUCK:
                self.phase = Phase.READY
            self._answer(job, status, body)

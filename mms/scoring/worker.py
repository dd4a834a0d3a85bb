"""The one thread that calls the driver, its bounded queue and its time limits.

`run()` cannot be interrupted. When its time is over the caller gets 504 and the process counts as stuck; if it is still
stuck GRACE seconds later the process ends, so that whoever supervises it starts a new one. A driver that keeps the
interpreter lock (a regular expression that never ends, say) stops the event loop as well; for that there is an alarm
that needs neither (`faulthandler`'s).
"""

import asyncio
import faulthandler
import gc
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from enum import Enum
from queue import SimpleQueue

from .driver import Driver, error
from .settings import Misconfigured, Settings

GRACE = 5.0  # seconds between a run() that is too late and the end of the process
INIT_FAILED = 3  # exit statuses of the process
STUCK = 70


class Phase(Enum):
    STARTING = "starting"
    READY = "ready"
    STUCK = "stuck"


class Job:
    """One request on its way through the driver. Everything but `started` is touched by the event loop only."""

    __slots__ = ("answered", "body", "reply", "started")

    def __init__(self, body: bytes, reply: Callable[[int, bytes], None]) -> None:
        self.body = body
        self.reply = reply
        self.started = 0.0
        self.answered = False  # or given up by the client


class Worker:
    """Calls `driver.init()` once and then `driver.score()` for one job after the other."""

    def __init__(self, driver: Driver, settings: Settings, end: Callable[[int], None]) -> None:
        """`end(status)` is called on the event loop when this process has become useless."""
        self.phase = Phase.STARTING
        self.ready = asyncio.Event()
        self._driver, self._settings, self._end = driver, settings, end
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._unfinished = 0
        self._running: Job | None = None
        self._done: deque[tuple[Job, int, bytes]] = deque()
        self._awake = False
        self._alarm_at = 0.0
        threading.Thread(target=self._work, name="driver", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """Requests that were taken and are not through the driver yet."""
        return self._unfinished

    def submit(self, body: bytes, reply: Callable[[int, bytes], None]) -> Job | None:
        """Queue one request; `reply(status, json)` follows on the event loop. None when the queue is full."""
        if self._unfinished > self._settings.queue_length:
            return None
        job = Job(body, reply)
        self._unfinished += 1
        self._jobs.put(job)
        return job

    def tick(self) -> None:
        """Check the time limits; called every fraction of a second by the event loop."""
        now = time.monotonic()
        if self.phase is Phase.STARTING:
            if now > self._began + self._settings.init_timeout:
                print(f"init() did not return within {self._settings.init_timeout:g} s.", file=sys.stderr)
                self._end(INIT_FAILED)
        elif (job := self._running) and job.started:
            self._check(job, now - job.started)
        self._set_alarm(now)

    def _check(self, job: Job, seconds: float) -> None:
        limit = self._settings.run_timeout
        if seconds > limit and not job.answered:
            message = f"run() did not return within {limit:g} s."
            print(message, file=sys.stderr)
            self._answer(job, 504, error("TimedOut", message))
        if seconds > limit:
            self.phase = Phase.STUCK
        if seconds > limit + GRACE:
            print(f"run() has not returned for {seconds:.0f} s: this process ends.", file=sys.stderr)
            self._end(STUCK)

    def _set_alarm(self, now: float) -> None:
        """Put off the alarm that ends the process when nothing, not even this, runs any more."""
        if now < self._alarm_at:
            return
        limit = self._settings.init_timeout if self.phase is Phase.STARTING else self._settings.run_timeout
        self._alarm_at = now + 1.0
        faulthandler.dump_traceback_later(limit + GRACE + 1.0, exit=True)

    def _answer(self, job: Job, status: int, body: bytes) -> None:
        if not job.answered:
            job.answered = True
            job.reply(status, body)

    def _work(self) -> None:
        """The thread: nothing here may raise."""
        try:
            self._driver.init()
        except Misconfigured as reason:
            return self._fail(str(reason))
        except BaseException as raised:
            traceback.print_exception(raised, file=sys.stderr)
            return self._fail(f"init() failed: {type(raised).__name__}: {raised}")
        # What is loaded by now stays; the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        self._loop.call_soon_threadsafe(self._set_ready)
        self._serve()

    def _fail(self, message: str) -> None:
        print(message, file=sys.stderr)
        self._loop.call_soon_threadsafe(self._end, INIT_FAILED)

    def _set_ready(self) -> None:
        self.phase = Phase.READY
        self._alarm_at = 0.0  # from here on run()'s limit holds
        self._set_alarm(time.monotonic())
        self.ready.set()

    def _serve(self) -> None:
        while job := self._jobs.get():
            if job.answered:
                status, body = 0, b""
            else:
                job.started = time.monotonic()
                self._running = job
                status, body = self._driver.score(job.body)
                self._running = None
            self._done.append((job, status, body))
            if not self._awake:
                self._awake = True
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Answer what is done. The flag falls before the queue is read, so nothing is left behind."""
        self._awake = False
        while self._done:
            job, status, body = self._done.popleft()
            self._unfinished -= 1
            if self.phase is Phase.STUCK:
                self.phase = Phase.READY
            self._answer(job, status, body)

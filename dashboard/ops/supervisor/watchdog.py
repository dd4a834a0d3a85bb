"""Watches over a worker from inside: one that has lost Redis may come back and consume nothing.

That has been so in several releases of Celery and Kombu (celery#8030, #8091, #9054, #10205), each time for another
reason. So nothing is taken on trust: a worker with threads to spare that takes none of the messages lying in its queue
is deaf. It connects anew; if that does not help, or its event loop stands still, the process ends and is started again
by whoever supervises it. Nothing is lost by that: what it was working on is adopted (the database says what is due).
With several workers on one queue a deaf one is not missed: the others take the messages.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

DEAF = 20.0  # seconds without a task, while there are some: connect anew
HOPELESS = 45.0  # the same, and connecting anew did not help: end the process
LOOK = 2.0  # seconds between two looks

log = logging.getLogger(__name__)


@dataclass
class Watch:
    """What is known of one worker. Times are `time.monotonic()` seconds."""

    now: float
    worked_at: float  # when it last took up or finished a task
    looped_at: float  # when its event loop last ran
    waiting_since: float | None = None  # since when there are messages to be had, without a break
    reconnected_at: float = 0.0

    def silence(self) -> float:
        """For how many seconds tasks were there to be had, and none was taken."""
        if self.waiting_since is None:
            return 0.0
        return self.now - max(self.worked_at, self.waiting_since)

    @property
    def stands_still(self) -> bool:
        return self.waiting_since is not None and self.now - max(self.looped_at, self.waiting_since) > HOPELESS

    @property
    def deaf(self) -> bool:
        """Deaf, and it has had time since it last connected anew."""
        return self.silence() > DEAF and self.now - self.reconnected_at > DEAF

    @property
    def hopeless(self) -> bool:
        return self.silence() > HOPELESS or self.stands_still


class Standstill(threading.Thread):
    """Ends the process when nothing has moved in it for HOPELESS seconds although Redis answers."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(name="standstill", daemon=True)
        self.client, self.moved_at = client, time.monotonic()

    def moved(self) -> None:
        self.moved_at = time.monotonic()

    def run(self) -> None:
        while True:
            time.sleep(LOOK)
            if time.monotonic() - self.moved_at > HOPELESS and self._redis_answers():
                log.error("Nothing has moved for %.0f s: this process ends, to be started anew.", HOPELESS)
                os._exit(1)

    def _redis_answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            self.moved()  # waiting for Redis is no standstill, and neither is what comes right after it
            return False


class Watchdog(threading.Thread):
    """Looks every two seconds, from a thread of its own: an event loop that stands still cannot watch itself.

    `queues`: those it takes messages of. `busy`: whether all of its threads have work. `reconnect`: asks its event loop
    to connect anew.
    """

    def __init__(
        self, client: redis.Redis, queues: Sequence[str], busy: Callable[[], bool], reconnect: Callable[[], None]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.client, self.queues, self.busy, self.reconnect = client, queues, busy, reconnect
        now = time.monotonic()
        self.watch = Watch(now, now, now)
        self.stopped = threading.Event()

    def worked(self) -> None:
        """A task was taken up or has ended."""
        self.watch.worked_at = time.monotonic()

    def looped(self) -> None:
        """The event loop runs."""
        self.watch.looped_at = time.monotonic()

    def run(self) -> None:
        while not self.stopped.wait(LOOK):
            self.look()

    def look(self) -> None:
        watch = self.watch
        watch.now = time.monotonic()
        watch.waiting_since = (watch.waiting_since or watch.now) if self._messages_wait() else None
        if self.busy():
            watch.worked_at = watch.now
        if watch.hopeless:
            log.error("No task for %.0f s, though there are some: this worker ends, to be started anew.", HOPELESS)
            os._exit(1)
        if watch.deaf:
            log.error("No task for %.0f s, though there are some: this worker connects to Redis anew.", DEAF)
            watch.reconnected_at = watch.now
            self.reconnect()

    def _messages_wait(self) -> bool:
        try:
            return any(self.client.llen(queue) for queue in self.queues)
        except redis.RedisError:
            return False

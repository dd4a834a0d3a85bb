"""Detect and restart workers that no longer consume tasks.

After losing Redis, a worker can reconnect and yet receive no messages. Several releases of Celery and Kombu had this
problem, each with a different cause: celery#8030, #8091, #9054, #10205. The watchdog therefore checks only the outcome:
a worker is stalled if it has free threads and starts no task although messages wait. It first reconnects. If that
doesn't help, or if its event loop hangs, the process exits and the supervisor restarts it. No work is lost, because the
database records which operations are due. If several workers share a queue, a stalled one isn't detected, because the
others consume its messages.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

STALLED_SECONDS = 20.0  # without a task while messages wait: reconnect
UNRECOVERABLE_SECONDS = 45.0  # without a task although it has reconnected: exit
CHECK_INTERVAL_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass
class WorkerActivity:
    """The activity of one worker. Times are `time.monotonic()` seconds."""

    now: float
    task_activity_at: float  # when a task last started or ended
    loop_tick_at: float  # when the event loop last ran
    waiting_since: float | None = None  # when the queue became non-empty; None while it is empty
    reconnected_at: float = 0.0

    def stalled_seconds(self) -> float:
        """Return the seconds for which messages have been waiting while no task started or ended."""
        if self.waiting_since is None:
            return 0.0
        return self.now - max(self.task_activity_at, self.waiting_since)

    @property
    def is_loop_hung(self) -> bool:
        """True if the event loop has not run for UNRECOVERABLE_SECONDS while messages were waiting."""
        if self.waiting_since is None:
            return False
        return self.now - max(self.loop_tick_at, self.waiting_since) > UNRECOVERABLE_SECONDS

    @property
    def is_stalled(self) -> bool:
        """True if the worker starts no tasks and didn't reconnect within the last STALLED_SECONDS."""
        return self.stalled_seconds() > STALLED_SECONDS and self.now - self.reconnected_at > STALLED_SECONDS

    @property
    def is_unrecoverable(self) -> bool:
        """True if reconnecting didn't help, or the event loop hangs."""
        return self.stalled_seconds() > UNRECOVERABLE_SECONDS or self.is_loop_hung


class HangDetector(threading.Thread):
    """A thread that exits the process if it makes no progress for UNRECOVERABLE_SECONDS while Redis responds."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(name="hang-detector", daemon=True)
        self.client, self.progress_at = client, time.monotonic()

    def record_progress(self) -> None:
        """Restart the timer."""
        self.progress_at = time.monotonic()

    def run(self) -> None:
        """Check until the process ends."""
        while True:
            time.sleep(CHECK_INTERVAL_SECONDS)
            if time.monotonic() - self.progress_at > UNRECOVERABLE_SECONDS and self._is_redis_up():
                log.error("No progress for %.0f s. Exiting, so that the supervisor restarts it.", UNRECOVERABLE_SECONDS)
                os._exit(1)

    def _is_redis_up(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            self.record_progress()  # waiting for Redis is not a hang, and neither is catching up right afterwards
            return False


class Watchdog(threading.Thread):
    """A thread that checks its worker every two seconds, because a hanging event loop couldn't check itself.

    `queues` are those the worker consumes. `is_busy` returns True if all of its threads run tasks. `reconnect` asks the
    event loop to reconnect to Redis.
    """

    def __init__(
        self, client: redis.Redis, queues: Sequence[str], is_busy: Callable[[], bool], reconnect: Callable[[], None]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.client, self.queues, self.is_busy, self.reconnect = client, queues, is_busy, reconnect
        now = time.monotonic()
        self.activity = WorkerActivity(now, now, now)
        self.stopped = threading.Event()

    def task_activity(self) -> None:
        """Record that a task started or ended."""
        self.activity.task_activity_at = time.monotonic()

    def loop_tick(self) -> None:
        """Record that the event loop runs."""
        self.activity.loop_tick_at = time.monotonic()

    def run(self) -> None:
        """Check until `stopped` is set."""
        while not self.stopped.wait(CHECK_INTERVAL_SECONDS):
            self.check()

    def check(self) -> None:
        """Reconnect a stalled worker, and exit the process of an unrecoverable one."""
        activity = self.activity
        activity.now = time.monotonic()
        activity.waiting_since = (activity.waiting_since or activity.now) if self._has_messages() else None
        if self.is_busy():
            activity.task_activity_at = activity.now
        if activity.is_unrecoverable:
            log.error(
                "No task started in %.0f s although the queue has messages. Exiting, so that the supervisor restarts "
                "this worker.",
                UNRECOVERABLE_SECONDS,
            )
            os._exit(1)
        if activity.is_stalled:
            log.error(
                "No task started in %.0f s although the queue has messages. Reconnecting to Redis.", STALLED_SECONDS
            )
            activity.reconnected_at = activity.now
            self.reconnect()

    def _has_messages(self) -> bool:
        try:
            return any(self.client.llen(queue) for queue in self.queues)
        except redis.RedisError:
            return False

"""The Celery application of the workers and of every process that queues tasks. The scheduler has its own: beat.py."""

import logging
import os
import time
from typing import Any

import redis
from celery import Celery, bootsteps, signals

from deployments.live.outage import OutageFilter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

app = Celery("dashboard")
app.config_from_object("django.conf:settings", namespace="CELERY")
# No autodiscovery: a worker loads only the tasks of its own queue (`--include`, see ops/supervisor/programs.py).


class HeartbeatStep(bootsteps.StartStopStep):
    """Write the worker's heartbeat for each of its queues, and run its watchdog.

    Heartbeats come from the event loop, so they stop when it hangs.
    """

    requires = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **options: Any) -> None:
        self.task_completed_at = time.time()
        self.should_reconnect = False
        self.timer: Any = None
        self.watchdog: Any = None

    def start(self, worker: Any) -> None:
        """Start the heartbeat and the watchdog."""
        from celery.worker import state
        from django.conf import settings

        from dashboard.ops.supervisor import heartbeat, watchdog  # only a worker needs them

        client = heartbeat.connect(settings.REDIS_URL)
        self.watchdog = watchdog.Watchdog(
            heartbeat.connect(settings.REDIS_URL),
            list(worker.app.amqp.queues.consume_from),
            is_busy=lambda: len(state.active_requests) >= worker.concurrency,
            reconnect=self.request_reconnect,
        )

        def beat() -> None:
            self.watchdog.loop_tick()
            for queue in worker.app.amqp.queues.consume_from:
                heartbeat.write(client, f"worker:{queue}", self.task_completed_at)
            if self.should_reconnect:
                self.should_reconnect = False
                raise redis.ConnectionError("The watchdog requested a new connection.")  # makes the consumer reconnect

        beat()
        signals.task_prerun.connect(self.on_task_started)
        signals.task_postrun.connect(self.on_task_completed)
        self.timer = worker.timer.call_repeatedly(heartbeat.INTERVAL_SECONDS, beat)
        self.watchdog.start()

    def on_task_started(self, **_: Any) -> None:
        """Report the task to the watchdog."""
        self.watchdog.task_activity()

    def on_task_completed(self, **_: Any) -> None:
        """Record the time for the next heartbeat and report the task to the watchdog."""
        self.task_completed_at = time.time()
        self.watchdog.task_activity()

    def request_reconnect(self) -> None:
        """Make the event loop reconnect to Redis at its next heartbeat. The watchdog's thread calls this."""
        self.should_reconnect = True

    def stop(self, worker: Any) -> None:
        """Stop the heartbeat and the watchdog."""
        if self.timer:
            self.timer.cancel()
        if self.watchdog:
            self.watchdog.stopped.set()


def limit_outage_logs(logger: logging.Logger, **_: Any) -> None:
    """Limit what Celery logs while Redis is unavailable."""
    OutageFilter().add_to(logger)


def tolerate_unreadable_messages(**_: Any) -> None:
    """Let this worker drop messages that it can't read."""
    from django.conf import settings

    from dashboard.ops.supervisor import messages  # only a worker needs it

    messages.install(settings.REDIS_URL)


app.steps["worker"].add(HeartbeatStep)
signals.after_setup_logger.connect(limit_outage_logs)
signals.worker_init.connect(tolerate_unreadable_messages)

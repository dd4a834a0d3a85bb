"""The Celery application of the workers and of everybody who enqueues. Beat has a lighter one: see beat.py."""

import os
import time
from typing import Any

import redis
from celery import Celery, bootsteps, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

app = Celery("dashboard")
app.config_from_object("django.conf:settings", namespace="CELERY")
# No autodiscovery: a worker loads the tasks of its own queue only (`--include`, see supervision.py).


class SignsOfLife(bootsteps.StartStopStep):
    """Writes the worker's sign of life for each of its queues, from its own event loop: a stuck loop is silent.

    And keeps the watchdog that heals a worker which has lost Redis and consumes nothing any more.
    """

    requires = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **options: Any) -> None:
        self.worked_at = time.time()
        self.connects_anew = False
        self.timer: Any = None
        self.watchdog: Any = None

    def start(self, worker: Any) -> None:
        from celery.worker import state
        from django.conf import settings

        from dashboard.ops.supervisor import heartbeat, watchdog  # only a worker needs them

        client = heartbeat.connect(settings.REDIS_URL)
        self.watchdog = watchdog.Watchdog(
            heartbeat.connect(settings.REDIS_URL),
            list(worker.app.amqp.queues.consume_from),
            busy=lambda: len(state.active_requests) >= worker.concurrency,
            reconnect=self.connect_anew,
        )

        def beat() -> None:
            self.watchdog.looped()
            for queue in worker.app.amqp.queues.consume_from:
                heartbeat.write(client, f"worker:{queue}", self.worked_at)
            if self.connects_anew:
                self.connects_anew = False
                raise redis.ConnectionError("The watchdog asked for a new connection.")  # the consumer's own way

        beat()
        signals.task_prerun.connect(self.task_taken_up)
        signals.task_postrun.connect(self.task_done)
        self.timer = worker.timer.call_repeatedly(heartbeat.INTERVAL, beat)
        self.watchdog.start()

    def task_taken_up(self, **_: Any) -> None:
        self.watchdog.worked()

    def task_done(self, **_: Any) -> None:
        self.worked_at = time.time()
        self.watchdog.worked()

    def connect_anew(self) -> None:
        self.connects_anew = True

    def stop(self, worker: Any) -> None:
        if self.timer:
            self.timer.cancel()
        if self.watchdog:
            self.watchdog.stopped.set()


app.steps["worker"].add(SignsOfLife)

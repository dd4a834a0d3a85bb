"""The Celery application of the workers and of everybody who enqueues. Beat has a lighter one: see beat.py."""

import os
import time
from typing import Any

from celery import Celery, bootsteps, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

app = Celery("dashboard")
app.config_from_object("django.conf:settings", namespace="CELERY")
# No autodiscovery: a worker loads the tasks of its own queue only (`--include`, see supervision.py).


class Heartbeat(bootsteps.StartStopStep):
    """Writes the worker's sign of life for each of its queues, from its own event loop: a stuck loop is silent."""

    requires = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **options: Any) -> None:
        self.worked_at = time.time()
        self.timer: Any = None

    def start(self, worker: Any) -> None:
        from dashboard import heartbeat  # only a worker needs it

        client = heartbeat.connect(app.conf.broker_url.replace("redis+socket://", "unix://", 1))
        signals.task_postrun.connect(self.task_done)

        def beat() -> None:
            for queue in worker.app.amqp.queues.consume_from:
                heartbeat.write(client, f"worker:{queue}", self.worked_at)

        beat()
        self.timer = worker.timer.call_repeatedly(heartbeat.INTERVAL, beat)

    def task_done(self, **_: Any) -> None:
        self.worked_at = time.time()

    def stop(self, worker: Any) -> None:
        if self.timer:
            self.timer.cancel()


app.steps["worker"].add(Heartbeat)

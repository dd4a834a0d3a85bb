"""Celery beat with an application of its own: it knows when to send which task, and loads neither Django nor tasks.

The schedule is kept in memory: every entry is a matter of seconds, and the database says what is really due. Each half
of the site (settings.SERVE) sends only its own tasks, so that two beats beside each other repeat nothing.
"""

import time
from typing import Any

import redis
from celery import Celery
from celery.beat import Scheduler as InMemoryScheduler

from dashboard import settings
from dashboard.ops.supervisor import heartbeat, watchdog

LONGEST = 100  # messages in a queue, beyond which nothing is added: nobody takes them

SCHEDULES: dict[str, dict[str, dict[str, Any]]] = {
    "dashboard": {
        "poll-operations": {"task": "deployments.poll_operations", "schedule": 1.0, "options": {"expires": 2}},
        "sweep-operations": {"task": "deployments.sweep_operations", "schedule": 10.0, "options": {"expires": 20}},
        "refresh-mirrors": {"task": "deployments.refresh_mirrors", "schedule": 5.0, "options": {"expires": 10}},
        "prune": {"task": "deployments.prune", "schedule": 60.0, "options": {"expires": 60}},
        # With the half minute that an open stream goes on (stream.RECHECK_SECONDS): gone within 60 s.
        "withdraw": {"task": "dashboard.withdraw", "schedule": 15.0, "options": {"expires": 20}},
        "prune-audit": {"task": "dashboard.prune_audit", "schedule": 3600.0, "options": {"expires": 600}},
    },
    "mms": {
        "watch-services": {"task": "mms.watch_services", "schedule": 2.0, "options": {"expires": 4}},
        "sweep-mms-operations": {"task": "mms.sweep_operations", "schedule": 10.0, "options": {"expires": 20}},
        "prune-mms": {"task": "mms.prune", "schedule": 60.0, "options": {"expires": 60}},
    },
}

app = Celery("beat", fixups=[])
app.config_from_object(settings, namespace="CELERY")
app.conf.beat_schedule = {name: entry for part in sorted(settings.SERVE) for name, entry in SCHEDULES[part].items()}


class Scheduler(InMemoryScheduler):
    """Beat's own scheduler, leaving a sign of life, and no pile of messages where no worker is.

    A message that has expired is dropped by who takes it, and so never without a worker.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.redis = heartbeat.connect(settings.REDIS_URL)
        self.signed_at = 0.0
        self.standstill = watchdog.Standstill(heartbeat.connect(settings.REDIS_URL))
        self.standstill.start()

    def tick(self, *args: Any, **options: Any) -> float:
        wait = super().tick(*args, **options)
        self.standstill.moved()
        if (now := time.time()) - self.signed_at >= heartbeat.INTERVAL:
            self.signed_at = now
            heartbeat.write(self.redis, f"beat:{'+'.join(sorted(settings.SERVE))}", now)
        return wait

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        if self._has_room(app.amqp.router.route({}, entry.task)["queue"].name):
            super().apply_entry(entry, producer)

    def _has_room(self, queue: str) -> bool:
        try:
            return self.redis.llen(queue) < LONGEST
        except redis.RedisError:  # nothing can be sent, and kombu would take long to find that out
            return False

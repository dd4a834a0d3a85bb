"""The scheduler: Celery beat with an application of its own, which loads neither Django nor the tasks.

The schedule is in memory only, because intervals are seconds long and the database records what is due. Each half of
the site (settings.SERVE) schedules only its own tasks, so two schedulers never send the same one.
"""

import logging
import time
from typing import Any

import redis
from celery import Celery, signals
from celery.beat import Scheduler as InMemoryScheduler

from dashboard import settings
from dashboard.ops.supervisor import heartbeat, watchdog
from deployments.live.outage import OutageFilter

MAX_QUEUE_LENGTH = 100  # messages; a queue this long has no working consumer

SCHEDULES: dict[str, dict[str, dict[str, Any]]] = {
    "dashboard": {
        "poll-operations": {"task": "deployments.poll_operations", "schedule": 1.0, "options": {"expires": 2}},
        "sweep-operations": {"task": "deployments.sweep_operations", "schedule": 10.0, "options": {"expires": 20}},
        "refresh-mirrors": {"task": "deployments.refresh_mirrors", "schedule": 5.0, "options": {"expires": 10}},
        "prune": {"task": "deployments.prune", "schedule": 60.0, "options": {"expires": 60}},
        # An open stream is rechecked every 30 s (live.RECHECK_SECONDS), so access ends within 60 s.
        "withdraw": {"task": "dashboard.withdraw", "schedule": 15.0, "options": {"expires": 20}},
        "prune-audit": {"task": "dashboard.prune_audit", "schedule": 3600.0, "options": {"expires": 600}},
    },
    "mms": {
        "watch-services": {"task": "mms.watch_services", "schedule": 2.0, "options": {"expires": 4}},
        "sweep-mms-operations": {"task": "mms.sweep_operations", "schedule": 3.0, "options": {"expires": 6}},
        "prune-mms": {"task": "mms.prune", "schedule": 60.0, "options": {"expires": 60}},
    },
}

app = Celery("beat", fixups=[])
app.config_from_object(settings, namespace="CELERY")
app.conf.beat_schedule = {name: entry for part in sorted(settings.SERVE) for name, entry in SCHEDULES[part].items()}


def limit_outage_logs(logger: logging.Logger, **_: Any) -> None:
    """Limit what Celery logs while Redis is unavailable."""
    OutageFilter().add_to(logger)


signals.after_setup_logger.connect(limit_outage_logs)


class Scheduler(InMemoryScheduler):
    """Celery's in-memory scheduler, with a heartbeat and a limit on the length of the queues.

    Expired messages are dropped by the consumer, so without a worker the queue would grow without bound.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.redis = heartbeat.connect(settings.REDIS_URL)
        self.heartbeat_at = 0.0
        self.hang_detector = watchdog.HangDetector(heartbeat.connect(settings.REDIS_URL))
        self.hang_detector.start()

    def tick(self, *args: Any, **options: Any) -> float:
        """Send the tasks that are due and write a heartbeat. Return the seconds until the next task."""
        wait: float = super().tick(*args, **options)
        self.hang_detector.record_progress()
        if (now := time.time()) - self.heartbeat_at >= heartbeat.INTERVAL_SECONDS:
            self.heartbeat_at = now
            heartbeat.write(self.redis, f"beat:{'+'.join(sorted(settings.SERVE))}", now)
        return wait

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the task of `entry` unless its queue is full."""
        if self._has_room(app.amqp.router.route({}, entry.task)["queue"].name):
            super().apply_entry(entry, producer)

    def _has_room(self, queue: str) -> bool:
        try:
            return self.redis.llen(queue) < MAX_QUEUE_LENGTH
        except redis.RedisError:  # sending would fail as well, but only after kombu's long timeout
            return False

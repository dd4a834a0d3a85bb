"""The queue message that hurries an operation. Losing it costs seconds: the database says what is due."""

import logging

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from deployments.live import redis
from deployments.models import Operation

log = logging.getLogger(__name__)
MAX_QUEUE_LENGTH = (
    1000  # messages in the queue; what finds no place is found by the tick, once the queue is short again
)


def hint(operation: Operation) -> None:
    """Tell the workers that there is something to do for the operation; its id is all they get."""
    _send("deployments.send_operation", str(operation.pk))


def hint_refresh() -> None:
    """Tell the workers that somebody wants the mirror refreshed now."""
    _send("deployments.refresh_mirrors")


def _send(task: str, *arguments: str) -> None:
    # Asked first, for kombu itself retries a lost connection for seconds, whatever it is told.
    length = redis.execute(lambda connection: connection.llen(settings.CELERY_TASK_DEFAULT_QUEUE), fallback=None)
    if length is None or length >= MAX_QUEUE_LENGTH:
        return
    try:
        current_app.send_task(task, arguments, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning(
            "Couldn't queue %s because the queue is unreachable; the next tick finds what is due: %s", task, error
        )

"""Queue messages that start due work early. A lost message causes a delay of seconds: ticks read the database."""

import logging

from celery import current_app
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from deployments.live import redis
from deployments.models import Operation
from deployments.models.operation import State

log = logging.getLogger(__name__)
MAX_QUEUE_LENGTH = 1000  # further messages are dropped; the tick finds that work in the database


def hint(operation: Operation) -> None:
    """Tell the workers that the operation is due. The message only has its id.

    If that fails, the operation doesn't wait for the message, and the next tick starts it.
    """
    if not _send("deployments.send_operation", str(operation.pk)):
        now = timezone.now()
        waiting = Operation.objects.filter(pk=operation.pk, state=State.QUEUED, next_poll_at__gt=now)
        waiting.update(next_poll_at=now)


def hint_refresh() -> None:
    """Tell the workers that a user requested a refresh of the mirror."""
    _send("deployments.refresh_mirrors")


def _send(task: str, *arguments: str) -> bool:
    """Send the message. Return False if the queue is unreachable or full."""
    # Checked first, because kombu retries a lost connection for seconds regardless of its options.
    length = redis.execute(lambda connection: connection.llen(settings.CELERY_TASK_DEFAULT_QUEUE), fallback=None)
    if length is None or length >= MAX_QUEUE_LENGTH:
        return False
    try:
        current_app.send_task(task, arguments, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning(
            "Couldn't queue %s because the queue is unreachable; the next tick starts the work: %s", task, error
        )
        return False
    return True

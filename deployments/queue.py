"""The queue message that hurries an operation. Losing it costs seconds: the database says what is due."""

import logging

from celery import current_app
from kombu.exceptions import OperationalError

from deployments import volatile
from deployments.models import Operation

log = logging.getLogger(__name__)


def hint(operation: Operation) -> None:
    """Tell the workers that there is something to do for the operation; its id is all they get."""
    # Asked first, for kombu itself retries a lost connection for seconds, whatever it is told.
    if not volatile.attempt(lambda connection: connection.ping(), fallback=False):
        return
    try:
        current_app.send_task("deployments.send_operation", [str(operation.pk)], retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("Operation %s waits for the sweep, the queue is out of reach: %s", operation.pk, error)

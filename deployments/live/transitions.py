"""State changes of operations, as conditional UPDATEs so that one of several workers wins."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db import OperationalError, close_old_connections, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from deployments.live import events
from deployments.live.badges import NOUN
from deployments.models import Operation
from deployments.models.operation import OPEN, TERMINAL, State

log = logging.getLogger(__name__)
MAX_LOCK_WAIT_SECONDS = 120.0  # more than the lease of the sender

# States from which each state can be reached. Terminal states are final.
PREDECESSORS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.SENDING: frozenset({State.QUEUED}),
    # From itself: a worker presumed lost may still report that the request was accepted (run.mark_uncertain).
    State.UNCERTAIN: frozenset({State.SENDING, State.NOT_STARTED, State.RUNNING, State.UNCERTAIN}),
    State.NOT_STARTED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.RUNNING: frozenset({State.SENDING, State.UNCERTAIN, State.NOT_STARTED}),
    State.SUCCEEDED: OPEN - {State.QUEUED},
    State.FAILED: OPEN,
    State.CANCELED: OPEN,
}


def transition(operation: Operation, state: State, *, expected: Iterable[State] = OPEN, **fields: Any) -> bool:
    """Move the operation to `state` and set `fields`, if it is in one of the `expected` states.

    Does nothing if the operation was sent again since it was loaded, because the result belongs to another attempt.
    Return True if this call made the change; `operation` then has the new values and pages are notified on commit.
    """
    now = timezone.now()
    fields |= {"state": state, "state_since": now, "claimed_until": fields.get("claimed_until")}
    fields |= {"check_error": "", "check_failed_at": None}
    fields.setdefault("error_details", [])
    if state in TERMINAL:
        fields |= {"finished_at": now, "next_poll_at": None, "cancel_requested": False}
    same_attempt = Operation.objects.filter(pk=operation.pk, sent_at=operation.sent_at)
    if not conditional_update(
        operation, same_attempt.filter(state__in=PREDECESSORS[state] & frozenset(expected)), **fields
    ):
        return False
    # Robust: a failed notification must not undo the change
    transaction.on_commit(lambda: _publish(operation, state), robust=True)
    return True


def conditional_update(row: Model, where: QuerySet[Any], **fields: Any) -> bool:
    """Update `fields` of the row if `where` still matches it, and return True if it did. Updates `row` as well."""
    if not where.update(**fields):
        return False
    for name, value in fields.items():
        setattr(row, name, value)
    return True


def retry_on_lock(save: Callable[..., None], *args: Any) -> None:
    """Call `save(*args)` until the database accepts it, for up to MAX_LOCK_WAIT_SECONDS.

    Use it to record a server's response, which can't be requested again. Raises OperationalError if the database stays
    locked, full or unavailable; the outcome is then unknown, as after a crash of this process.
    """
    until = time.monotonic() + MAX_LOCK_WAIT_SECONDS
    while True:
        try:
            return save(*args)
        except OperationalError as error:
            if time.monotonic() > until:
                raise
            log.warning("Couldn't store the server's response yet: %s", error)
        time.sleep(1)
        close_old_connections()


def _publish(operation: Operation, state: State) -> None:
    row = operation.resource
    lists = [f"{NOUN[type(row)]}s"] if row is not None and state in TERMINAL else []
    events.publish_operation(operation, *lists)

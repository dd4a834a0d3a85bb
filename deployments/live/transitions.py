"""Rows change by conditional UPDATE, so that of two workers one wins; `change` is how an operation gets its state."""

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
MAX_LOCK_WAIT_SECONDS = 120.0  # seconds; somewhat more than the lease of a sender

# From which states each state is reached. A terminal state is left by nothing.
PREDECESSORS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.SENDING: frozenset({State.QUEUED}),
    # From itself: that it was accepted may be heard by who is taken for dead (pipeline.doubt).
    State.UNCERTAIN: frozenset({State.SENDING, State.NOT_STARTED, State.RUNNING, State.UNCERTAIN}),
    State.NOT_STARTED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.RUNNING: frozenset({State.SENDING, State.UNCERTAIN, State.NOT_STARTED}),
    State.SUCCEEDED: OPEN - {State.QUEUED},
    State.FAILED: OPEN,
    State.CANCELED: OPEN,
}


def transition(operation: Operation, state: State, *, expected: Iterable[State] = OPEN, **fields: Any) -> bool:
    """Move the operation on to `state`, with other fields, if it still is in one of the `expected` states.

    An operation that was sent anew meanwhile is left alone: the answer is about another attempt. True when this call
    did it; `operation` then has the new values, and the pages know.
    """
    now = timezone.now()
    fields |= {"state": state, "state_since": now, "claimed_until": fields.get("claimed_until")}
    if state in TERMINAL:
        fields |= {"finished_at": now, "next_poll_at": None, "cancel_requested": False}
    same = Operation.objects.filter(pk=operation.pk, sent_at=operation.sent_at)
    if not conditional_update(operation, same.filter(state__in=PREDECESSORS[state] & frozenset(expected)), **fields):
        return False
    transaction.on_commit(lambda: _publish(operation, state), robust=True)  # it is true, told or not
    return True


def conditional_update(row: Model, where: QuerySet[Any], **fields: Any) -> bool:
    """Write the fields in the database if the row is still found by `where`; whether it was. `row` has them then."""
    if not where.update(**fields):
        return False
    for name, value in fields.items():
        setattr(row, name, value)
    return True


def retry_on_lock(put_down: Callable[..., None], *args: Any) -> None:
    """Run `put_down(*args)`, which puts down what a server said and may never say again, until the database takes it.

    One that is locked, full or out of reach has INSIST seconds to recover. Raises OperationalError then: what was sent
    is in doubt, as if this process had died.
    """
    until = time.monotonic() + MAX_LOCK_WAIT_SECONDS
    while True:
        try:
            return put_down(*args)
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

"""The one way an operation changes its state: by conditional UPDATE, so that of two workers one wins."""

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from deployments import live
from deployments.badges import NOUN
from deployments.models import Operation
from deployments.models.operation import OPEN, TERMINAL, State

# From which states each state is reached. A terminal state is left by nothing.
BEFORE: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.SENDING: frozenset({State.QUEUED}),
    State.UNCERTAIN: frozenset({State.SENDING, State.NOT_STARTED, State.RUNNING}),
    State.NOT_STARTED: frozenset({State.SENDING, State.UNCERTAIN}),
    State.RUNNING: frozenset({State.SENDING, State.UNCERTAIN, State.NOT_STARTED}),
    State.SUCCEEDED: OPEN - {State.QUEUED},
    State.FAILED: OPEN,
    State.CANCELED: OPEN,
}


def change(operation: Operation, state: State, *, expected: Iterable[State] = OPEN, **fields: Any) -> bool:
    """Move the operation on to `state`, with other fields, if it still is in one of the `expected` states.

    An operation that was sent anew meanwhile is left alone: the answer is about another attempt. True when this call
    did it; `operation` then has the new values, and the pages know.
    """
    now = timezone.now()
    fields |= {"state": state, "state_since": now, "claimed_until": fields.get("claimed_until")}
    if state in TERMINAL:
        fields |= {"finished_at": now, "next_poll_at": None, "cancel_requested": False}
    same = Operation.objects.filter(pk=operation.pk, sent_at=operation.sent_at)
    if not same.filter(state__in=BEFORE[state] & frozenset(expected)).update(**fields):
        return False
    for name, value in fields.items():
        setattr(operation, name, value)
    transaction.on_commit(lambda: _publish(operation, state))
    return True


def _publish(operation: Operation, state: State) -> None:
    row = operation.resource
    lists = [f"{NOUN[type(row)]}s"] if row is not None and state in TERMINAL else []
    live.publish_operation(operation, *lists)

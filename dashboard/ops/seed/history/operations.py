"""Sample operations in each state, with the times and messages that the state implies."""

from datetime import datetime, timedelta
from typing import Any

from dashboard.ops.seed.failures import REASONS, Failure
from dashboard.ops.seed.history.story import Resource, Story
from deployments.live.badges import NOUN
from deployments.models import Operation
from deployments.models.operation import NEEDS_DECISION, OPEN, TERMINAL, Kind, State
from deployments.operations.poll import POLLING_STOPPED
from deployments.operations.reconcile import CANNOT_SHOW, decision_text
from deployments.timing import MAX_POLLING_SECONDS

SECONDS: dict[str, tuple[float, float]] = {  # duration range, from acceptance to completion
    Kind.REGISTER_MODEL: (0.2, 2.0),
    Kind.CREATE_MANIFEST: (0.2, 1.5),
    Kind.CREATE_IMAGE: (38, 410),
    Kind.CREATE_SERVICE: (9, 75),
    Kind.UPDATE_SERVICE: (11, 90),
    Kind.DELETE_SERVICE: (1.5, 6),
}
POLL_DELAY = timedelta(days=1)  # keeps workers from polling sample operations


def add_operation(
    story: Story,
    kind: Kind,
    row: Resource,
    chosen: dict[str, Any],
    by: str,
    at: datetime,
    state: State = State.SUCCEEDED,
    revision: int = 1,
    **more: Any,
) -> Operation:
    """Add and return an operation on `row` that `by` requested at `at` and that is now in `state`.

    `revision`: the revision number in the error of a failed rollout. `more`: values of other columns.
    """
    operation = Operation(
        id=story.world.uuid(), account=story.account, kind=kind, state=state, requested_by=by, **{NOUN[type(row)]: row}
    )
    story.operations.append(operation)
    story.chosen[operation.pk] = chosen
    _set_times(story, operation, at)
    if state in OPEN:
        _set_progress_message(story, operation)
    elif state == State.FAILED:
        _fail(operation, story.world.random.choice(REASONS[kind]), revision)
    elif state == State.CANCELED:
        operation.error_message = f"Canceled by {by} before it was sent."
    for name, value in more.items():
        setattr(operation, name, value)
    since = operation.finished_at or operation.accepted_at or operation.sent_at or at
    story.at(operation, requested_at=at, state_since=since)
    return operation


def _set_times(story: Story, operation: Operation, at: datetime) -> None:
    """Set the times at which the operation was sent, accepted and finished, as far as its state implies them."""
    random, state = story.world.random, State(operation.state)
    if state == State.QUEUED:
        # Without an attempt, a worker would fail the operation after an hour at an unreachable server.
        operation.attempts = 1 if story.account.is_failing else 0
        operation.next_poll_at = story.world.now + POLL_DELAY
        return
    if state == State.CANCELED:
        operation.finished_at = at + timedelta(seconds=random.uniform(2, 40))
        return
    operation.attempts, operation.sent_at = 1, at + timedelta(seconds=random.uniform(0.05, 0.6))
    if state in {State.SENDING, State.UNCERTAIN}:
        return
    operation.accepted_at = operation.sent_at + timedelta(seconds=random.uniform(0.03, 0.4))
    operation.mms_operation_id = str(story.world.uuid())
    if state in TERMINAL:
        operation.finished_at = operation.accepted_at + timedelta(seconds=random.uniform(*SECONDS[operation.kind]))
        operation.checked_at = operation.finished_at


def _set_progress_message(story: Story, operation: Operation) -> None:
    """Set the message and poll times of an open operation. None is due soon, so that workers leave it unchanged."""
    now, state = story.world.now, State(operation.state)
    last_response = story.account.reached_at or now
    if state in {State.NOT_STARTED, State.RUNNING}:
        stopped = operation.accepted_at is not None and now - operation.accepted_at > timedelta(
            seconds=MAX_POLLING_SECONDS
        )
        operation.checked_at = last_response
        operation.next_poll_at = None if stopped else now + POLL_DELAY
        operation.error_message = POLLING_STOPPED if stopped else ""
    elif state == State.UNCERTAIN:
        operation.error_code = NEEDS_DECISION
        operation.checked_at = last_response
        operation.error_message = f"{CANNOT_SHOW} {decision_text(operation)}"
    elif state == State.QUEUED and story.account.is_failing:
        operation.error_message = story.account.error


def _fail(operation: Operation, failure: Failure, revision: int) -> None:
    operation.error_code = failure.code
    operation.error_message = failure.message.replace("{number}", str(revision))
    operation.error_details = failure.details()
    if failure.seconds and operation.accepted_at:
        operation.finished_at = operation.checked_at = operation.accepted_at + timedelta(seconds=failure.seconds)

"""Operations as they are stored in each state: which times they have, and what is said about them."""

from datetime import datetime, timedelta
from typing import Any

from dashboard.ops.seed.failures import REASONS, Failure
from dashboard.ops.seed.history.story import Resource, Story
from deployments.live.badges import NOUN
from deployments.models import Operation
from deployments.models.operation import NEEDS_DECISION, OPEN, TERMINAL, Kind, State
from deployments.operations.reconcile import CHANGED_TWICE, DECIDE, MADE_TWICE
from deployments.operations.run import POLLING_STOPPED
from deployments.timing import MAX_POLLING_SECONDS

SECONDS: dict[str, tuple[float, float]] = {  # from acceptance to the end
    Kind.REGISTER_MODEL: (0.2, 2.0),
    Kind.CREATE_MANIFEST: (0.2, 1.5),
    Kind.CREATE_IMAGE: (38, 410),
    Kind.CREATE_SERVICE: (9, 75),
    Kind.UPDATE_SERVICE: (11, 90),
    Kind.DELETE_SERVICE: (1.5, 6),
}
RESTED = timedelta(days=1)  # the next poll of what nobody is to poll


def ask(
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
    """Add an operation on `row` that `by` asked for at that time, and that is in `state` now.

    `revision`: the number that a failed rollout names. `more`: other columns.
    """
    operation = Operation(
        id=story.world.uuid(), account=story.account, kind=kind, state=state, requested_by=by, **{NOUN[type(row)]: row}
    )
    story.operations.append(operation)
    story.chosen[operation.pk] = chosen
    _progress(story, operation, at)
    if state in OPEN:
        _say_how_it_goes(story, operation)
    elif state == State.FAILED:
        _fail(operation, story.world.random.choice(REASONS[kind]), revision)
    elif state == State.CANCELED:
        operation.error_message = f"Canceled by {by} before it was sent."
    for name, value in more.items():
        setattr(operation, name, value)
    since = operation.finished_at or operation.accepted_at or operation.sent_at or at
    story.at(operation, requested_at=at, state_since=since)
    return operation


def _progress(story: Story, operation: Operation, at: datetime) -> None:
    """Set when it was sent, accepted and finished, as far as it got."""
    random, state = story.world.random, State(operation.state)
    if state == State.QUEUED:
        # Attempted: what was never sent fails after an hour at a server that can't be called.
        operation.attempts = 1 if story.account.is_failing else 0
        operation.next_poll_at = story.world.now + RESTED
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


def _say_how_it_goes(story: Story, operation: Operation) -> None:
    """Set what people read about an open operation. Nothing is due at once: a worker would change it."""
    now, state = story.world.now, State(operation.state)
    heard = story.account.reached_at or now
    if state in {State.NOT_STARTED, State.RUNNING}:
        stopped = operation.accepted_at is not None and now - operation.accepted_at > timedelta(
            seconds=MAX_POLLING_SECONDS
        )
        operation.checked_at = heard
        operation.next_poll_at = None if stopped else now + RESTED
        operation.error_message = POLLING_STOPPED if stopped else ""
    elif state == State.UNCERTAIN:
        operation.error_code = NEEDS_DECISION
        operation.checked_at = heard
        twice, unseen = CHANGED_TWICE if operation.kind in {Kind.UPDATE_SERVICE, Kind.DELETE_SERVICE} else MADE_TWICE
        operation.error_message = DECIDE.format(twice=twice, unseen=unseen)
    elif state == State.QUEUED and story.account.is_failing:
        operation.error_message = story.account.error


def _fail(operation: Operation, failure: Failure, revision: int) -> None:
    operation.error_code = failure.code
    operation.error_message = failure.message.replace("{number}", str(revision))
    operation.error_details = failure.details()
    if failure.seconds and operation.accepted_at:
        operation.finished_at = operation.checked_at = operation.accepted_at + timedelta(seconds=failure.seconds)

"""Steps of workers for accepted operations: get their states from the server, and record changes.

A batch of operations takes one claim, one call if the server returns several states at a time (else one call each), and
one update for all operations whose state is unchanged. Each step is safe from several workers.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import OperationalError
from django.db.models import QuerySet
from django.utils import timezone

from deployments.accounts.availability import record_failure, record_success
from deployments.client import errors, wire
from deployments.client.client import MAX_IDS, MMSClient
from deployments.live import checks, events
from deployments.live.badges import NOUN, badge_of
from deployments.live.transitions import conditional_update, retry_on_lock, transition
from deployments.models import HostingAccount, Operation
from deployments.models.operation import ACCEPTED, Kind, State
from deployments.operations import run
from deployments.resources import logs, rows, scoring_keys
from deployments.timing import (
    LEASE_SECONDS,
    MAX_POLLING_SECONDS,
    TICK_AHEAD_SECONDS,
    failure_interval,
    jittered,
    poll_seconds,
)

log = logging.getLogger(__name__)
NOT_FOUND_GRACE_SECONDS = 30.0  # after acceptance; until then, an unknown operation may just be delayed
UNKNOWN_STATE = "UnknownState"
STATUS_UNAVAILABLE = "NotTold"
NOTE_CODES = {UNKNOWN_STATE, STATUS_UNAVAILABLE, run.UNEXPECTED_ERROR}  # error codes of notes on an open operation
POLLING_STOPPED = (
    f"Not finished after {MAX_POLLING_SECONDS / 3600:.0f} hours. The dashboard stopped checking; resume to continue."
)
FAILED_BATCH_PAUSE_SECONDS = 60.0  # in which each state is asked for alone
SINGLE_CALLS = 20  # operations claimed at a time at a server that returns one state per call
UNCHANGED = {
    State.NOT_STARTED: {wire.Phase.NOT_STARTED},
    State.RUNNING: {wire.Phase.NOT_STARTED, wire.Phase.RUNNING},  # a state that goes back is ignored
}
RESULT_READERS: dict[str, Callable[[MMSClient, str], rows.Item]] = {
    Kind.CREATE_IMAGE: MMSClient.get_image,
    Kind.CREATE_SERVICE: MMSClient.get_service,
    Kind.UPDATE_SERVICE: MMSClient.get_service,
}
_ANSWERED: dict[str, Any] = {"check_error": "", "check_failed_at": None, "failures": 0}
# Accounts whose servers return several states at a time, as far as this process knows, and those where that failed
# with the time.monotonic() until which each state is asked for alone.
_batching_accounts: set[int] = set()
_one_at_a_time_until: dict[int, float] = {}


def returns_several_states(account_id: int) -> bool:
    """Return True if the account's server recently offered to return the states of several operations at a time."""
    return account_id in _batching_accounts and not _is_one_at_a_time(account_id)


def _is_one_at_a_time(account_id: int) -> bool:
    return time.monotonic() < _one_at_a_time_until.get(account_id, 0.0)


def poll(operation: Operation, client: MMSClient) -> None:
    """Ask the server for the state of one operation, unless another worker is doing so."""
    lease = timezone.now() + timedelta(seconds=LEASE_SECONDS)
    claimable = _unchanged(operation).filter(next_poll_at=operation.next_poll_at)
    if conditional_update(operation, claimable, next_poll_at=lease):
        _poll_one(operation, client)


def poll_batch(
    account: HostingAccount, operation_ids: Sequence[UUID], client: MMSClient, is_over: Callable[[], bool]
) -> None:
    """Ask the server for the states of the operations that are due and that no other worker is polling.

    is_over: returns True when no further call may start. The remaining operations stay due.
    """
    waiting, size = list(operation_ids), MAX_IDS if returns_several_states(account.pk) else 1
    while waiting and not is_over():
        part, waiting = waiting[:size], waiting[size:]
        not_reached = claimed = _claim(account, part)
        try:
            not_reached = _poll_claimed(account, claimed, client, is_over)
        finally:
            _release(not_reached)
        size = MAX_IDS if _can_batch(account, client) else SINGLE_CALLS
    if client.has_operation_ids:
        _batching_accounts.add(account.pk)
    else:
        _batching_accounts.discard(account.pk)


def _claim(account: HostingAccount, operation_ids: Sequence[UUID]) -> list[Operation]:
    """Lease the operations that are due, and return them without their related rows.

    The lease differs from those of other workers, so that it identifies what this call claimed.
    """
    now = timezone.now()
    lease = now + timedelta(seconds=LEASE_SECONDS + random.random())  # noqa: S311 - guards nothing
    due = Operation.objects.filter(pk__in=operation_ids, account=account, state__in=ACCEPTED)
    if not due.filter(next_poll_at__lte=now + timedelta(seconds=TICK_AHEAD_SECONDS)).update(next_poll_at=lease):
        return []
    claimed = list(due.filter(next_poll_at=lease).defer("body", "error_details"))
    for operation in claimed:
        operation.account = account
    return claimed


def _poll_claimed(
    account: HostingAccount, claimed: Sequence[Operation], client: MMSClient, is_over: Callable[[], bool]
) -> list[Operation]:
    """Poll the claimed operations. Return those that weren't reached in this turn."""
    asked_at = timezone.now()
    statuses = _fetch_statuses(account, claimed, client)
    confirmed: list[Operation] = []
    rest: list[Operation] = []
    for operation in claimed:
        status = statuses.get(operation.mms_operation_id)
        if status is None:
            rest.append(operation)
        elif _is_unchanged(operation, status):
            confirmed.append(operation)
        else:
            _guarded(operation, partial(_record, status=status, client=client))
    while rest and not is_over():
        operation = rest.pop(0)
        if operation.mms_operation_id and not operation.cancel_requested:
            _ask_for_one(operation, client, confirmed)
        else:
            _guarded(operation, partial(_poll_one, client=client))
    _schedule(confirmed, asked_at)
    return rest


def _fetch_statuses(
    account: HostingAccount, claimed: Sequence[Operation], client: MMSClient
) -> dict[str, wire.OperationStatus]:
    """Return the states that one call can get. The others are asked for one at a time, and show what is wrong."""
    ids = [row.mms_operation_id for row in claimed if row.mms_operation_id and not row.cancel_requested]
    if len(ids) < 2 or not _can_batch(account, client):
        return {}
    try:
        statuses = client.get_operations(ids)
    except errors.MMSError as error:
        log.info("Couldn't read the states of several operations of account %s: %s", account, error)
        if isinstance(error, errors.NotSentError | errors.TokenRefusedError):
            record_failure(account, error)
        else:
            _one_at_a_time_until[account.pk] = time.monotonic() + FAILED_BATCH_PAUSE_SECONDS
        return {}
    record_success(account, client)
    return statuses


def _can_batch(account: HostingAccount, client: MMSClient) -> bool:
    offered = client.has_operation_ids or account.pk in _batching_accounts
    return offered and not _is_one_at_a_time(account.pk)


def _ask_for_one(operation: Operation, client: MMSClient, confirmed: list[Operation]) -> None:
    """Ask for the state of an operation that was loaded without its rows, and load them only if it has changed."""
    try:
        status = client.get_operation(operation.mms_operation_id)
    except errors.MMSError as error:
        _guarded(operation, partial(_not_answered, error=error))
        return
    except Exception as error:
        run.record_unexpected(operation, error)
        return
    record_success(operation.account, client)
    if _is_unchanged(operation, status):
        confirmed.append(operation)
    else:
        _guarded(operation, partial(_record, status=status, client=client))


def _guarded(claimed: Operation, work: Callable[[Operation], None]) -> None:
    """Call `work` with the operation and its rows. An exception ends neither the batch nor the worker."""
    try:
        operation = Operation.objects.select_related("model", "manifest", "image", "service").get(pk=claimed.pk)
        operation.account, operation.next_poll_at = claimed.account, claimed.next_poll_at
        work(operation)
    except OperationalError as error:
        log.warning("Couldn't store the state of operation %s: %s", claimed.pk, error)
        retry_on_lock(reschedule, claimed)
    except Exception as error:
        run.record_unexpected(claimed, error)


def _is_unchanged(operation: Operation, status: wire.OperationStatus) -> bool:
    is_clean = operation.error_code not in NOTE_CODES and not operation.failures and not operation.check_error
    is_current = badge_of(operation).stale_since is None and _age(operation) <= MAX_POLLING_SECONDS
    return is_clean and is_current and status.phase in UNCHANGED[State(operation.state)]


def _poll_one(operation: Operation, client: MMSClient) -> None:
    """Ask for the state of an operation that this worker has claimed, and record it."""
    try:
        status = _fetch_status(operation, client)
    except errors.MMSError as error:
        _not_answered(operation, error)
    else:
        record_success(operation.account, client)
        _record(operation, status, client)


def _record(operation: Operation, status: wire.OperationStatus, client: MMSClient) -> None:
    """Record a state that the server returned, and schedule the next poll if the operation continues."""
    asked_at = client.called_at
    checks.record_answer(operation, asked_at)
    _advance(operation, status, client)
    if operation.is_open:
        _schedule([operation], asked_at)
    else:
        _fetch_log_and_key(operation, client)


def _not_answered(operation: Operation, error: errors.MMSError) -> None:
    """Record that the state couldn't be read. Other operations of the account aren't affected unless they fail too."""
    if isinstance(error, errors.NotFoundError):
        if _age(operation) > NOT_FOUND_GRACE_SECONDS:
            run.mark_uncertain(operation, f"The server no longer knows this operation: {error}")
            return
        checks.record_no_answer(operation, f"The server doesn't know this operation yet: {error}")
    elif isinstance(error, errors.SERVER_WIDE):
        record_failure(operation.account, error, f"operation {operation.pk}")
        checks.record_no_answer(operation, f"Couldn't check this operation. {error}")
    else:
        reason = f"The server doesn't report the progress: {error}"
        _note(operation, STATUS_UNAVAILABLE, reason)
        checks.record_no_answer(operation, reason)
    if not isinstance(error, errors.NotSentError | errors.TokenRefusedError | errors.NotFoundError):
        conditional_update(operation, _unchanged(operation), failures=operation.failures + 1)
    _schedule([operation])


def _fetch_status(operation: Operation, client: MMSClient) -> wire.OperationStatus:
    """Return the operation's status, or that of its service if the operation's id is unknown."""
    if operation.cancel_requested:
        _cancel(operation, client)
    if operation.mms_operation_id:
        return client.get_operation(operation.mms_operation_id)
    service = client.get_service((operation.service and operation.service.mms_id) or "")
    return wire.OperationStatus("", service.phase, service.state, service.id, wire.Failure())


def _advance(operation: Operation, status: wire.OperationStatus, client: MMSClient) -> None:
    if status.phase is None:
        message = f"The server reports the unknown state “{status.state}”."
        _note(operation, UNKNOWN_STATE, message if status.state else "The server reports no state.")
        return
    if operation.error_code in NOTE_CODES:
        _note(operation, "", "")
    match status.phase:
        case wire.Phase.RUNNING:
            transition(operation, State.RUNNING, expected={State.NOT_STARTED})
        case wire.Phase.SUCCEEDED:
            _finish(operation, _result_id(operation, status), client)
        case wire.Phase.FAILED:
            _adopt_failed_service(operation, _result_id(operation, status), client)
            run.fail(operation, status.failure, "The server gave no reason.")
        case wire.Phase.CANCELED:
            _adopt_failed_service(operation, _result_id(operation, status), client)
            message = status.failure.message
            transition(operation, State.CANCELED, error_message=message or operation.error_message)


def _note(operation: Operation, code: str, message: str) -> None:
    """Show a note (one of NOTE_CODES) on an open operation; "" removes it."""
    if (operation.error_code, operation.error_message) == (code, message):
        return
    if conditional_update(operation, _unchanged(operation), error_code=code, error_message=message):
        events.publish_operation(operation)


def _adopt_failed_service(operation: Operation, resource_id: str, client: MMSClient) -> None:
    """Link the row to a service whose creation failed but which exists and occupies its name.

    With its id, the service can be updated or deleted. Servers that removed it don't know the id.
    """
    if operation.kind != Kind.CREATE_SERVICE or not resource_id or operation.service is None:
        return
    try:
        service = client.get_service(resource_id)
        if rows.can_assign(operation.service, service.id):
            rows.apply(operation.service, service)
    except errors.MMSError as error:
        log.info("Operation %s failed, and its resource can't be read: %s", operation.pk, error)


def _fetch_log_and_key(operation: Operation, client: MMSClient) -> None:
    """Fetch the rest of the log and the scoring key of an operation that has just ended.

    Until then, the log is only fetched while a user views it (mirror.follow_logs).
    """
    if operation.mms_operation_id:
        logs.fetch_operation_log(operation, client, last=True)
    if operation.service is not None and operation.kind != Kind.DELETE_SERVICE:
        scoring_keys.fetch(operation.service, client)


def _result_id(operation: Operation, status: wire.OperationStatus) -> str:
    """Return the id of the resource that the operation creates or changes, "" if it isn't known.

    A row's own id takes precedence over the server's resourceLocation, which only counts if it has the right noun.
    """
    row = operation.resource
    if row is None or row.mms_id:
        return row.mms_id or "" if row is not None else ""
    return status.resource_id if status.resource_noun in {"", f"{NOUN[type(row)]}s"} else ""


def _finish(operation: Operation, resource_id: str, client: MMSClient) -> None:
    """Record success, with the created resource if it can be read."""
    item = None
    if resource_id and operation.kind in RESULT_READERS:
        try:
            item = RESULT_READERS[operation.kind](client, resource_id)
        except errors.NotFoundError:
            resource_id = ""
        except errors.MMSError as error:
            log.warning("Operation %s succeeded, but reading %s failed: %s", operation.pk, resource_id, error)
    run.succeed(operation, item, resource_id)


def _cancel(operation: Operation, client: MMSClient) -> None:
    """Forward a cancellation to the server. It is repeated until the server responds, so it survives a restart.

    Raises MMSError if the server can't be called now.
    """
    answered: dict[str, Any] = {"cancel_requested": False}
    try:
        client.cancel_operation(operation.mms_operation_id)
    except errors.OutcomeUnknownError:
        return
    except errors.SERVER_WIDE:
        raise
    except errors.RejectedError:
        answered["error_message"] = "The server doesn't cancel this operation. It continues."
    conditional_update(operation, _unchanged(operation), **answered)


def _schedule(operations: Iterable[Operation], checked_at: datetime | None = None) -> None:
    """Schedule the next polls of claimed operations that continue, with one update for all with the same interval.

    checked_at: when the server was asked, None if it didn't answer. Operations that are older than MAX_POLLING_SECONDS
    aren't polled any longer.
    """
    now = timezone.now()
    confirmed: dict[str, Any] = {} if checked_at is None else _ANSWERED | {"checked_at": checked_at}
    groups: dict[tuple[float, datetime | None], list[UUID]] = defaultdict(list)
    for operation in operations:
        if (age := _age(operation)) > MAX_POLLING_SECONDS:
            _stop_polling(operation, **confirmed)
            continue
        failed = 0 if confirmed else operation.failures
        interval = max(float(round(poll_seconds(age))), failure_interval(failed))
        groups[interval, operation.next_poll_at].append(operation.pk)
    for (interval, lease), ids in groups.items():
        # The lease: a cancellation in the meantime has made the operation due again.
        still = Operation.objects.filter(pk__in=ids, state__in=ACCEPTED, next_poll_at=lease)
        still.update(next_poll_at=now + jittered(interval), **confirmed)


def _stop_polling(operation: Operation, **fields: Any) -> None:
    still = Operation.objects.filter(pk=operation.pk, state__in=ACCEPTED)
    if still.update(next_poll_at=None, error_code="", error_message=POLLING_STOPPED, **fields):
        operation.refresh_from_db()
        events.publish_operation(operation)


def _release(claimed: Sequence[Operation]) -> None:
    """Make operations due again that were claimed but not reached."""
    for lease in {operation.next_poll_at for operation in claimed}:
        ids = [operation.pk for operation in claimed if operation.next_poll_at == lease]
        still = Operation.objects.filter(pk__in=ids, state__in=ACCEPTED, next_poll_at=lease)
        retry_on_lock(_make_due, still)


def _make_due(operations: QuerySet[Operation]) -> None:
    operations.update(next_poll_at=timezone.now())


def reschedule(operation: Operation) -> None:
    """Make an operation due whose result couldn't be stored."""
    _make_due(Operation.objects.filter(pk=operation.pk, state__in=run.POLLED, next_poll_at__isnull=False))


def _age(operation: Operation) -> float:
    """Return the seconds since the operation was accepted, or since a user resumed its checks."""
    began = max(filter(None, [operation.accepted_at or operation.requested_at, operation.resumed_at]))
    return (timezone.now() - began).total_seconds()


def _unchanged(operation: Operation) -> QuerySet[Operation]:
    """Return a filter for the operation while it is in the state that this worker loaded."""
    return Operation.objects.filter(pk=operation.pk, state=operation.state)

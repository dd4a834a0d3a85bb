"""Steps of workers for an operation: send it, poll it, record its result.

Each step is safe at any time and from several workers, because it is claimed in the database first. No step
sleeps: later work is scheduled with `next_poll_at`.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from deployments.accounts import idempotency
from deployments.accounts.availability import record_failure, record_success
from deployments.client import errors, wire
from deployments.client.client import Accepted, MMSClient
from deployments.live import checks, events
from deployments.live.badges import NOUN
from deployments.live.transitions import conditional_update, retry_on_lock, transition
from deployments.models import HostingAccount, Image, Operation
from deployments.models.operation import ACCEPTED, OPEN, Kind, State
from deployments.operations.matching import request_of
from deployments.operations.requests import RequestRefusedError
from deployments.resources import logs, rows, scoring_keys
from deployments.timing import LEASE_SECONDS, MAX_POLLING_SECONDS, poll_interval, probe_interval

log = logging.getLogger(__name__)
NOT_FOUND_GRACE_SECONDS = 30.0  # after acceptance; until then, an unknown operation may just be delayed
NOT_FOLLOWABLE = (
    "The server accepted this, but it can't be followed: "
    "the operation that the server named belongs to another request."
)
OUTCOME_UNKNOWN = "It is unknown whether it took effect when it was sent."
UNKNOWN_STATE = "UnknownState"
STATUS_UNAVAILABLE = "NotTold"
NOT_NAMED = "ResultNotNamed"
NOTE_CODES = {UNKNOWN_STATE, STATUS_UNAVAILABLE}  # error codes of notes on an open operation
POLLING_STOPPED = (
    f"Not finished after {MAX_POLLING_SECONDS / 3600:.0f} hours. The dashboard stopped checking; resume to continue."
)
# One client method for each kind of operation; each takes the request that `requests.BUILDERS` builds for that kind.
SEND: dict[str, Callable[[MMSClient, Any, str], Accepted | rows.Item]] = {
    Kind.REGISTER_MODEL: MMSClient.register_model,
    Kind.CREATE_MANIFEST: MMSClient.create_manifest,
    Kind.CREATE_IMAGE: MMSClient.create_image,
    Kind.CREATE_SERVICE: MMSClient.create_service,
    Kind.UPDATE_SERVICE: MMSClient.update_service,
    Kind.DELETE_SERVICE: MMSClient.delete_service,
}
RESULT_READERS: dict[str, Callable[[MMSClient, str], rows.Item]] = {
    Kind.CREATE_IMAGE: MMSClient.get_image,
    Kind.CREATE_SERVICE: MMSClient.get_service,
    Kind.UPDATE_SERVICE: MMSClient.get_service,
}


def send(operation: Operation, client: MMSClient) -> None:
    """Send a queued operation unless another worker does. Unknown outcomes are reconciled later."""
    now = timezone.now()
    claimed_fields = {
        "attempts": operation.attempts + 1,
        "sent_at": now,
        "claimed_until": now + timedelta(seconds=LEASE_SECONDS),
    }
    if not transition(
        operation, State.SENDING, expected={State.QUEUED}, error_code="", error_message="", **claimed_fields
    ):
        return
    try:
        result = SEND[operation.kind](client, request_of(operation), str(operation.pk))
    except RequestRefusedError as error:
        reason = f"{error.message} {OUTCOME_UNKNOWN}" if operation.attempts > 1 else error.message
        transition(operation, State.FAILED, error_code="Refused", error_message=reason)
    except errors.MMSError as error:
        retry_on_lock(_not_accepted, operation, error)
    else:
        idempotent = client.idempotent  # by this response, so before any other call
        retry_on_lock(_accepted, operation, result)
        idempotency.record(operation.account, operation.kind, idempotent)
        record_success(operation.account, client)


def _accepted(operation: Operation, result: Accepted | rows.Item) -> None:
    now = timezone.now()
    if not isinstance(result, Accepted):
        succeed(operation, result)
    elif result.operation_id:
        _follow(operation, result.operation_id, now)
    elif result.is_pending:
        mark_uncertain(operation, "The server accepted this but returned no operation to check.", accepted_at=now)
    elif operation.kind == Kind.DELETE_SERVICE:
        succeed(operation)
    else:
        mark_uncertain(operation, "The server's response doesn't include the result.", accepted_at=now)


def _follow(operation: Operation, mms_operation_id: str, now: datetime) -> None:
    """Poll the server's operation from now on, unless the server named one that belongs to another request."""
    with transaction.atomic():
        # Of two requests for which the server names the same operation, the first one to get here has it.
        HostingAccount.objects.select_for_update().get(pk=operation.account_id)
        others = Operation.objects.filter(account=operation.account_id, mms_operation_id=mms_operation_id)
        if others.exclude(pk=operation.pk).exists():
            mark_uncertain(operation, NOT_FOLLOWABLE, accepted_at=now)
            return
        known: dict[str, Any] = {"mms_operation_id": mms_operation_id, "accepted_at": now, "next_poll_at": now}
        # Clears the reason of an uncertain state that the sweep may have set during the call.
        transition(operation, State.NOT_STARTED, error_code="", error_message="", **known)


def _not_accepted(operation: Operation, error: errors.MMSError) -> None:
    """Queue again if nothing was sent, mark as uncertain if it may have taken effect, else fail."""
    is_unknown = isinstance(error, errors.ConflictError) and operation.attempts > 1
    is_unknown |= isinstance(error, errors.NotFoundError) and operation.kind == Kind.DELETE_SERVICE
    if isinstance(error, errors.NotSentError | errors.TokenRefusedError):
        record_failure(operation.account, error)
        due = operation.account.not_before or timezone.now()
        rescheduled: dict[str, Any] = {"next_poll_at": due, "attempts": operation.attempts - 1}
        transition(operation, State.QUEUED, error_message=str(error), **rescheduled)
    elif isinstance(error, errors.OutcomeUnknownError) or is_unknown:
        if isinstance(error, errors.NoResponseError | errors.ServerFaultError):
            record_failure(operation.account, error)
        mark_uncertain(operation, str(error))
    else:
        fail(operation, error.failure, str(error))


def mark_uncertain(operation: Operation, reason: str, **fields: Any) -> None:
    """Mark the operation as uncertain: its outcome is reconciled before anything else.

    reason: for users. fields: further columns. For an operation that is already uncertain, only `accepted_at` is new
        information: it then isn't sent again.
    """
    expected = OPEN if "accepted_at" in fields else OPEN - {State.UNCERTAIN}
    fields |= {"error_message": reason, "next_poll_at": timezone.now() + probe_interval(0)}
    transition(operation, State.UNCERTAIN, expected=expected, **fields)


def fail(operation: Operation, failure: wire.Failure, default: str) -> None:
    """Fail the operation with the server's reason, or `default` if it gave none."""
    transition(
        operation,
        State.FAILED,
        error_code=failure.code,
        error_message=failure.message or default,
        error_details=failure.details,
    )


def poll(operation: Operation, client: MMSClient) -> None:
    """Ask the server for the state of an accepted operation, unless another worker is doing so."""
    now = timezone.now()
    age = _age(operation, now)
    claimable = _unchanged(operation).filter(next_poll_at=operation.next_poll_at)
    if not claimable.update(next_poll_at=now + timedelta(seconds=LEASE_SECONDS)):
        return
    try:
        status = _fetch_status(operation, client)
    except errors.NotFoundError as error:
        if age > NOT_FOUND_GRACE_SECONDS:
            mark_uncertain(operation, f"The server no longer knows this operation: {error}")
        else:
            reason = f"The server doesn't know this operation yet: {error}"
            checks.record_no_answer(operation, reason)
    except errors.SERVER_WIDE as error:
        record_failure(operation.account, error)
        checks.record_no_answer(operation, f"Couldn't check this operation. {error}")
    except errors.RejectedError as error:
        reason = f"The server doesn't report the progress: {error}"
        _note(operation, STATUS_UNAVAILABLE, reason)
        checks.record_no_answer(operation, reason)
    else:
        record_success(operation.account, client)
        checks.record_answer(operation, now)
        _advance(operation, status, client)
        _fetch_log_and_key(operation, client)
    _next_poll(operation, age)


def _age(operation: Operation, now: datetime) -> float:
    """Return the seconds since the operation was accepted, or since a user resumed its checks."""
    began = max(filter(None, [operation.accepted_at or operation.requested_at, operation.resumed_at]))
    return (now - began).total_seconds()


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
            fail(operation, status.failure, "The server gave no reason.")
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
    """Fetch new lines of the log, and the scoring key once the operation has ended."""
    if operation.mms_operation_id:
        logs.fetch_operation_log(operation, client, last=not operation.is_open)
    if not operation.is_open and operation.service is not None and operation.kind != Kind.DELETE_SERVICE:
        scoring_keys.fetch(operation.service, client)


def _next_poll(operation: Operation, age: float) -> None:
    """Schedule the next poll, unless the operation ended or exceeded MAX_POLLING_SECONDS."""
    still = Operation.objects.filter(pk=operation.pk, state__in=ACCEPTED)
    if age <= MAX_POLLING_SECONDS:
        still.update(next_poll_at=timezone.now() + poll_interval(age))
    elif still.update(next_poll_at=None, error_code="", error_message=POLLING_STOPPED):
        operation.refresh_from_db()
        events.publish_operation(operation)


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
    succeed(operation, item, resource_id)


def succeed(operation: Operation, item: rows.Item | None = None, resource_id: str = "") -> None:
    """Record that the operation succeeded, and update its row.

    item: the resource as read from the server. resource_id: its id if it could not be read. If the server named no
    result, or one that belongs to something else, the row gets no id.
    """
    row = operation.resource
    with transaction.atomic():
        note = _result_note(operation, item.id if item is not None else resource_id)
        code = NOT_NAMED if note else ""
        if not transition(operation, State.SUCCEEDED, error_code=code, error_message=note) or row is None or note:
            return
        if operation.kind == Kind.DELETE_SERVICE:
            rows.mark_gone(row)
        elif item is not None:
            rows.apply(row, item)
        elif resource_id:
            rows.assign_remote_id(row, resource_id)


def _result_note(operation: Operation, mms_id: str) -> str:
    """Return why the row can't be linked to the result with this server id, as sentences; "" if it can."""
    row = operation.resource
    if row is None or operation.kind == Kind.DELETE_SERVICE:
        return ""
    if not mms_id and not row.mms_id:
        reason = "Done, but the server didn't name the result."
    elif mms_id and not rows.can_assign(row, mms_id):
        reason = f"Done, but the server named a result that belongs to something else (“{mms_id}”)."
    else:
        return ""
    if isinstance(row, Image) and operation.account.lists_images is False:
        return f"{reason} It can't be shown here, because this server has no list of images."
    return f"{reason} It is shown here once the server lists it."


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


def _unchanged(operation: Operation) -> QuerySet[Operation]:
    """Return a filter for the operation while it is in the state that this worker loaded."""
    return Operation.objects.filter(pk=operation.pk, state=operation.state)

"""Steps of workers for an operation: send it, and record its outcome.

Each step is safe at any time and from several workers, because it is claimed in the database first. No step
sleeps: later work is scheduled with `next_poll_at`.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import OperationalError, transaction
from django.utils import timezone

from deployments.accounts import idempotency
from deployments.accounts.availability import record_failure, record_success
from deployments.client import errors, wire
from deployments.client.client import Accepted, MMSClient
from deployments.live import events
from deployments.live.transitions import conditional_update, retry_on_lock, transition
from deployments.models import HostingAccount, Image, Operation
from deployments.models.operation import ACCEPTED, NEEDS_DECISION, OPEN, Kind, State
from deployments.operations.matching import request_of
from deployments.operations.requests import RequestRefusedError
from deployments.resources import rows
from deployments.timing import LEASE_SECONDS, MAX_ATTEMPTS, failure_interval, probe_interval

log = logging.getLogger(__name__)
NOT_FOLLOWABLE = (
    "The server accepted this, but it can't be followed: "
    "the operation that the server returned belongs to another request."
)
OUTCOME_UNKNOWN = "It is unknown whether it took effect when it was sent."
NOT_NAMED = "ResultNotNamed"
UNEXPECTED_ERROR = "UnexpectedError"
POLLED = ACCEPTED | {State.UNCERTAIN}
# One client method for each kind of operation; each takes the request that `requests.BUILDERS` builds for that kind.
SEND: dict[str, Callable[[MMSClient, Any, str], Accepted | rows.Item]] = {
    Kind.REGISTER_MODEL: MMSClient.register_model,
    Kind.CREATE_MANIFEST: MMSClient.create_manifest,
    Kind.CREATE_IMAGE: MMSClient.create_image,
    Kind.CREATE_SERVICE: MMSClient.create_service,
    Kind.UPDATE_SERVICE: MMSClient.update_service,
    Kind.DELETE_SERVICE: MMSClient.delete_service,
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
        request = request_of(operation)
        client.prepare()
    except RequestRefusedError as error:
        reason = f"{error.message} {OUTCOME_UNKNOWN}" if operation.attempts > 1 else error.message
        transition(operation, State.FAILED, error_code="Refused", error_message=reason)
        return
    except OperationalError as error:
        retry_on_lock(_send_later, operation, f"The database was unavailable: {error}")
        return
    except Exception as error:
        log.exception("Couldn't build the request of operation %s.", operation.pk)
        _send_later(operation, _unexpected_reason(error))
        return
    try:
        result = SEND[operation.kind](client, request, str(operation.pk))
    except errors.MMSError as error:
        retry_on_lock(_not_accepted, operation, error)
    else:
        idempotent = client.idempotent  # by this response, so before any other call
        retry_on_lock(_accepted, operation, result)
        idempotency.record(operation.account, operation.kind, idempotent)
        record_success(operation.account, client)


def _send_later(operation: Operation, reason: str) -> None:
    """Requeue an operation that wasn't sent, or fail it after MAX_ATTEMPTS."""
    failures = operation.failures + 1
    if failures >= MAX_ATTEMPTS:
        message = f"{reason} {OUTCOME_UNKNOWN}" if operation.attempts > 1 else reason
        transition(operation, State.FAILED, error_code=UNEXPECTED_ERROR, error_message=message)
        return
    due = timezone.now() + timedelta(seconds=failure_interval(failures))
    later: dict[str, Any] = {"next_poll_at": due, "failures": failures, "attempts": operation.attempts - 1}
    transition(operation, State.QUEUED, error_message=reason, **later)


def record_unexpected(operation: Operation, error: Exception) -> None:
    """Record an unexpected exception on its operation, which is retried later.

    The message contains only the class, because the text could contain secrets.
    """
    log.error("A step of operation %s failed with an unexpected error.", operation.pk, exc_info=error)
    current = Operation.objects.select_related("account").filter(pk=operation.pk, state__in=OPEN).first()
    if current is None:
        return
    reason = _unexpected_reason(error)
    if current.state == State.SENDING:
        mark_uncertain(current, reason)
        return
    failures = current.failures + 1
    due = timezone.now() + timedelta(seconds=failure_interval(failures))
    noted: dict[str, Any] = {"error_code": UNEXPECTED_ERROR, "error_message": reason}
    if current.state == State.UNCERTAIN and failures >= MAX_ATTEMPTS:
        noted["error_code"] = NEEDS_DECISION
    if current.error_code == NEEDS_DECISION:
        noted = {}
    unchanged = Operation.objects.filter(pk=current.pk, state=current.state)
    if current.state == State.QUEUED and failures >= MAX_ATTEMPTS:
        transition(current, State.FAILED, error_code=UNEXPECTED_ERROR, error_message=reason)
    elif conditional_update(current, unchanged, next_poll_at=due, failures=failures, **noted):
        events.publish_operation(current)


def _unexpected_reason(error: Exception) -> str:
    return f"The dashboard failed with an unexpected error ({type(error).__name__}). See the worker's log for details."


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
        known |= {"failures": 0}
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
            record_failure(operation.account, error, f"operation {operation.pk}")
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

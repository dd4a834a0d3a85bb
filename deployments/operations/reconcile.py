"""Reconciliation of uncertain operations: determine the outcome before anything is sent again.

If the server executes repeated requests once (`accounts.idempotency`), the same request is sent again. Otherwise, the
server is probed for its effect. The request is repeated only if no effect is visible within a grace period, and never
if it was accepted or its effect can't be recognized; then a user decides.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.utils import timezone

from deployments.accounts import idempotency
from deployments.accounts.availability import record_failure, record_success
from deployments.client import errors, wire
from deployments.client.client import Listing, MMSClient
from deployments.live import checks, events
from deployments.live.transitions import transition
from deployments.models import HostingAccount, Operation
from deployments.models.operation import NEEDS_DECISION, SERVICE_CHANGES, Kind, State
from deployments.operations import run
from deployments.operations.matching import (
    consequence_of_giving_up,
    is_older,
    matches,
    request_of,
    same_id,
    unlinked_operations,
)
from deployments.operations.requests import RequestRefusedError
from deployments.resources import rows
from deployments.timing import EFFECT_GRACE_SECONDS, LEASE_SECONDS, MAX_ATTEMPTS, MAX_PROBING_SECONDS, probe_interval

LISTS: dict[str, Callable[[MMSClient], Listing[Any]]] = {
    Kind.REGISTER_MODEL: MMSClient.list_models,
    Kind.CREATE_MANIFEST: MMSClient.list_manifests,
    Kind.CREATE_IMAGE: MMSClient.list_images,
    Kind.CREATE_SERVICE: MMSClient.list_services,
}
CANNOT_SHOW = "The server can't show whether this took effect."
AMBIGUOUS = (
    "The server lists {count} equal resources that this may have created, so at least one is someone else's. They are "
    "now listed as created outside the dashboard."
)
DECIDE = "Send it again (if it did take effect, {twice}), or mark it as failed (if it did take effect, {unseen})."


class Probe(StrEnum):
    """Result of probing the server for the effect of an uncertain operation."""

    RESOLVED = "resolved"  # the effect was found, and the operation was updated
    ABSENT = "absent"  # the effect would be visible by now
    UNCLEAR = "unclear"  # the request may have taken effect
    AMBIGUOUS = "ambiguous"  # several resources may be its effect


def reconcile(operation: Operation, client: MMSClient) -> None:
    """Probe once for the effect of an uncertain operation, unless another worker is doing so."""
    now = timezone.now()
    claimable = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN, next_poll_at=operation.next_poll_at)
    if not claimable.update(next_poll_at=now + timedelta(seconds=LEASE_SECONDS)):
        return
    can_repeat = not operation.accepted_at and operation.attempts < MAX_ATTEMPTS
    if can_repeat and idempotency.is_believed(operation.account, operation.kind):
        _send_again(operation)
        return
    try:
        probe = _probe(operation, request_of(operation), client)
    except RequestRefusedError as error:
        reason = f"{error.message} {run.OUTCOME_UNKNOWN}"
        transition(operation, State.FAILED, error_code="Refused", error_message=reason)
        return
    except errors.SERVER_WIDE as error:
        record_failure(operation.account, error, f"operation {operation.pk}")
        reason = f"Couldn't check whether this took effect. {error}"
        checks.record_no_answer(operation, reason)
        if not isinstance(error, errors.ServerFaultError | errors.InvalidResponseError):
            _schedule_probe(operation)
            return
        probe = Probe.UNCLEAR  # the server responds, and this response may be permanent
    except errors.RejectedError as error:
        if operation.kind == Kind.CREATE_IMAGE and isinstance(error, errors.NotFoundError | errors.NotSupportedError):
            HostingAccount.objects.filter(pk=operation.account_id).update(lists_images=False)
            operation.account.lists_images = False
        reason = f"Couldn't check whether this took effect. {error}"
        checks.record_no_answer(operation, reason)
        probe = Probe.UNCLEAR
    else:
        record_success(operation.account, client)
        if probe != Probe.RESOLVED:
            checks.record_answer(operation, now)
    if probe != Probe.RESOLVED and not _decide(operation, probe):
        _schedule_probe(operation)


def _probe(operation: Operation, request: wire.Request, client: MMSClient) -> Probe:
    if operation.mms_operation_id and _rediscover(operation, client):
        return Probe.RESOLVED
    match request:
        case wire.ServiceUpdate():
            return _probe_update(operation, request, client)
        case wire.ServiceDeletion():
            return _probe_deletion(operation, request, client)
    listing = LISTS[operation.kind](client)
    candidates = _candidates(operation, request, listing)
    if candidates:
        return _resolve_by(operation, candidates, client)
    # An image is only listed once it is built, minutes later.
    is_conclusive = operation.kind != Kind.CREATE_IMAGE and _is_plausible(operation, listing)
    return Probe.ABSENT if is_conclusive else Probe.UNCLEAR


def _rediscover(operation: Operation, client: MMSClient) -> bool:
    """Resume polling if the server knows the operation again, for example after a restart."""
    try:
        client.get_operation(operation.mms_operation_id)
    except errors.NotFoundError:
        return False
    return transition(operation, State.NOT_STARTED, next_poll_at=timezone.now(), error_code="", error_message="")


def _probe_update(operation: Operation, request: wire.ServiceUpdate, client: MMSClient) -> Probe:
    """Return RESOLVED if the service runs the image. UNCLEAR otherwise, as updates take minutes or aren't reported."""
    service = client.get_service(request.service_id)
    is_applied = service.image_id is not None and same_id(service.image_id, request.image_id)
    return Probe.RESOLVED if is_applied and _track_service(operation, service) else Probe.UNCLEAR


def _probe_deletion(operation: Operation, request: wire.ServiceDeletion, client: MMSClient) -> Probe:
    """Return RESOLVED if the service is neither listed nor readable, since a list may be incomplete."""
    listing = client.list_services()
    if any(same_id(service.id, request.service_id) for service in listing.items):
        return Probe.ABSENT
    try:
        client.get_service(request.service_id)
    except (errors.NotFoundError, errors.NotSupportedError):
        return Probe.RESOLVED if listing.is_complete and _succeed(operation) else Probe.UNCLEAR
    return Probe.UNCLEAR


def _is_plausible(operation: Operation, listing: Listing[Any]) -> bool:
    """Return True if the list has all present rows. An incomplete list doesn't prove absence."""
    row = operation.resource
    if row is None or not listing.is_complete:
        return False
    present = type(row)._default_manager.filter(account=operation.account_id, vanished_at=None).exclude(mms_id=None)
    listed = {item.id.casefold() for item in listing.items}
    return all(str(mms_id).casefold() in listed for mms_id in present.values_list("mms_id", flat=True))


def _candidates(operation: Operation, request: wire.Request, listing: Listing[Any]) -> list[Any]:
    """Return the resources of the list that the request may have created and no row is linked to, oldest first.

    If the operation's own row is linked to one, it is the only candidate.
    """
    row = operation.resource
    if row is not None and row.mms_id:
        return [item for item in listing.items if same_id(item.id, row.mms_id)]
    ids = set()
    if row is not None:
        others = type(row)._default_manager.filter(account=operation.account_id).exclude(pk=row.pk)
        known = others.exclude(mms_id=None).values_list("mms_id", flat=True)
        ids = {str(mms_id).casefold() for mms_id in known}
    candidates = [item for item in listing.items if item.id.casefold() not in ids and matches(request, item)]
    return sorted(candidates, key=_age_order)


def _resolve_by(operation: Operation, candidates: list[Any], client: MMSClient) -> Probe:
    """Resolve the operation by a candidate, unless there are more candidates than operations they may belong to.

    Otherwise another client created an equal resource, and only a user can tell them apart. A candidate that is
    older than the request isn't its effect, unless the server's dates are wrong.
    """
    row = operation.resource
    if row is None or not row.mms_id:
        candidates = [item for item in candidates if not is_older(operation, item, client.clock_ahead)]
        if not candidates:
            return Probe.UNCLEAR
        claims = unlinked_operations(operation.account, type(candidates[0]))
        rivals = [other for other, request in claims if any(matches(request, item) for item in candidates)]
        if any(other.state == State.SENDING for other in rivals):
            return Probe.UNCLEAR  # its response identifies the one that it created
        if len(candidates) > len(rivals):
            operation.error_details = [_describe(item) for item in candidates]
            return Probe.AMBIGUOUS
    item = candidates[0]
    done = _track_service(operation, item) if isinstance(item, wire.Service) else _succeed(operation, item)
    return Probe.RESOLVED if done else Probe.UNCLEAR


def _describe(item: Any) -> dict[str, str]:
    """Return a candidate as a detail of the operation's error."""
    name = f"{item.name} v{item.version}" if isinstance(item, wire.Model) else item.id
    created = f", created {item.created_at:%Y-%m-%d %H:%M:%S} UTC" if item.created_at else ""
    return {"code": "Candidate", "target": item.id, "message": f"{name}{created}"}


def _age_order(item: rows.Item) -> tuple[int, str]:
    version = item.version or 0 if isinstance(item, wire.Model) else 0
    return version, item.created_at.isoformat() if item.created_at else ""


def _track_service(operation: Operation, service: wire.Service) -> bool:
    """Switch to polling the state of the service, since the id of the server's operation is unknown."""
    if operation.service is not None and not operation.service.mms_id:
        rows.apply(operation.service, service)
    now = timezone.now()
    none: dict[str, Any] = {"mms_operation_id": "", "error_code": "", "error_message": ""}
    return transition(operation, State.NOT_STARTED, accepted_at=now, next_poll_at=now, **none)


def _succeed(operation: Operation, item: rows.Item | None = None) -> bool:
    run.succeed(operation, item)
    return True


def _decide(operation: Operation, probe: Probe) -> bool:
    """Repeat or fail an operation without visible effect, after the grace period and if that is safe.

    Return True if the operation left its state.
    """
    now = timezone.now()
    if probe == Probe.AMBIGUOUS and operation.error_code != NEEDS_DECISION:
        return _request_decision(operation, AMBIGUOUS.format(count=len(operation.error_details)))
    if (now - operation.state_since).total_seconds() < EFFECT_GRACE_SECONDS or operation.error_code == NEEDS_DECISION:
        return False
    if operation.accepted_at or probe in {Probe.UNCLEAR, Probe.AMBIGUOUS}:
        return (
            now - (operation.sent_at or operation.requested_at)
        ).total_seconds() > MAX_PROBING_SECONDS and _request_decision(operation)
    if operation.attempts >= MAX_ATTEMPTS:
        tried = f"{operation.error_message} Tried {MAX_ATTEMPTS} times, without any effect on the server."
        run.fail(operation, wire.Failure("OutcomeUnknown"), tried)
        return True
    _send_again(operation)
    return True


def _request_decision(operation: Operation, why: str = CANNOT_SHOW) -> bool:
    """Leave the decision to a user, and continue to probe. Return False."""
    message = f"{operation.error_message} {why} {decision_text(operation)}"
    change_of = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN)
    details = operation.error_details
    change_of.update(error_code=NEEDS_DECISION, error_message=message, error_details=details)
    operation.refresh_from_db()
    events.publish_operation(operation)
    return False


def decision_text(operation: Operation) -> str:
    """Return the explanation of the two choices, as is true for this operation and server."""
    twice = "applied" if operation.kind in SERVICE_CHANGES else "created"
    return DECIDE.format(twice=f"it is {twice} twice", unseen=consequence_of_giving_up(operation))


def _send_again(operation: Operation) -> None:
    transition(operation, State.QUEUED, next_poll_at=timezone.now())


def _schedule_probe(operation: Operation) -> None:
    age = (timezone.now() - (operation.sent_at or operation.requested_at)).total_seconds()
    still = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN)
    still.update(next_poll_at=timezone.now() + probe_interval(age))

"""An operation was sent and its outcome is not known: find out what happened before anything is sent again.

A server that says so (`accounts.idempotent`) takes the same request again without a second effect. With any other, what
the operation would have made is looked for; only when it has not shown up within a fair time is the request repeated,
and never one whose acceptance was seen, or whose effect could not be recognised: there a person decides.
"""

from collections.abc import Callable
from typing import Any

from django.utils import timezone

from deployments import errors, live, pipeline, rows, wire
from deployments.accounts import note_answer, note_trouble
from deployments.changes import change
from deployments.client import Listing, MMSClient
from deployments.matching import request_of, surely_made
from deployments.models import Operation
from deployments.models.operation import Kind, State
from deployments.schedule import ASK_A_PERSON, LEASE, MOST_ATTEMPTS, SETTLED, look_interval, seconds
from deployments.wanted import Refused

LISTS: dict[str, Callable[[MMSClient], Listing[Any]]] = {
    Kind.REGISTER_MODEL: MMSClient.list_models,
    Kind.CREATE_MANIFEST: MMSClient.list_manifests,
    Kind.CREATE_IMAGE: MMSClient.list_images,
    Kind.CREATE_SERVICE: MMSClient.list_services,
}
DECIDE = (
    "Whether this took effect cannot be found out at the server. Send it again (if it did take effect, there will be "
    "two), or call it failed (if it did take effect, what it made appears in the lists as made outside the dashboard)."
)


def reconcile(operation: Operation, client: MMSClient) -> None:
    """Look once for what an uncertain operation did, unless another worker does just now."""
    now = timezone.now()
    mine = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN, next_poll_at=operation.next_poll_at)
    if not mine.update(next_poll_at=now + LEASE, checked_at=now):
        return
    if operation.account.idempotent and not operation.accepted_at and operation.attempts < MOST_ATTEMPTS:
        _send_again(operation)
        return
    try:
        settled = _settled(operation, request_of(operation), client)
    except Refused as error:
        change(operation, State.FAILED, error_code="Refused", error_message=error.message)
        return
    except errors.MMSError as error:
        if not isinstance(error, errors.Rejected) or isinstance(error, errors.TokenRefused):
            note_trouble(operation.account, error)
        settled = False
    else:
        note_answer(operation.account, client)
        settled = settled or _not_found(operation)
    if not settled:
        _look_later(operation)


def _settled(operation: Operation, request: wire.Request, client: MMSClient) -> bool:
    """Whether the effect was found, and so the operation goes on."""
    match request:
        case wire.ServiceUpdate():
            return _update_settled(operation, request, client)
        case wire.ServiceDeletion():
            listing = client.list_services()
            there = any(service.id == request.service_id for service in listing.items)
            return listing.whole and not there and _succeed(operation)
    item = _made(operation, request, LISTS[operation.kind](client))
    if item is None:
        return False
    return _follow(operation, item) if isinstance(item, wire.Service) else _succeed(operation, item)


def _made(operation: Operation, request: wire.Request, listing: Listing[Any]) -> rows.Item | None:
    """The oldest resource of the list that the request made, of those that no row knows."""
    row = operation.resource
    known = type(row)._default_manager.filter(account=operation.account_id).exclude(mms_id=None) if row else None
    ids = set(known.values_list("mms_id", flat=True)) if known is not None else set()
    made = [item for item in listing.items if item.id not in ids and surely_made(request, item)]
    return min(made, key=_age_order) if made else None


def _age_order(item: rows.Item) -> tuple[int, str]:
    version = item.version or 0 if isinstance(item, wire.Model) else 0
    return version, item.created_at.isoformat() if item.created_at else ""


def _update_settled(operation: Operation, request: wire.ServiceUpdate, client: MMSClient) -> bool:
    service = client.get_service(request.service_id)
    return service.image_id == request.image_id and _follow(operation, service)


def _follow(operation: Operation, service: wire.Service) -> bool:
    """The service is there: from here on its own state is asked, for the operation's id is not known."""
    if operation.service is not None and not operation.service.mms_id:
        rows.fill_in(operation.service, service)
    now = timezone.now()
    return change(operation, State.NOT_STARTED, accepted_at=now, next_poll_at=now, error_code="", error_message="")


def _succeed(operation: Operation, item: rows.Item | None = None) -> bool:
    pipeline.succeed(operation, item)
    return True


def _not_found(operation: Operation) -> bool:
    """Nothing shows that the request took effect: repeat it where that is safe and a fair time has passed."""
    age = seconds(timezone.now() - (operation.sent_at or operation.requested_at))
    if age < SETTLED or operation.error_code == "NeedsDecision":
        return False
    recognisable = operation.kind != Kind.CREATE_IMAGE  # an image shows only once it is built, minutes later
    if operation.accepted_at or not recognisable:
        return age > ASK_A_PERSON and _ask(operation)
    if operation.attempts >= MOST_ATTEMPTS:
        tried = f"{operation.error_message} Tried {MOST_ATTEMPTS} times; nothing of it is to be found."
        pipeline.fail(operation, wire.Failure("OutcomeUnknown"), tried)
        return True
    _send_again(operation)
    return True


def _ask(operation: Operation) -> bool:
    """Leave the choice to a person, and go on looking."""
    change_of = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN)
    change_of.update(error_code="NeedsDecision", error_message=f"{operation.error_message} {DECIDE}")
    operation.refresh_from_db()
    live.publish_operation(operation)
    return False


def _send_again(operation: Operation) -> None:
    change(operation, State.QUEUED, next_poll_at=timezone.now())


def _look_later(operation: Operation) -> None:
    age = seconds(timezone.now() - (operation.sent_at or operation.requested_at))
    still = Operation.objects.filter(pk=operation.pk, state=State.UNCERTAIN)
    still.update(next_poll_at=timezone.now() + look_interval(age))

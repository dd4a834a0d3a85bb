"""Badges: the state of a row, with its start, reason and age. Reads only the database."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from deployments.client.wire import phase
from deployments.live import redis
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.timing import LEASE_SECONDS

Resource: TypeAlias = RegisteredModel | Manifest | Image | Service
Row: TypeAlias = Operation | Resource

NOUN = {RegisteredModel: "model", Manifest: "manifest", Image: "image", Service: "service"}
AVAILABLE = {"model": "Registered", "manifest": "Created", "image": "Built"}
# About twice the slowest refresh schedule (mirror.refresh, timing). Older information is shown as stale.
STALE_AFTER = {
    "service": timedelta(seconds=150),
    State.SENDING: timedelta(seconds=LEASE_SECONDS + 30),
    State.NOT_STARTED: timedelta(seconds=60),
    State.RUNNING: timedelta(seconds=60),
    State.UNCERTAIN: timedelta(seconds=150),
}
MAX_LABEL_CHARS = 18  # of a state in the server's spelling; the page of the service has the whole
LIST_STALE_AFTER = timedelta(minutes=12)
STALE_AFTER_WHILE_FAILING = timedelta(seconds=15)  # while the server is failing
NO_IMAGE_LIST = "This server has no list of images, so the dashboard can't check which ones it still has."
UNCLAIMED_AFTER = timedelta(seconds=18)  # an overdue operation that no worker has claimed
# Pages check stale badges again after this, since an unchanged row sends no event
RECHECK_AFTER = timedelta(seconds=30)


@dataclass(frozen=True)
class Badge:
    """Badge of a row. `state` selects shape and color, `label` is the text, `reason` a sentence or "".

    `stale_since` is when the server last confirmed the state, if that was too long ago, and `stale_reason` why there is
    no newer information. `until` is when the information expires unless confirmed; pages then fetch the row again.
    None: it doesn't expire.
    """

    key: str
    state: str
    label: str
    since: datetime
    reason: str = ""
    stale_since: datetime | None = None
    until: datetime | None = None
    stale_reason: str = ""

    @property
    def explanation(self) -> str:
        """Return the reasons for the state and for its age, as sentences."""
        is_new = self.stale_reason not in self.reason
        return " ".join(filter(None, [self.reason, self.stale_reason if is_new else ""]))

    @property
    def valid_seconds(self) -> int | None:
        """Return the badge's remaining validity in seconds. Relative, because the client's clock may be wrong."""
        return None if self.until is None else max(1, math.ceil((self.until - timezone.now()).total_seconds()))


def badge_of(row: Row) -> Badge:
    """Return the badge of one row. Queries the row's newest operation."""
    return badges_of([row])[0]


def badges_of(rows: Sequence[Row]) -> list[Badge]:
    """Return the badges of rows of one class, in the same order, with a single query (none for operations).

    `row.account` should be loaded. A row with an open operation, or without a server id, shows its newest operation;
    other rows show what the server last reported.
    """
    resources = [row for row in rows if not isinstance(row, Operation)]
    newest = newest_operations(resources)
    return [_badge(row, newest.get(row.pk)) for row in rows]


def newest_operations(rows: Sequence[Resource]) -> dict[Any, Operation]:
    """Return the newest operation of each row, by primary key of the row. A single query."""
    if not rows:
        return {}
    noun = NOUN[type(rows[0])]
    latest = Operation.objects.filter(**{noun: OuterRef("pk")}).order_by("-requested_at").values("pk")[:1]
    newest = type(rows[0])._default_manager.filter(pk__in=[row.pk for row in rows]).values_list(Subquery(latest))
    accounts = {row.account_id: row.account for row in rows}
    found = {}
    for operation in Operation.objects.filter(pk__in=newest).defer("body", "error_details"):
        operation.account = accounts[operation.account_id]
        found[getattr(operation, f"{noun}_id")] = operation
    return found


def key_of(row: Row) -> str:
    """Return the row's name in events and in `data-refresh`: "operation-<uuid>", "service-<pk>", and so on."""
    return f"operation-{row.pk}" if isinstance(row, Operation) else f"{NOUN[type(row)]}-{row.pk}"


def keys_of(rows: Iterable[Row | None]) -> list[str]:
    """Return the names of the rows that aren't None."""
    return [key_of(row) for row in rows if row is not None]


def _badge(row: Row, operation: Operation | None) -> Badge:
    if isinstance(row, Operation):
        return _operation_badge(row)
    if operation is not None and (operation.is_open or not row.mms_id):
        return _operation_badge(operation)
    return _resource_badge(row, operation)


def _operation_badge(operation: Operation) -> Badge:
    state = State(operation.state)
    if state == State.QUEUED:
        return _queued_badge(operation)
    stale_since, until, stale_reason = None, None, ""
    if state in STALE_AFTER:
        error = operation.check_error or (operation.account.error if operation.account.is_failing else "")
        failing = bool(error) and state != State.SENDING
        stale_since, until = _staleness(
            _last_answer(operation), STALE_AFTER_WHILE_FAILING if failing else STALE_AFTER[state]
        )
        stale_reason = error if stale_since else ""
    since, reason = operation.state_since, operation.error_message
    return Badge(key_of(operation), state.value, state.label, since, reason, stale_since, until, stale_reason)


def _last_answer(operation: Operation) -> datetime | None:
    """Return the time of the server's last response about an open operation, or of sending it if there was none yet."""
    return max(filter(None, [operation.checked_at, operation.accepted_at, operation.sent_at]), default=None)


def _queued_badge(operation: Operation) -> Badge:
    """Return the badge of a queued operation, which waits for its server, other operations, or a worker."""
    label, reason, now = State.QUEUED.label, operation.error_message, timezone.now()
    until = (operation.next_poll_at or now) + UNCLAIMED_AFTER
    overdue = until <= now
    if operation.account.is_failing and (account_error := operation.account.error):
        reason = reason or f"Waiting. {account_error}"
    elif overdue and _was_reached_recently(operation.account, now):
        reason = reason or "Queued behind other operations on this server."
    elif overdue and (outage := redis.outage()):
        label, reason = f"{label}, no queue", f"{outage}, so this can't be queued. It starts when Redis recovers."
    elif overdue:
        label, reason = f"{label}, no worker", "No worker has started this. Check that the workers are running."
    check_again_at = now + RECHECK_AFTER if overdue else until
    return Badge(key_of(operation), State.QUEUED, label, operation.state_since, reason, None, check_again_at)


def _was_reached_recently(account: HostingAccount, now: datetime) -> bool:
    """Return True if a worker recently got a response from the account's server, so workers are running."""
    return account.reached_at is not None and now - account.reached_at < UNCLAIMED_AFTER


def _resource_badge(row: Resource, operation: Operation | None) -> Badge:
    noun = NOUN[type(row)]
    since = row.created_at or row.added_at
    if row.vanished_at:
        return Badge(key_of(row), "gone", "Gone", row.vanished_at, "The server no longer lists it.")
    stale_since, until = _staleness(seen_at(row), stale_after(row.account, noun))
    stale_reason = list_trouble(row.account, noun) if stale_since else ""
    if not isinstance(row, Service):
        return Badge(key_of(row), "available", AVAILABLE[noun], since, "", stale_since, until, stale_reason)
    state, label = _service_state(row)
    failed = operation is not None and operation.state == State.FAILED
    last = f"{operation.get_kind_display()} failed: {operation.error_message}" if operation and failed else ""
    reason = row.health_detail or last
    return Badge(key_of(row), state, label, row.updated_at or since, reason, stale_since, until, stale_reason)


def seen_at(row: Resource) -> datetime | None:
    """Return when the server last listed or confirmed the row. None: never."""
    if row.seen_at is None or row.vanished_at is not None:
        return row.seen_at
    return max(row.seen_at, row.account.confirmed_at(NOUN[type(row)]) or row.seen_at)


def stale_after(account: HostingAccount, noun: str) -> timedelta:
    """Return the age at which information about the account's rows of this noun is shown as stale."""
    failing = account.is_failing or account.list_error(noun)
    return STALE_AFTER_WHILE_FAILING if failing else STALE_AFTER.get(noun, LIST_STALE_AFTER)


def list_trouble(account: HostingAccount, noun: str) -> str:
    """Return why the account's rows of this noun aren't confirmed by the server, as a sentence; "" if they are."""
    if noun == NOUN[Image] and account.lists_images is False:
        return NO_IMAGE_LIST
    return account.list_error(noun) or (account.error if account.is_failing else "")


def _service_state(service: Service) -> tuple[str, str]:
    """Return state and label of a service: its health if reported, else the server's state."""
    if service.health:
        return service.health.lower(), service.health.capitalize()
    known = phase(service.state)
    if known:
        return known.value, State(known.value).label
    cut = f"{service.state[:MAX_LABEL_CHARS]}…" if len(service.state) > MAX_LABEL_CHARS else service.state
    return "unknown", cut or "Not reported"


def _staleness(heard_at: datetime | None, max_age: timedelta) -> tuple[datetime | None, datetime | None]:
    """Return when information from `heard_at` became stale (None if it is current), and when to check again."""
    if heard_at is None:
        return None, None
    now = timezone.now()
    return (heard_at, now + RECHECK_AFTER) if now - heard_at > max_age else (None, heard_at + max_age)

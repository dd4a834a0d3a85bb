"""What a badge says of a row: its state, since when, why, and how old the news is. Reads the database only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from deployments.models import Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.wire import phase

Resource: TypeAlias = RegisteredModel | Manifest | Image | Service
Row: TypeAlias = Operation | Resource

NOUN = {RegisteredModel: "model", Manifest: "manifest", Image: "image", Service: "service"}
AVAILABLE = {"model": "Registered", "manifest": "Created", "image": "Built"}
# Twice the slowest schedule by which each is asked about (mirror.py, schedule.py): older news is called stale.
OUTDATED = {"service": timedelta(seconds=150), "operation": timedelta(seconds=60)}
OUTDATED_LIST = timedelta(minutes=12)
TROUBLED = timedelta(seconds=15)  # while the server is known to be out of reach
UNTAKEN = timedelta(seconds=25)  # a queued operation that no worker has taken


@dataclass(frozen=True)
class Badge:
    """`state` is the key for shape and colour, `label` the word, `reason` a sentence or ""."""

    key: str
    state: str
    label: str
    since: datetime
    reason: str = ""
    stale_since: datetime | None = None


def badge_of(row: Row) -> Badge:
    """The badge of one row; asks the database for the row's newest operation."""
    return badges_of([row])[0]


def badges_of(rows: Sequence[Row]) -> list[Badge]:
    """The badges of rows of one class, in the same order, with one query in all (operations: none).

    `row.account` should be loaded. A row with an open operation, or without an id at the server, shows its newest
    operation; any other shows what the server last said of it.
    """
    resources = [row for row in rows if not isinstance(row, Operation)]
    newest = newest_operations(resources)
    return [_badge(row, newest.get(row.pk)) for row in rows]


def newest_operations(rows: Sequence[Resource]) -> dict[Any, Operation]:
    """By primary key of the row: the operation that was asked for last. One query."""
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
    """The name of a row in events and in `data-refresh`: "operation-<uuid>", "service-<pk>", …"""
    return f"operation-{row.pk}" if isinstance(row, Operation) else f"{NOUN[type(row)]}-{row.pk}"


def keys_of(rows: Iterable[Row | None]) -> list[str]:
    return [key_of(row) for row in rows if row is not None]


def _badge(row: Row, operation: Operation | None) -> Badge:
    if isinstance(row, Operation):
        return _operation_badge(row)
    if operation is not None and (operation.is_open or not row.mms_id):
        return _operation_badge(operation)
    return _resource_badge(row, operation)


def _operation_badge(operation: Operation) -> Badge:
    state = State(operation.state)
    stale_since = None
    if state in {State.NOT_STARTED, State.RUNNING}:
        stale_since = _stale(operation, operation.checked_at or operation.accepted_at, OUTDATED["operation"])
    return Badge(key_of(operation), state.value, state.label, operation.state_since, _reason(operation), stale_since)


def _reason(operation: Operation) -> str:
    if operation.error_message or operation.state != State.QUEUED:
        return operation.error_message
    if trouble := operation.account.error:
        return f"Waits: {trouble}"
    due = operation.next_poll_at
    return "No worker has taken this up. Are the workers running?" if due and due < timezone.now() - UNTAKEN else ""


def _resource_badge(row: Resource, operation: Operation | None) -> Badge:
    noun = NOUN[type(row)]
    since = row.created_at or row.added_at
    if row.vanished_at:
        return Badge(key_of(row), "gone", "Gone", row.vanished_at, "The server no longer lists it.")
    stale_since = _stale(row, row.seen_at, OUTDATED.get(noun, OUTDATED_LIST))
    if not isinstance(row, Service):
        return Badge(key_of(row), "available", AVAILABLE[noun], since, "", stale_since)
    state, label = _service_state(row)
    failed = operation is not None and operation.state == State.FAILED
    last = f"{operation.get_kind_display()} failed: {operation.error_message}" if operation and failed else ""
    return Badge(key_of(row), state, label, row.updated_at or since, row.health_detail or last, stale_since)


def _service_state(service: Service) -> tuple[str, str]:
    """The health where the server reports it, else the server's word for the service's state."""
    if service.health:
        return service.health.lower(), service.health.capitalize()
    known = phase(service.state)
    return (known.value, State(known.value).label) if known else ("unknown", service.state or "Not reported")


def _stale(row: Row, seen: datetime | None, outdated: timedelta) -> datetime | None:
    """When the news of the row was last true for sure, where that is too long ago."""
    if seen is None:
        return None
    troubled = bool(row.account.error) or row.account.token_refused
    return seen if timezone.now() - seen > (TROUBLED if troubled else outdated) else None

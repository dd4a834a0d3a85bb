"""Bulk update of rows from a server's list: new, changed and vanished resources."""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from deployments.client import wire
from deployments.client.client import Listing
from deployments.live.badges import NOUN
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import NEEDS_DECISION, State
from deployments.operations import matching
from deployments.resources import links, rows
from deployments.resources.rows import Item

LINK_WITHIN = timedelta(minutes=10)  # after its end, the result of an operation appears in a list
LINK_GRACE = timedelta(hours=1)  # an older item's unknown link is that of a resource that no longer exists
CHUNK_ROWS = 500  # per transaction, so that other writers can run in between
WIRE_TYPES: dict[type[Any], type[Item]] = {
    RegisteredModel: wire.Model,
    Manifest: wire.Manifest,
    Image: wire.Image,
    Service: wire.Service,
}
COLUMNS: dict[type[Any], list[str]] = {
    noun: [rows.RENAMED.get(f.name, f.name) for f in dataclasses.fields(of) if f.name != "id"]
    for noun, of in WIRE_TYPES.items()
}
Known = dict[str, dict[str, Any]]  # columns of the row, by server id


@dataclasses.dataclass(frozen=True)
class ChangeSummary:
    """Changes that a list caused."""

    changed: list[str] = dataclasses.field(default_factory=list)  # server ids
    membership_changed: bool = False  # rows appeared or vanished
    is_settled: bool = True  # False: some items have to be read again


def store(account: HostingAccount, noun: type[Any], listing: Listing[Any], started: datetime) -> ChangeSummary:
    """Update the rows from the list that was requested at `started`. Rows written since then are newer and skipped."""
    listed = {item.id: item for item in listing.items}
    removed = listing.removed
    known = _known(account, noun, None if removed is None else [*listed, *removed])
    _adopt_id_case(noun, known, listed)
    unknown = [item for item in listed.values() if item.id not in known]
    new = _without_own(account, noun, unknown)
    old = [item for item in listed.values() if item.id in known and not _is_newer(known[item.id], started)]
    rows_of = _Rows(account, noun, known, list(listed.values()) if removed is not None else None)
    values = {item.id: rows_of.values(item) for item in [*new, *old]}
    changed = [mms_id for mms_id in values if mms_id not in known or _differs(known[mms_id], values[mms_id])]
    _write(account, noun, {mms_id: values[mms_id] for mms_id in changed}, started)
    vanished = _mark_vanished(noun, known, listed, started) if listing.is_complete else []
    if not listing.is_complete:
        _mark_seen(account, noun, started, [known[mms_id]["pk"] for mms_id in listed if mms_id in known])
    return ChangeSummary(
        changed + vanished,
        membership_changed=bool(new or vanished),
        is_settled=len(new) == len(unknown) and not rows_of.awaits_link,
    )


def _known(account: HostingAccount, noun: type[Any], only: list[str] | None) -> Known:
    """Return the rows with server ids: all, or those with these ids."""
    present = noun.objects.filter(account=account).exclude(mms_id=None)
    known: Known = {}
    for part in [None] if only is None else _chunks(only):
        found = present if part is None else present.filter(mms_id__in=part)
        rows_read = found.values("pk", "mms_id", "seen_at", "vanished_at", *COLUMNS[noun])
        known |= {row["mms_id"]: row for row in rows_read}
    return known


def _adopt_id_case(noun: type[Any], known: Known, listed: dict[str, Any]) -> None:
    """Update ids that the server now returns in different case, unless it has both spellings."""
    new = {mms_id.casefold(): mms_id for mms_id in listed if mms_id not in known}
    missing = [mms_id for mms_id in known if mms_id not in listed] if new else []
    new_ids = {mms_id: new.pop(mms_id.casefold()) for mms_id in missing if mms_id.casefold() in new}
    for part in _chunks(list(new_ids.items())):
        with transaction.atomic():
            for old, mms_id in part:
                known[mms_id] = known.pop(old)
                noun.objects.filter(pk=known[mms_id]["pk"]).update(mms_id=mms_id)


def _is_newer(row: dict[str, Any], started: datetime) -> bool:
    return row["seen_at"] is not None and row["seen_at"] > started


def _differs(row: dict[str, Any], values: dict[str, Any]) -> bool:
    return row["vanished_at"] is not None or any(row[name] != value for name, value in values.items())


def _without_own(account: HostingAccount, noun: type[Any], new: list[Any]) -> list[Any]:
    """Return the items that none of our operations created or may be creating.

    A succeeded operation whose result the server didn't name gets its item, if there is only one that it can be. Items
    among which a user has to decide are returned, so that pages show them.
    """
    if not new:
        return []
    unlinked = matching.unlinked_operations(account, WIRE_TYPES[noun])
    for operation, request in unlinked:
        matching_items = [item for item in new if matching.may_match(request, item)]
        if operation.state == State.SUCCEEDED:
            matching_items = _link_result(account, noun, operation, request, matching_items, unlinked)
        elif operation.error_code == NEEDS_DECISION and operation.error_details:
            matching_items = []
        new = [item for item in new if item not in matching_items]
    return new


def _link_result(
    account: HostingAccount,
    noun: type[Any],
    operation: Operation,
    request: wire.Request,
    items: list[Any],
    unlinked: list[tuple[Operation, wire.Request]],
) -> list[Any]:
    """Link the succeeded operation's row to its item. Return the item in a list, or [] if it is unknown."""
    row = operation.resource
    read_at: datetime | None = getattr(account, f"{NOUN[noun]}s_seen_at")
    ended = operation.finished_at or operation.requested_at
    items = [item for item in items if matching.matches(request, item)]
    rivals = [other for other, its in unlinked if any(matching.matches(its, item) for item in items)]
    if row is None or not items or len(items) > len(rivals) or (read_at and read_at > ended + LINK_WITHIN):
        return []
    rows.apply(row, items[0])
    Operation.objects.filter(pk=operation.pk).update(error_code="", error_message="")
    return items[:1]


class _Rows:
    """Converter of items to columns. Unreported columns retain their value, or have the model's default.

    only: the items to convert, if they are few. `awaits_link` is True after a conversion of a recent item that links
    to a resource that isn't known yet.
    """

    def __init__(self, account: HostingAccount, noun: type[Any], known: Known, only: list[Item] | None):
        self.known, self.names = known, COLUMNS[noun]
        self.blank = {name: noun._meta.get_field(name).get_default() for name in self.names}
        self.linked = links.primary_keys(account, rows.LINKED[noun], _link_ids(only)) if noun in rows.LINKED else {}
        self.awaits_link = False

    def values(self, item: Item) -> dict[str, Any]:
        reported = rows.columns(item)
        if link := rows.link_of(item):
            column, _, mms_id = link
            if pk := self.linked.get(mms_id):
                reported[f"{column}_id"] = pk
            else:
                self.awaits_link |= item.created_at is None or timezone.now() - item.created_at < LINK_GRACE
        current = self.known.get(item.id, self.blank)
        return {name: reported.get(name, current[name]) for name in self.names}


def _link_ids(items: list[Item] | None) -> list[str] | None:
    """Return the ids of the resources that the items link to. None: of all items."""
    return None if items is None else [link[2] for item in items if (link := rows.link_of(item))]


def _write(account: HostingAccount, noun: type[Any], values: dict[str, dict[str, Any]], started: datetime) -> None:
    """Insert or update by (account, server id), oldest first so that the newest gets the highest primary key."""
    new_rows = [noun(account=account, mms_id=mms_id, seen_at=started, **columns) for mms_id, columns in values.items()]
    new_rows.sort(key=lambda row: (row.created_at or started, getattr(row, "version", None) or 0))
    for part in _chunks(new_rows):
        with transaction.atomic():
            noun.objects.bulk_create(
                part,
                update_conflicts=True,
                unique_fields=["account", "mms_id"],
                update_fields=[*COLUMNS[noun], "seen_at", "vanished_at"],
            )


def _mark_vanished(noun: type[Any], known: Known, listed: dict[str, Any], started: datetime) -> list[str]:
    """Mark rows that are no longer listed. Return their server ids."""
    vanished = [
        row
        for mms_id, row in known.items()
        if mms_id not in listed and row["vanished_at"] is None and not _is_newer(row, started)
    ]
    for part in _chunks(vanished):
        noun.objects.filter(pk__in=[row["pk"] for row in part]).update(vanished_at=started)
    return [row["mms_id"] for row in vanished]


def _mark_seen(account: HostingAccount, noun: type[Any], started: datetime, listed: list[int]) -> None:
    """Set `seen_at` of the rows with these primary keys. A complete list confirms all of its rows together."""
    present = noun.objects.filter(account=account, vanished_at=None, seen_at__lt=started)
    for part in _chunks(listed):
        present.filter(pk__in=part).update(seen_at=started)


def _chunks(whole: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (whole[at : at + CHUNK_ROWS] for at in range(0, len(whole), CHUNK_ROWS))

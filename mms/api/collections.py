"""Lists of resources: streamed arrays, entity tags, and change feeds.

A list is read in batches in the order of creation, so its memory doesn't grow with the number of rows. Batches that
several clients read at the same time are encoded once. Entity tags and cursors name the version of the account's list
(mms.changes), read before the rows: a change in between is reported again by the next request, never missed.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from pydantic import BaseModel, TypeAdapter

from mms.api.errors import ApiError, bad_field
from mms.api.http import Request, Response
from mms.api.schemas import responses
from mms.models import Change, Collection

CURSOR_HEADER = "x-mms-cursor"
BATCH_ROWS = 500
MAX_CHANGES = 1000  # in one response
MAX_CACHED_BYTES = 16 * 1024**2  # of encoded batches, per process
PARAMETER = {"changedSince": "Only resources that changed after this cursor, as an object with the next cursor."}


@dataclass(frozen=True)
class Version:
    """A version of one account's list. Written `epoch-number` in cursors."""

    epoch: str
    number: int
    oldest: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


NEVER_CHANGED = Version("new", 0)  # its epoch begins with the first change


@dataclass(frozen=True)
class ResourceList:
    """A list of the API. `to_bodies` returns the response bodies for rows."""

    noun: str  # as in the path
    body: type[BaseModel]
    to_bodies: Callable[[list[Any]], list[Any]]

    @cached_property
    def _adapter(self) -> TypeAdapter[list[Any]]:
        return TypeAdapter(list[self.body])  # type: ignore[name-defined]

    @cached_property
    def _representation(self) -> str:
        """Digest of what else determines a response, so that an upgrade or a new address changes all entity tags."""
        return sha256(repr((self._adapter.json_schema(), settings.GATEWAY_URL)).encode()).hexdigest()[:8]

    def respond(self, request: Request, rows: QuerySet[Any], is_filtered: bool = False) -> Response:
        """Return `rows` of the request's account, or those that changed after the cursor `changedSince`.

        Responds with 304 if the client's entity tag is current. Raises ApiError 400 for a malformed cursor or one
        combined with a filter, and 410 for an expired one.
        """
        version = _version(request.account_id, self.noun)
        if "changedSince" in request.query:
            if is_filtered:
                raise bad_field("changedSince", "can't be combined with a filter.")
            return Response(body=self._changes(request, rows, version))
        tag = f'"{version}-{self._representation}"'
        headers = {"etag": tag, "cache-control": "private, no-cache"}
        if not is_filtered:
            headers[CURSOR_HEADER] = str(version)
        if _matches(request.if_none_match, tag):
            return Response(304, headers=headers)
        return Response(parts=self._parts((tag, str(rows.query)), rows), headers=headers)

    def _parts(self, key: tuple[str, str], rows: QuerySet[Any]) -> Iterator[bytes]:
        """Yield the array in parts, one for each batch."""
        rows, last = rows.order_by("created_at", "id"), None
        separator = b"["
        while True:
            batch = _batches.get((*key, last), partial(self._encode_batch, rows, last))
            if batch.content:
                yield separator + batch.content
                separator = b","
            if batch.last is None:
                yield b"[]" if separator == b"[" else b"]"
                return
            last = batch.last

    def _encode_batch(self, rows: QuerySet[Any], last: "Position | None") -> "_Batch":
        if last is not None:
            rows = rows.filter(created_at__gte=last[0]).exclude(created_at=last[0], id__lte=last[1])
        found = list(rows[:BATCH_ROWS])
        content = self._adapter.dump_json(self.to_bodies(found), by_alias=True)[1:-1]
        is_last = len(found) < BATCH_ROWS
        return _Batch(content, None if is_last else (_value(found[-1], "created_at"), _value(found[-1], "id")))

    def _changes(self, request: Request, rows: QuerySet[Any], version: Version) -> responses.ChangesBody:
        since = _parse_cursor(request.query["changedSince"], version)
        found = Change.objects.filter(account_id=request.account_id, noun=self.noun, version__gt=since)
        changes = list(found.order_by("version").values_list("resource_id", "version")[: MAX_CHANGES + 1])
        has_more = len(changes) > MAX_CHANGES
        changes = changes[:MAX_CHANGES]
        ids = [id for id, _ in changes]
        listed: dict[UUID, Any] = {}
        for at in range(0, len(ids), BATCH_ROWS):
            part = list(rows.filter(pk__in=ids[at : at + BATCH_ROWS]))
            listed |= zip((_value(row, "id") for row in part), self.to_bodies(part), strict=True)
        reached = max([0 if has_more else version.number, *(number for _, number in changes)])
        return responses.ChangesBody(
            changed=[listed[id] for id in ids if id in listed],
            removed=[id for id in ids if id not in listed],
            cursor=str(Version(version.epoch, reached)),
            has_more=has_more,
        )


Position = tuple[datetime, UUID]  # creation time and ID of a row


@dataclass(frozen=True)
class _Batch:
    """Encoded items, without the brackets. `last` is the position of the last item if more may follow."""

    content: bytes
    last: Position | None


class _BatchCache:
    """The most recently used batches, at most MAX_CACHED_BYTES. Batches requested at the same time are encoded once."""

    def __init__(self) -> None:
        self._batches: OrderedDict[Hashable, _Batch] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._encoding: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, encode: Callable[[], _Batch]) -> _Batch:
        """Return the batch with this key, from the cache or from `encode`."""
        with self._lock:
            if found := self._find(key):
                return found
            waiting = self._encoding.setdefault(key, threading.Lock())
        with waiting:
            with self._lock:
                if found := self._find(key):
                    return found
            try:
                batch = encode()
            finally:
                with self._lock:
                    self._encoding.pop(key, None)
            with self._lock:
                self._add(key, batch)
            return batch

    def _find(self, key: Hashable) -> _Batch | None:
        if (found := self._batches.get(key)) is not None:
            self._batches.move_to_end(key)
        return found

    def _add(self, key: Hashable, batch: _Batch) -> None:
        if key not in self._batches:
            self._batches[key] = batch
            self._bytes += len(batch.content)
        while self._bytes > MAX_CACHED_BYTES:
            _, dropped = self._batches.popitem(last=False)
            self._bytes -= len(dropped.content)


_batches = _BatchCache()


def _value(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, dict) else getattr(row, name)


def _version(account_id: int, noun: str) -> Version:
    """Return the current version of the list."""
    found = Collection.objects.filter(account_id=account_id, noun=noun).values_list("epoch", "version", "oldest")
    row = found.first()
    return Version(*row) if row else NEVER_CHANGED


def _parse_cursor(text: str, version: Version) -> int:
    """Return the number in a cursor. Raises ApiError 400 if it isn't a cursor, and 410 if it has expired."""
    cursor = re.fullmatch(r"([a-z0-9]{1,16})-([0-9]{1,18})", text)
    if not cursor:
        raise bad_field("changedSince", f"must be a cursor: the header {CURSOR_HEADER} of an earlier response.")
    number = int(cursor[2])
    is_known = cursor[1] == version.epoch or cursor[0] == str(NEVER_CHANGED)
    if not (is_known and version.oldest <= number <= version.number):
        raise ApiError(410, "CursorExpired", "This cursor has expired. Read the whole list again.")
    return number


def _matches(if_none_match: str, tag: str) -> bool:
    """Return True if the header names `tag`. Compares weakly, because proxies that compress mark tags as weak."""
    tags = {name.strip().removeprefix("W/") for name in if_none_match.split(",")}
    return tag in tags or "*" in tags

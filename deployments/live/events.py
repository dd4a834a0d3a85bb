"""Live state in Redis: written by workers and by submits, read by pages and by the stream of events.

One capped stream `live` carries an entry per change (account id in each); a hash per operation and service holds its
current state. All of it may be lost: the database has the facts, and readers are told to fetch their rows anew.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis

from deployments.live import redis
from deployments.live.badges import Badge, Row, badge_of, badges_of, key_of, keys_of
from deployments.models import Operation, Service
from deployments.timing import MAX_RETRY_AFTER_SECONDS

__all__ = [
    "STREAM",
    "Badge",
    "LiveEvent",
    "LogPart",
    "append_log",
    "badge_of",
    "badges_of",
    "current_interests",
    "decode",
    "operation_log_key",
    "publish",
    "publish_account",
    "publish_operation",
    "publish_service",
    "read_log",
    "record_interest",
    "record_log_interest",
    "service_log_key",
    "stream_position",
]

STREAM = "live"
MAX_STREAM_ENTRIES = 10_000
HASH_TTL_SECONDS = 24 * 3600  # seconds
MAX_BADGES = 200  # published at once
MAX_LOG_LINES = 10_000  # lines
LOG_TTL_SECONDS = 3600
LOG_PART_LINES = 2000  # lines in one answer
INTEREST_SECONDS = 30
MAX_INTEREST_SECONDS = INTEREST_SECONDS + int(MAX_RETRY_AFTER_SECONDS)  # a wish that waits for a server's pause to end
_missed = threading.Event()  # an event of this process could not be written


@dataclass(frozen=True)
class LiveEvent:
    """`badge` None: no row has changed, yet `refresh` is worth fetching anew. Account 0: events were lost, everybody
    fetches everything anew."""

    account_id: int
    badge: Badge | None
    refresh: list[str]  # keys of rows worth fetching anew, e.g. ["model-12"]; "models": a row appeared or vanished


def publish_operation(operation: Operation, *also: str) -> None:
    """Tell the pages where the operation stands. `also`: further keys worth a refresh, e.g. "services"."""
    publish([operation], *keys_of([operation.resource]), *also)


def publish_service(service: Service, *also: str) -> None:
    """Tell the pages what is known of the service."""
    publish([service], *also)


def publish(rows: Sequence[Row], *refresh: str) -> None:
    """Write the badges of rows of one class and announce them; a loss is made up for by a resync."""
    entries = [
        _encode(row.account_id, badge, [key_of(row), *refresh])
        for row, badge in zip(rows, badges_of(rows), strict=True)
    ]
    _send(entries, kept=entries)


def publish_account(account_id: int) -> None:
    """Tell the pages that the account's server is in trouble, or is so no more; no row has changed."""
    _send([{"account": str(account_id), "refresh": '["account"]'}])


def _send(entries: list[dict[Any, Any]], *, kept: Sequence[dict[Any, Any]] = ()) -> None:
    """Announce them, after the word that earlier ones were lost; those in `kept` are their row's current state, too."""

    def write(connection: Redis) -> bool:
        pipe = connection.pipeline(transaction=False)
        for fields in [{"account": "0"}, *entries] if _missed.is_set() else entries:
            pipe.xadd(STREAM, fields, maxlen=MAX_STREAM_ENTRIES, approximate=True)
        for fields in kept:
            name = f"live:{fields['key'].replace('-', ':', 1)}"
            pipe.hset(name, mapping=fields)
            pipe.expire(name, HASH_TTL_SECONDS)
        pipe.execute()
        return True

    if redis.execute(write, fallback=False):
        _missed.clear()
    else:
        _missed.set()


def stream_position() -> str:
    """The id of the newest event, to be read before the rows of a page are. "0" where Redis is out of reach."""

    def read(connection: Redis) -> str:
        newest: Any = connection.xrevrange(STREAM, count=1)
        return newest[0][0].decode() if newest else "0-0"

    return redis.execute(read, fallback="0")


def decode(fields: dict[bytes, bytes]) -> LiveEvent:
    """An entry of the stream, as read from Redis."""
    plain = {name.decode(): value.decode() for name, value in fields.items()}
    if "key" not in plain:
        return LiveEvent(int(plain["account"]), None, json.loads(plain.get("refresh", "[]")))
    badge = Badge(
        key=plain["key"],
        state=plain["state"],
        label=plain["label"],
        since=datetime.fromisoformat(plain["since"]),
        reason=plain["reason"],
        stale_since=_parse_optional(plain["stale_since"]),
        until=_parse_optional(plain.get("until", "")),
    )
    return LiveEvent(int(plain["account"]), badge, json.loads(plain["refresh"]))


def _parse_optional(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _encode(account_id: int, badge: Badge, refresh: list[str]) -> dict[Any, Any]:
    return {
        "account": str(account_id),
        "key": badge.key,
        "state": badge.state,
        "label": badge.label,
        "since": badge.since.isoformat(),
        "reason": badge.reason,
        "stale_since": badge.stale_since.isoformat() if badge.stale_since else "",
        "until": badge.until.isoformat() if badge.until else "",
        "refresh": json.dumps(refresh),
    }


# --- who looks at what --------------------------------------------------------------------------------------------


def record_interest(what: str, life: float = INTEREST_SECONDS) -> None:
    """Somebody looks at `what` ("account:3", "service:7"): workers ask about it more often for `life` seconds."""
    now = _now()

    def write(connection: Redis) -> None:
        pipe = connection.pipeline(transaction=False)
        pipe.zadd("interest", {what: now + life})
        pipe.zremrangebyscore("interest", 0, now)
        pipe.expire("interest", MAX_INTEREST_SECONDS)
        pipe.execute()

    redis.execute(write, fallback=None)


def current_interests(prefix: str) -> set[str]:
    """What is being looked at, of the names that begin with `prefix`, without it."""

    def read(connection: Redis) -> Any:
        return connection.zrangebyscore("interest", _now(), "+inf")

    names = (name.decode() for name in redis.execute(read, fallback=[]))
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def clear_interest(what: str) -> None:
    redis.execute(lambda connection: connection.zrem("interest", what), fallback=None)


def _now() -> float:
    return datetime.now().timestamp()


# --- log lines ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogPart:
    lines: list[str]
    position: str  # what to pass as `after` next
    reported: bool | None  # None: not asked yet; False: the server offers no logs


def operation_log_key(operation: Operation) -> str:
    return f"log:operation:{operation.pk}"


def service_log_key(service: Service) -> str:
    """The log of the service's current revision."""
    newest = service.revisions[0].get("number") if service.revisions else None
    return f"log:service:{service.pk}:{newest or 0}"


def record_log_interest(kind: str, pk: Any) -> None:
    """A log page is open: its lines are fetched while it is. `kind` is "operation" or "service"."""
    record_interest(f"log:{kind}:{pk}")


def read_log(key: str, after: str = "0") -> LogPart:
    """The lines after position `after` (the newest 10 000 are kept)."""

    def read(connection: Redis) -> tuple[Any, Any]:
        pipe = connection.pipeline(transaction=False)
        pipe.xrange(key, f"({after}" if after != "0" else "-", count=LOG_PART_LINES)
        pipe.hget(f"{key}:at", "reported")
        entries, reported = pipe.execute()
        return entries, reported

    try:
        entries, reported = redis.execute(read, fallback=([], None))
    except ValueError:
        entries, reported = [], None
    lines = [fields[b"line"].decode() for _, fields in entries]
    newest = entries[-1][0].decode() if entries else after
    return LogPart(lines, newest, None if reported is None else reported == b"1")


@dataclass(frozen=True)
class LogMark:
    position: int  # how many bytes of the server's log have been fetched
    reported: bool | None
    is_complete: bool  # it has ended, and all of it has been fetched


def log_mark(key: str) -> LogMark | None:
    """How far a log has been fetched; None where Redis is out of reach."""

    def read(connection: Redis) -> LogMark:
        position, reported, whole = connection.hmget(f"{key}:at", ["bytes", "reported", "whole"])
        return LogMark(int(position or 0), None if reported is None else reported == b"1", whole == b"1")

    return redis.execute(read, fallback=None)


def append_log(key: str, lines: Sequence[str], at: int, *, reported: bool = True, is_complete: bool = False) -> None:
    """Add lines, and remember that the server's log has been read up to byte `at`, or that it is all there."""

    def write(connection: Redis) -> None:
        pipe = connection.pipeline(transaction=True)
        for line in lines:
            pipe.xadd(key, {"line": line}, maxlen=MAX_LOG_LINES, approximate=True)
        pipe.hset(f"{key}:at", mapping={"bytes": at, "reported": int(reported), "whole": int(is_complete)})
        pipe.expire(key, LOG_TTL_SECONDS)
        pipe.expire(f"{key}:at", LOG_TTL_SECONDS)
        pipe.execute()

    redis.execute(write, fallback=None)

"""Live state in Redis: workers and submits write it; pages and the event stream read it.

The capped stream `live` has an entry per change, with its account id; a hash per operation and service has the current
state. All of it may be lost: the database is authoritative, and readers fetch their rows again.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
    "is_log_followed",
    "operation_log_key",
    "publish",
    "publish_account",
    "publish_operation",
    "publish_service",
    "read_log",
    "record_interest",
    "record_log_error",
    "record_log_interest",
    "service_log_key",
    "stream_position",
]

STREAM = "live"
MAX_STREAM_ENTRIES = 10_000
HASH_TTL_SECONDS = 24 * 3600
MAX_BADGES = 200  # per publish
MAX_LOG_LINES = 10_000
LOG_TTL_SECONDS = 3600
LOG_PART_LINES = 2000  # per read
INTEREST_SECONDS = 30
# A requested refresh may wait for a server's Retry-After
MAX_INTEREST_SECONDS = INTEREST_SECONDS + int(MAX_RETRY_AFTER_SECONDS)
_missed = threading.Event()  # set while an event of this process could not be written


@dataclass(frozen=True)
class LiveEvent:
    """Event of the stream.

    `badge` is None if no row changed but `refresh` should be fetched again. `account_id` 0 means that events were lost
    and everything has to be fetched again.
    """

    account_id: int
    badge: Badge | None
    refresh: list[str]  # keys to fetch again, e.g. ["model-12"]; "models" if a row appeared or vanished


def publish_operation(operation: Operation, *also: str) -> None:
    """Publish the operation's badge. `also`: further keys to refresh, e.g. "services"."""
    publish([operation], *keys_of([operation.resource]), *also)


def publish_service(service: Service, *also: str) -> None:
    """Publish the service's badge. `also`: further keys to refresh."""
    publish([service], *also)


def publish(rows: Sequence[Row], *refresh: str) -> None:
    """Store and announce the badges of rows of one class. After a failure, readers get a resync event instead."""
    entries = [
        _encode(row.account_id, badge, [key_of(row), *refresh])
        for row, badge in zip(rows, badges_of(rows), strict=True)
    ]
    _send(entries, states=entries)


def publish_account(account_id: int) -> None:
    """Announce that the failure state of the account's server changed. No row has changed."""
    _send([{"account": str(account_id), "refresh": '["account"]'}])


def _send(entries: list[dict[Any, Any]], *, states: Sequence[dict[Any, Any]] = ()) -> None:
    """Append entries to the stream, after a resync entry if some were lost. `states` are also stored as row states."""

    def write(connection: Redis) -> bool:
        pipe = connection.pipeline(transaction=False)
        for fields in [{"account": "0"}, *entries] if _missed.is_set() else entries:
            pipe.xadd(STREAM, fields, maxlen=MAX_STREAM_ENTRIES, approximate=True)
        for fields in states:
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
    """Return the id of the newest event, or "0" if Redis is unavailable. Read it before the rows of a page."""

    def read(connection: Redis) -> str:
        newest: Any = connection.xrevrange(STREAM, count=1)
        return newest[0][0].decode() if newest else "0-0"

    return redis.execute(read, fallback="0")


def decode(fields: dict[bytes, bytes]) -> LiveEvent:
    """Parse an entry of the stream as read from Redis."""
    decoded = {name.decode(): value.decode() for name, value in fields.items()}
    if "key" not in decoded:
        return LiveEvent(int(decoded["account"]), None, json.loads(decoded.get("refresh", "[]")))
    badge = Badge(
        key=decoded["key"],
        state=decoded["state"],
        label=decoded["label"],
        since=datetime.fromisoformat(decoded["since"]),
        reason=decoded["reason"],
        stale_since=_parse_optional(decoded["stale_since"]),
        until=_parse_optional(decoded.get("until", "")),
        stale_reason=decoded.get("stale_reason", ""),
    )
    return LiveEvent(int(decoded["account"]), badge, json.loads(decoded["refresh"]))


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
        "stale_reason": badge.stale_reason,
        "refresh": json.dumps(refresh),
    }


# --- interest: what users are viewing ------------------------------------------------------------------------------


def record_interest(what: str, life: float = INTEREST_SECONDS) -> None:
    """Record that a user views `what` ("account:3", "service:7"): workers check it often for `life` seconds."""
    now = _now()

    def write(connection: Redis) -> None:
        pipe = connection.pipeline(transaction=False)
        pipe.zadd("interest", {what: now + life})
        pipe.zremrangebyscore("interest", 0, now)
        pipe.expire("interest", MAX_INTEREST_SECONDS)
        pipe.execute()

    redis.execute(write, fallback=None)


def current_interests(prefix: str) -> set[str]:
    """Return what users are viewing among the names that start with `prefix`, without the prefix."""

    def read(connection: Redis) -> Any:
        return connection.zrangebyscore("interest", _now(), "+inf")

    names = (name.decode() for name in redis.execute(read, fallback=[]))
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def clear_interest(what: str) -> None:
    """Remove `what` from the interests."""
    redis.execute(lambda connection: connection.zrem("interest", what), fallback=None)


def _now() -> float:
    return datetime.now().timestamp()


# --- log lines ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogPart:
    """Lines of a log, and where to continue reading."""

    lines: list[str]
    position: str  # pass as `after` to continue
    reported: bool | None  # None: not fetched yet; False: the server provides no logs
    error: str = ""  # why no newer lines could be fetched
    failed_at: datetime | None = None  # when that began


def operation_log_key(operation: Operation) -> str:
    """Return the Redis key of the operation's log."""
    return f"log:operation:{operation.pk}"


def service_log_key(service: Service) -> str:
    """Return the Redis key of the log of the service's newest revision."""
    newest = service.revisions[0].get("number") if service.revisions else None
    return f"log:service:{service.pk}:{newest or 0}"


def record_log_interest(kind: str, pk: Any) -> None:
    """Record that a log page is open, so that workers fetch its lines. `kind`: "operation" or "service"."""
    record_interest(f"log:{kind}:{pk}")


def is_log_followed(kind: str, pk: Any) -> bool:
    """Return True if workers fetch the lines of this log, or Redis is unavailable. `kind`: as above."""
    name = f"log:{kind}:{pk}"
    return bool(redis.execute(lambda connection: (connection.zscore("interest", name) or 0) > _now(), fallback=True))


def read_log(key: str, after: str = "0") -> LogPart:
    """Return up to LOG_PART_LINES lines after position `after`. The newest MAX_LOG_LINES are stored."""

    def read(connection: Redis) -> tuple[Any, list[Any]]:
        pipe = connection.pipeline(transaction=False)
        pipe.xrange(key, f"({after}" if after != "0" else "-", count=LOG_PART_LINES)
        pipe.hmget(f"{key}:at", ["reported", "error", "failed_at"])
        entries, mark = pipe.execute()
        return entries, mark

    unknown: tuple[Any, list[Any]] = [], [None, None, None]
    try:
        entries, (reported, error, failed_at) = redis.execute(read, fallback=unknown)
    except ValueError:
        entries, (reported, error, failed_at) = unknown
    lines = [fields[b"line"].decode() for _, fields in entries]
    newest = entries[-1][0].decode() if entries else after
    return LogPart(
        lines,
        newest,
        None if reported is None else reported == b"1",
        (error or b"").decode(),
        _parse_optional((failed_at or b"").decode()),
    )


@dataclass(frozen=True)
class LogMark:
    """Position up to which a server's log has been fetched."""

    position: int  # bytes of the server's log fetched so far
    reported: bool | None
    is_complete: bool  # the log has ended and was fetched to its end


def log_mark(key: str) -> LogMark | None:
    """Return the position up to which a log has been fetched; None if Redis is unavailable."""

    def read(connection: Redis) -> LogMark:
        position, reported, whole = connection.hmget(f"{key}:at", ["bytes", "reported", "whole"])
        return LogMark(int(position or 0), None if reported is None else reported == b"1", whole == b"1")

    return redis.execute(read, fallback=None)


def append_log(key: str, lines: Sequence[str], at: int, *, reported: bool = True, is_complete: bool = False) -> None:
    """Append lines, and record that the server's log was fetched up to byte `at`, or completely."""

    def write(connection: Redis) -> None:
        pipe = connection.pipeline(transaction=True)
        for line in lines:
            pipe.xadd(key, {"line": line}, maxlen=MAX_LOG_LINES, approximate=True)
        pipe.hset(f"{key}:at", mapping={"bytes": at, "reported": int(reported), "whole": int(is_complete)})
        pipe.hdel(f"{key}:at", "error", "failed_at")
        pipe.expire(key, LOG_TTL_SECONDS)
        pipe.expire(f"{key}:at", LOG_TTL_SECONDS)
        pipe.execute()

    redis.execute(write, fallback=None)


def record_log_error(key: str, error: str) -> None:
    """Record why new lines of a log couldn't be fetched, until they are."""

    def write(connection: Redis) -> None:
        pipe = connection.pipeline(transaction=True)
        pipe.hset(f"{key}:at", "error", error)
        pipe.hsetnx(f"{key}:at", "failed_at", datetime.now(UTC).isoformat())
        pipe.expire(f"{key}:at", LOG_TTL_SECONDS)
        pipe.execute()

    redis.execute(write, fallback=None)

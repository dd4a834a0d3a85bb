"""Redis: the queue, the live state and the signs of life lie in it."""

import ipaddress
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from dashboard.ops.doctor.advice import look, restart, supervised
from dashboard.ops.doctor.finding import Asked, Finding, failed, milliseconds, ok, size, span, warning

PART, CLOCK = "Redis", "clock"
PATIENCE = 2.0  # seconds
OLDEST = (6, 2)  # logs are read from streams by an exclusive range
NEARLY_FULL = 0.8  # of maxmemory
CLOCK_OFF, CLOCK_WRONG = 2.0, 8.0  # seconds; a sign of life that is 12 s old means that its program is dead


def connect() -> redis.Redis:
    """A connection that gives up soon and tries once."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def check(asked: Asked) -> Iterator[Finding]:
    try:
        with connect() as link:
            link.time()  # the first command also connects; PING is refused when Redis cannot save
            started = time.monotonic()
            info: Any = link.info()
            took = time.monotonic() - started
            yield _answers(info, took)
            yield _writable(link)
            yield _keeps_everything(info)
            yield _persistent(info)
            yield _guarded()
            yield clock(link)
    except redis.AuthenticationError as error:
        yield failed(
            PART, f"It refuses us: {error}.", "Put its password into REDIS_URL: `redis://:password@host:6379/0`."
        )
    except redis.TimeoutError:
        says = f"It does not answer within {PATIENCE:g} s, at {place()}."
        yield failed(PART, says, f"It hangs or its machine is overloaded. {_how_to_start()}")
    except (redis.ConnectionError, OSError) as error:
        yield failed(PART, f"It cannot be reached at {place()}: {_reason(error)}.", _how_to_start())


def place() -> str:
    """Where REDIS_URL leads to, without its password."""
    parts = urlsplit(settings.REDIS_URL)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def _is_here() -> bool:
    """Whether nobody but this machine can reach it by the address we use."""
    parts = urlsplit(settings.REDIS_URL)
    if parts.scheme == "unix" or parts.hostname in {None, "localhost"}:
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _how_to_start() -> str:
    return f"{restart('redis')} {look('redis')}" if "redis" in supervised() else "Start it, or correct REDIS_URL."


def _reason(error: Exception) -> str:
    """redis-py repeats the address in front of the reason."""
    return str(error).rstrip(".").rpartition(". ")[2] or type(error).__name__


def _answers(info: dict[str, Any], took: float) -> Finding:
    version = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        return failed(PART, f"{name} is too old: logs on pages need {needed}.", f"Upgrade it to {needed} or newer.")
    since = span(info.get("uptime_in_seconds", 0))
    return ok(PART, f"{name} answers in {milliseconds(took)}, up for {since}.")


def _writable(link: redis.Redis) -> Finding:
    try:
        link.set(f"doctor:{uuid.uuid4().hex}", 1, px=1000)
    except redis.OutOfMemoryError:
        advice = "Give it more memory (`maxmemory`), or find out what fills it: `redis-cli --bigkeys`."
        return failed(PART, "It is full and takes nothing more: no task can be queued.", advice)
    except redis.ReadOnlyError:
        return failed(PART, "It is a replica that only reads.", "Let REDIS_URL name the primary.")
    except redis.ResponseError as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        return failed(PART, f"It takes no writes: {reason}.", "Look at its log and at the disk it saves to.")
    return ok(PART, "It can be written.")


def _keeps_everything(info: dict[str, Any]) -> Finding:
    policy, used, most = (
        info["maxmemory_policy"],
        info.get("used_memory", 0),
        info.get("maxmemory", 0),
    )
    if policy != "noeviction":
        says = f"When its memory is full it drops keys (maxmemory-policy {policy}): queued work would vanish."
        kind = failed if most else warning
        return kind(PART, says, "Set `maxmemory-policy noeviction` in its configuration.")
    if not most:
        return ok(PART, f"It uses {size(used)} of memory, without a limit, and drops nothing.")
    says = f"It uses {size(used)} of the {size(most)} of memory that it may."
    if used > NEARLY_FULL * most:
        return warning(PART, says, "Raise `maxmemory`; when it is full no task can be queued.")
    return ok(PART, f"{says} It drops nothing.")


def _persistent(info: dict[str, Any]) -> Finding:
    appends = bool(info.get("aof_enabled"))
    names = ["aof_last_write_status", "aof_last_bgrewrite_status"] if appends else ["rdb_last_bgsave_status"]
    if any(info.get(name, "ok") != "ok" for name in names):
        advice = "Look at its log and at the free space of its disk; it refuses writes until that works again."
        return failed(PART, "Its last attempt to write to disk failed.", advice)
    if appends:
        return ok(PART, "It writes everything to disk as it goes (AOF).")
    return ok(
        PART, "It writes to disk at most now and then; losing it costs no facts, only queued hints and live state."
    )


def _guarded() -> Finding:
    if _is_here():
        return ok(PART, "It is reached without leaving this machine.")
    if urlsplit(settings.REDIS_URL).password:
        return ok(PART, "It asks for a password.")
    says = f"It is reached over the network ({place()}) without a password: others may command the workers."
    return warning(PART, says, "Set `requirepass` there and put the password into REDIS_URL.")


def clock(link: redis.Redis) -> Finding:
    """Signs of life carry the time of the machine that wrote them; Redis is the clock in the middle."""
    before = time.time()
    seconds, micro = link.time()
    off = abs((before + time.time()) / 2 - (seconds + micro / 1e6))
    says = f"The clock here and the one of Redis’ machine differ by {off:.1f} s."
    if off <= CLOCK_OFF:
        return ok(CLOCK, says)
    kind = failed if off > CLOCK_WRONG else warning
    return kind(
        CLOCK, f"{says} Programs look dead or alive that are not.", "Run a time service (NTP) on both machines."
    )

"""Redis, which stores the queues, the live state and the heartbeats."""

import ipaddress
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from dashboard.ops.doctor.advice import log_hint, restart, supervised_programs
from dashboard.ops.doctor.finding import CheckContext, Finding, duration, failed, file_size, milliseconds, ok, warning

PART, CLOCK = "Redis", "clock"
TIMEOUT_SECONDS = 2.0
MIN_VERSION = (6, 2)  # supports exclusive ranges, which reading logs from streams requires
NEARLY_FULL = 0.8  # share of maxmemory
# Clock differences. A program counts as stopped when its heartbeat is 12 s old.
MAX_SKEW_SECONDS, CRITICAL_SKEW_SECONDS = 2.0, 8.0


def connect() -> redis.Redis:
    """Return a client with short timeouts and no retries."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def check(context: CheckContext) -> Iterator[Finding]:
    """Check connection, write access, eviction, persistence and protection of Redis, and compare the clocks."""
    try:
        with connect() as client:
            client.time()  # tests the connection; PING would be rejected while Redis can't save
            started = time.monotonic()
            info: Any = client.info()
            elapsed = time.monotonic() - started
            yield _check_version(info, elapsed)
            yield _check_writable(client)
            yield _check_memory(info)
            yield _check_persistence(info)
            yield _check_password()
            yield check_clock(client)
    except redis.AuthenticationError as error:
        advice = "Add the password to REDIS_URL: `redis://:password@host:6379/0`."
        yield failed(PART, f"Rejected the connection: {error}.", advice)
    except redis.TimeoutError:
        message = f"No response from {location()} within {TIMEOUT_SECONDS:g} s."
        yield failed(PART, f"Redis can't be reached. {message}", f"It hangs or is overloaded. {_start_advice()}")
    except (redis.ConnectionError, OSError) as error:
        yield failed(PART, f"Redis can't be reached at {location()}: {_reason(error)}.", _start_advice())


def location() -> str:
    """Return the address in REDIS_URL without the password."""
    parts = urlsplit(settings.REDIS_URL)
    return unquote(parts.path) if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def _is_local() -> bool:
    """Return True if only this machine can use the address in REDIS_URL."""
    parts = urlsplit(settings.REDIS_URL)
    if parts.scheme == "unix" or parts.hostname in {None, "localhost"}:
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _start_advice() -> str:
    if "redis" in supervised_programs():
        return f"{restart('redis')} {log_hint('redis')}"
    return "Start it, or correct REDIS_URL."


def _reason(error: Exception) -> str:
    """Return the reason without the address, which redis-py prepends."""
    return str(error).rstrip(".").rpartition(". ")[2] or type(error).__name__


def _check_version(info: dict[str, Any], elapsed: float) -> Finding:
    version = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return failed(PART, f"{name} is too old: live logs need {needed}.", f"Upgrade it to {needed} or later.")
    uptime = duration(info.get("uptime_in_seconds", 0))
    return ok(PART, f"{name} responds in {milliseconds(elapsed)}, up for {uptime}.")


def try_writing(client: redis.Redis) -> None:
    """Write a key that expires soon. Raises redis.ResponseError if Redis rejects writes."""
    client.set(f"doctor:{uuid.uuid4().hex}", 1, px=1000)


def _check_writable(client: redis.Redis) -> Finding:
    try:
        try_writing(client)
    except redis.OutOfMemoryError:
        advice = "Raise `maxmemory`, or find the largest keys: `redis-cli --bigkeys`."
        return failed(PART, "Redis is full: its memory limit is reached, so no task can be queued.", advice)
    except redis.ReadOnlyError:
        return failed(PART, "This is a read-only replica.", "Set REDIS_URL to the primary.")
    except redis.ResponseError as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        return failed(PART, f"Writes are rejected: {reason}.", "Check its log and its disk.")
    return ok(PART, "Writable.")


def _check_memory(info: dict[str, Any]) -> Finding:
    policy, used, limit = info["maxmemory_policy"], info.get("used_memory", 0), info.get("maxmemory", 0)
    if policy != "noeviction":
        message = f"Deletes keys when its memory is full (maxmemory-policy {policy}): queued tasks would be lost."
        finding = failed if limit else warning
        return finding(PART, message, "Set `maxmemory-policy noeviction` in its configuration.")
    if not limit:
        return ok(PART, f"Uses {file_size(used)} of memory without a limit, and evicts nothing.")
    message = f"Uses {file_size(used)} of {file_size(limit)} of memory."
    if used > NEARLY_FULL * limit:
        return warning(PART, message, "Raise `maxmemory`. When the memory is full, no task can be queued.")
    return ok(PART, f"{message} Evicts nothing.")


def _check_persistence(info: dict[str, Any]) -> Finding:
    appends = bool(info.get("aof_enabled"))
    names = ["aof_last_write_status", "aof_last_bgrewrite_status"] if appends else ["rdb_last_bgsave_status"]
    if any(info.get(name, "ok") != "ok" for name in names):
        advice = "Check its log and the free space of its disk. It rejects writes until it can save again."
        return failed(PART, "The last write to disk failed.", advice)
    if appends:
        return ok(PART, "Writes every change to disk (AOF).")
    return ok(PART, "Saves to disk rarely or never. A crash loses only live state and hints that are queued again.")


def _check_password() -> Finding:
    if _is_local():
        return ok(PART, "Reachable from this machine only.")
    if urlsplit(settings.REDIS_URL).password:
        return ok(PART, "Protected by a password.")
    message = f"Reachable over the network ({location()}) without a password: others can send tasks to the workers."
    return warning(PART, message, "Set `requirepass` in its configuration and add the password to REDIS_URL.")


def check_clock(client: redis.Redis) -> Finding:
    """Compare the clock of this machine with that of Redis. Heartbeats contain the local time of the program."""
    before = time.time()
    seconds, microseconds = client.time()
    skew = abs((before + time.time()) / 2 - (seconds + microseconds / 1e6))
    message = f"The clocks of this machine and of the machine of Redis differ by {skew:.1f} s."
    if skew <= MAX_SKEW_SECONDS:
        return ok(CLOCK, message)
    finding = failed if skew > CRITICAL_SKEW_SECONDS else warning
    message = f"{message} Stopped programs can look running, and the other way around."
    return finding(CLOCK, message, "Synchronize the clocks of both machines (NTP).")

"""Redis connection for data that may be lost at any time: live state, interests, log lines.

Unavailability is expected: callers get their fallback without waiting, and nothing is raised. After a failure this
process doesn't call Redis for RETRY_SECONDS (refused, which takes no time) or RETRY_AFTER_TIMEOUT_SECONDS (timed out,
which takes a second), so that an outage delays a page at most once.
"""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from deployments.live.outage import UNREACHABLE, cause_of

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_SECONDS = 1.0  # after a refused connection
RETRY_AFTER_TIMEOUT_SECONDS = 5.0
RELEASE_SCRIPT = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"
OUTAGE_CHECK_SECONDS = 5.0  # between two trial writes of this process
_down_until = 0.0
_outage, _outage_checked_at = "", float("-inf")


@cache
def connection() -> redis.Redis:
    """Return the connection pool of this process."""
    # One retry, because the first command after a restart of Redis uses a closed pooled connection. Timeouts aren't
    # retried.
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1, retry=retry)


def execute(command: Callable[[redis.Redis], Any], fallback: T) -> T | Any:
    """Return the result of `command(connection)`, or `fallback` if Redis is unavailable."""
    global _down_until, _outage, _outage_checked_at
    if time.monotonic() < _down_until:
        return fallback
    try:
        return command(connection())
    except (redis.RedisError, OSError) as error:
        timed_out = isinstance(error, redis.TimeoutError | TimeoutError)
        _down_until = time.monotonic() + (RETRY_AFTER_TIMEOUT_SECONDS if timed_out else RETRY_SECONDS)
        _outage, _outage_checked_at = cause_of(error) or UNREACHABLE, time.monotonic()
        log.warning("Pages poll until Redis is available: %s", error)
        return fallback


def outage() -> str:
    """Return what is wrong with Redis, without a period, or "" if it works.

    It is tested by writing, because a full Redis still allows reading, at most every OUTAGE_CHECK_SECONDS.
    """
    global _outage
    if time.monotonic() - _outage_checked_at >= OUTAGE_CHECK_SECONDS and execute(_try_writing, fallback=False):
        _outage = ""
    return _outage


def _try_writing(link: redis.Redis) -> bool:
    global _outage_checked_at
    link.set("trial-write", 1, px=1000)
    _outage_checked_at = time.monotonic()
    return True


def reset_outage() -> None:
    """End the pause after a failure, so that the next command calls Redis."""
    global _down_until, _outage_checked_at
    _down_until, _outage_checked_at = 0.0, float("-inf")


def acquire_lock(name: str, seconds: int, fallback: bool) -> str:
    """Return a token for `release_lock` if the lock `name` is free, else "".

    seconds: when the lock expires if it isn't released. fallback: succeed while Redis is unavailable.
    """
    token = uuid4().hex
    acquired = execute(lambda link: link.set(f"claim:{name}", token, nx=True, ex=seconds), fallback=fallback)
    return token if acquired else ""


def release_lock(name: str, token: str) -> None:
    """Release the lock if it still belongs to `token`; it may have expired and been acquired by another process."""
    execute(lambda link: link.eval(RELEASE_SCRIPT, 1, f"claim:{name}", token), fallback=None)

"""The connection to Redis, for what may be lost at any moment: live state, marks of interest, log lines.

Redis being out of reach is an ordinary state here: callers get their fallback at once, nobody waits and nothing is
raised. After a failure this process leaves Redis alone for a while, so that a page pays for the outage once at most:
a second after a refusal, which costs nothing, and five after a silence, which costs one.
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

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_SECONDS = 1.0  # seconds
RETRY_AFTER_TIMEOUT_SECONDS = 5.0
RELEASE_SCRIPT = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"
_down_until = 0.0


@cache
def connection() -> redis.Redis:
    # One retry: the first command after a restart of Redis meets a dead pooled connection. Silence is not tried twice.
    again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1, retry=again)


def execute(command: Callable[[redis.Redis], Any], fallback: T) -> T | Any:
    """What `command` returns for the connection, or `fallback` where Redis is out of reach."""
    global _down_until
    if time.monotonic() < _down_until:
        return fallback
    try:
        return command(connection())
    except (redis.RedisError, OSError) as error:
        silent = isinstance(error, redis.TimeoutError | TimeoutError)
        _down_until = time.monotonic() + (RETRY_AFTER_TIMEOUT_SECONDS if silent else RETRY_SECONDS)
        log.warning("Redis is unreachable; pages poll until it is available: %s", error)
        return fallback


def reset_outage() -> None:
    """Try Redis again at once."""
    global _down_until
    _down_until = 0.0


def acquire_lock(name: str, seconds: int, fallback: bool) -> str:
    """What `release` takes, if nobody else is at `name` now; else "". Should this process die it ends by itself."""
    token = uuid4().hex
    won = execute(lambda link: link.set(f"claim:{name}", token, nx=True, ex=seconds), fallback=fallback)
    return token if won else ""


def release_lock(name: str, token: str) -> None:
    """End one's own claim: it may have run out, and be somebody else's by now."""
    execute(lambda link: link.eval(RELEASE_SCRIPT, 1, f"claim:{name}", token), fallback=None)

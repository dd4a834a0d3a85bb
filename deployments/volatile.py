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

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PAUSE = 1.0  # seconds
PAUSE_AFTER_SILENCE = 5.0
_down_until = 0.0


@cache
def connection() -> redis.Redis:
    # One retry: the first command after a restart of Redis meets a dead pooled connection. Silence is not tried twice.
    again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1, retry=again)


def attempt(command: Callable[[redis.Redis], Any], fallback: Answer) -> Answer | Any:
    """What `command` returns for the connection, or `fallback` where Redis is out of reach."""
    global _down_until
    if time.monotonic() < _down_until:
        return fallback
    try:
        return command(connection())
    except (redis.RedisError, OSError) as error:
        silent = isinstance(error, redis.TimeoutError | TimeoutError)
        _down_until = time.monotonic() + (PAUSE_AFTER_SILENCE if silent else PAUSE)
        log.warning("Redis is out of reach, pages poll until it is back: %s", error)
        return fallback


def forget_outage() -> None:
    """Try Redis again at once."""
    global _down_until
    _down_until = 0.0


def claim(name: str, seconds: int, fallback: bool) -> bool:
    """Whether nobody else is at `name` now; it is ours until `release`, or for `seconds` should this process die."""
    return bool(attempt(lambda link: link.set(f"claim:{name}", 1, nx=True, ex=seconds), fallback=fallback))


def release(name: str) -> None:
    attempt(lambda link: link.delete(f"claim:{name}"), fallback=None)

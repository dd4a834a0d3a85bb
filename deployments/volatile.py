"""The connection to Redis, for what may be lost at any moment: live state, marks of interest, log lines.

Redis being out of reach is an ordinary state here: callers get their fallback at once, nobody waits and nothing is
raised. After a failure this process leaves Redis alone for a second, so that a page pays for the outage once at most.
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
_down_until = 0.0


@cache
def connection() -> redis.Redis:
    # One retry: the first command after a restart of Redis meets a dead pooled connection.
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1)
    )


def attempt(command: Callable[[redis.Redis], Any], fallback: Answer) -> Answer | Any:
    """What `command` returns for the connection, or `fallback` where Redis is out of reach."""
    global _down_until
    if time.monotonic() < _down_until:
        return fallback
    try:
        return command(connection())
    except (redis.RedisError, OSError) as error:
        _down_until = time.monotonic() + PAUSE
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

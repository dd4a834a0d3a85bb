"""How fast a token may call: a program in a loop must not slow the pages of everybody else."""

import time

from django.conf import settings
from redis import Redis

from dashboard.api.errors import Problem
from dashboard.auth.models import ApiToken
from deployments.live import redis

MINUTE = 60  # seconds


class TooFast(Problem):
    """429; `seconds` until it goes on."""

    def __init__(self, seconds: int) -> None:
        limit = settings.API_CALLS_PER_MINUTE
        super().__init__(429, f"More than {limit} calls in a minute with this token. Try again in {seconds} s.")
        self.seconds = seconds


def keep(token: ApiToken) -> None:
    """Count a call. Raises TooFast. Redis forgets the count with the minute; without Redis there is no limit."""
    now = int(time.time())
    key = f"calls:{token.pk}:{now // MINUTE}"

    def count(connection: Redis) -> int:
        calls = int(connection.incr(key))
        if calls == 1:
            connection.expire(key, MINUTE)
        return calls

    if redis.execute(count, fallback=0) > settings.API_CALLS_PER_MINUTE:
        raise TooFast(MINUTE - now % MINUTE)

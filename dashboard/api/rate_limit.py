"""Rate limit per token, so that a program in a loop can't slow down the pages."""

import time

import redis
from django.conf import settings

from dashboard.api.errors import ApiError
from dashboard.auth.models import ApiToken
from deployments.live import redis as live_redis

WINDOW_SECONDS = 60


class RateLimitError(ApiError):
    """Too many calls with this token (429)."""

    def __init__(self, retry_after_seconds: int) -> None:
        limit = settings.API_CALLS_PER_MINUTE
        super().__init__(
            429, f"More than {limit} calls in a minute with this token. Try again in {retry_after_seconds} s."
        )
        self.retry_after_seconds = retry_after_seconds


def count_call(token: ApiToken) -> None:
    """Count a call with the token. Raise RateLimitError above the limit.

    The count is stored in Redis and expires with the window; while Redis is unreachable, calls aren't limited.
    """
    now = int(time.time())
    key = f"calls:{token.pk}:{now // WINDOW_SECONDS}"

    def count(client: redis.Redis) -> int:
        calls = int(client.incr(key))
        if calls == 1:
            client.expire(key, WINDOW_SECONDS)
        return calls

    if live_redis.execute(count, fallback=0) > settings.API_CALLS_PER_MINUTE:
        raise RateLimitError(WINDOW_SECONDS - now % WINDOW_SECONDS)

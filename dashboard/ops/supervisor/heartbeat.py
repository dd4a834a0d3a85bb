"""Heartbeats of the workers and the scheduler: each writes the time to Redis every few seconds; `/healthz` reads it.

So a health check needs neither a message to the program nor a database write. The key of a stopped program expires.

Run as a program, this is a container's health check: `python -m dashboard.ops.supervisor.heartbeat worker:celery`.
"""

import logging
import sys
import time
from dataclasses import dataclass

import redis

from dashboard import environment

INTERVAL_SECONDS = 3.0  # between two heartbeats
STALE_SECONDS = 12.0  # without a heartbeat, after which the program counts as stopped
IDLE_SECONDS = 30.0  # without a completed task, after which a worker counts as stalled; beat sends one every 1 to 2 s
TTL_SECONDS = 60  # of the Redis key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """The last heartbeat of a program. Times are Unix times in seconds."""

    at: float
    task_completed_at: float


def connect(url: str) -> redis.Redis:
    """Return a client with short timeouts, so that Redis can delay neither a worker's event loop nor a health page."""
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def write(client: redis.Redis, name: str, task_completed_at: float) -> None:
    """Write a heartbeat for the program `name`. Errors of Redis are logged, not raised."""
    try:
        client.set(f"heartbeat:{name}", f"{time.time()} {task_completed_at}", ex=TTL_SECONDS)
    except redis.RedisError as error:
        logger.warning("Couldn't write the heartbeat of %s: %s", name, error)


def read(client: redis.Redis, names: list[str]) -> dict[str, Heartbeat | None]:
    """Return the last heartbeat of each program, or None if it has expired. Raises redis.RedisError."""
    values = client.mget([f"heartbeat:{name}" for name in names])
    return {
        name: Heartbeat(*map(float, value.split())) if value else None
        for name, value in zip(names, values, strict=True)
    }


def main() -> int:
    """Return the exit status of the health check: 0 if every program named in `sys.argv` has a recent heartbeat."""
    heartbeats = read(connect(environment.text("REDIS_URL")), sys.argv[1:])
    return int(not all(last and time.time() - last.at <= STALE_SECONDS for last in heartbeats.values()))


if __name__ == "__main__":
    sys.exit(main())

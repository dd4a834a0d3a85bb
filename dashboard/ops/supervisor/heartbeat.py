"""Signs of life of workers and beat: each writes the time to Redis every few seconds, `/healthz` reads them.

Nothing is pinged on a request, and no row is written. A key that a dead program left behind expires by itself.
"""

import logging
import os
import sys
import time
from dataclasses import dataclass

import redis

INTERVAL = 3.0  # seconds between two signs of life
STALE = 12.0  # seconds without one, and the program counts as dead
IDLE = 30.0  # seconds without a finished task while beat sends some every second or two
KEPT = 60  # seconds a sign of life is kept

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sign:
    """When a program was last known to live, and when it last finished a task (Unix time in seconds)."""

    at: float
    worked_at: float


def connect(url: str) -> redis.Redis:
    """A client that gives up soon: a hanging Redis must hold up neither a worker's loop nor a health page."""
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def write(client: redis.Redis, name: str, worked_at: float) -> None:
    """Leave a sign of life of the program `name`. A Redis that is away is no reason to stop: it is logged."""
    try:
        client.set(f"heartbeat:{name}", f"{time.time()} {worked_at}", ex=KEPT)
    except redis.RedisError as error:
        logger.warning("No sign of life could be written for %s: %s", name, error)


def read(client: redis.Redis, names: list[str]) -> dict[str, Sign | None]:
    """The last sign of each program, None where there is none. Raises redis.RedisError."""
    values = client.mget([f"heartbeat:{name}" for name in names])
    return {
        name: Sign(*map(float, value.split())) if value else None for name, value in zip(names, values, strict=True)
    }


if (
    __name__ == "__main__"
):  # the health check of a container: `python -m dashboard.ops.supervisor.heartbeat worker:celery`
    signs = read(connect(os.environ["REDIS_URL"]), sys.argv[1:])
    sys.exit(not all(sign and time.time() - sign.at <= STALE for sign in signs.values()))

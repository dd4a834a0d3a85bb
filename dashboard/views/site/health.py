"""/healthz: does everything that the site consists of work, and if not, what does not?

For people and monitoring. It is no liveness probe: a dead worker is no reason to restart the web process.
"""

import time
from collections.abc import Iterator

import redis
from django.conf import settings
from django.db import Error, connection
from django.http import HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dashboard.http.request import Request
from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.heartbeat import Heartbeat

WORKS = "works"
QUEUES = {"dashboard": "celery", "mms": "mms"}  # which part of the site needs a worker of which queue


@never_cache
@require_safe
def healthz(request: Request) -> HttpResponse:
    """200 when all parts work, else 503; names each part with "works" or a sentence that says what is wrong.

    JSON, or one line per part for a browser.
    """
    parts = {"web": WORKS, "database": database(), **dict(redis_and_programs())}
    status = 200 if set(parts.values()) == {WORKS} else 503
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        lines = "".join(f"{name}: {state}\n" for name, state in parts.items())
        return HttpResponse(lines, status=status, content_type="text/plain; charset=utf-8")
    return JsonResponse({"ok": status == 200, "parts": parts}, status=status, json_dumps_params={"indent": 2})


def database() -> str:
    """Whether the database answers a query."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return "not responding"
    return WORKS


def redis_and_programs() -> Iterator[tuple[str, str]]:
    """Redis, and what the signs of life in it say of beat and of the workers."""
    beat = f"beat:{'+'.join(sorted(settings.SERVE))}"
    workers = {f"worker:{QUEUES[part]}": f"worker of queue {QUEUES[part]}" for part in sorted(settings.SERVE)}
    try:
        with heartbeat.connect(settings.REDIS_URL) as client:
            signs = heartbeat.read(client, [beat, *workers])
    except redis.RedisError:
        yield "redis", "not responding"
        yield from ((label, "unknown while Redis isn’t responding") for label in ["beat", *workers.values()])
        return
    now = time.time()
    yield "redis", WORKS
    yield "beat", state_of_beat(signs[beat], now)
    for name, label in workers.items():
        yield label, state_of_worker(signs[name], now, beat_works=state_of_beat(signs[beat], now) == WORKS)


def state_of_beat(sign: Heartbeat | None, now: float) -> str:
    """WORKS, or since when beat has not been heard of."""
    if sign is None:
        return f"no heartbeat for {heartbeat.TTL_SECONDS} s or more"
    age = now - sign.at
    return WORKS if age <= heartbeat.STALE_SECONDS else f"no heartbeat for {age:.0f} s"


def state_of_worker(sign: Heartbeat | None, now: float, beat_works: bool) -> str:
    """The same of a worker, which must also finish tasks while beat sends them: a connected worker can be deaf."""
    state = state_of_beat(sign, now)
    if sign is None or state != WORKS or not beat_works:
        return state
    idle = now - sign.task_completed_at
    return WORKS if idle <= heartbeat.IDLE_SECONDS else f"running, but no task completed in {idle:.0f} s"

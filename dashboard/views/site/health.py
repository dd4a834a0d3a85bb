"""/healthz: the health of each part of the site, for people and monitoring.

Don't use it as a liveness probe: a stopped worker doesn't require a restart of the web process.
"""

import time
from collections.abc import Iterator

import redis
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dashboard.http.request import Request
from dashboard.ops.supervisor import heartbeat, storage
from dashboard.ops.supervisor.health import QUEUES, WORKS, state_of_beat, state_of_gateway, state_of_worker
from dashboard.ops.supervisor.restarts import Restarts
from deployments.live.outage import UNREACHABLE, cause_of

STARTED_AT = time.time()  # of this web process
STARTING = "no heartbeat since the web server started"


@never_cache
@require_safe
def healthz(request: Request) -> HttpResponse:
    """Respond with 200 if all parts work, else 503, with the state of each part: "works" or the problem.

    `restarts` has the number of unexpected restarts within the last hour, by program. The body is JSON, or for browsers
    one line per part.
    """
    restarts = Restarts()
    parts = {"web": WORKS, **storage.states(), **dict(redis_and_programs())}
    if "mms" in settings.SERVE:
        parts["gateway"] = state_of_gateway(settings.HOST, settings.GATEWAY_PORT)
    if looping := restarts.in_a_loop():
        parts["restarts"] = f"{', '.join(looping)}: restarted repeatedly within the last minute"
    status = 200 if set(parts.values()) == {WORKS} else 503
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        lines = [f"{name}: {state}\n" for name, state in parts.items()]
        lines += [f"{name}: restarts within the last hour: {count}\n" for name, count in restarts.counts().items()]
        return HttpResponse("".join(lines), status=status, content_type="text/plain; charset=utf-8")
    body = {"ok": status == 200, "parts": parts, "restarts": restarts.counts()}
    return JsonResponse(body, status=status, json_dumps_params={"indent": 2})


def redis_and_programs() -> Iterator[tuple[str, str]]:
    """Yield the states of Redis, and of beat and the workers, whose heartbeats are stored there."""
    beat = f"beat:{'+'.join(sorted(settings.SERVE))}"
    workers = {f"worker:{QUEUES[part]}": f"worker of queue {QUEUES[part]}" for part in sorted(settings.SERVE)}
    try:
        with heartbeat.connect(settings.REDIS_URL) as client:
            client.set("trial-write", 1, px=1000)
            heartbeats = heartbeat.read(client, [beat, *workers])
    except redis.RedisError as error:
        cause = cause_of(error) or UNREACHABLE
        yield "redis", cause
        yield from ((label, f"unknown: {cause}") for label in ["beat", *workers.values()])
        return
    now = time.time()
    yield "redis", WORKS
    # After a restart of the site, Redis still has the heartbeats of its previous programs.
    is_new = now - STARTED_AT < heartbeat.STALE_SECONDS
    starting = {name for name, last in heartbeats.items() if is_new and (last is None or last.at < STARTED_AT)}
    yield "beat", STARTING if beat in starting else state_of_beat(heartbeats[beat], now)
    beat_works = beat not in starting and state_of_beat(heartbeats[beat], now) == WORKS
    for name, label in workers.items():
        yield label, STARTING if name in starting else state_of_worker(heartbeats[name], now, beat_works)

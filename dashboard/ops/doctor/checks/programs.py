"""Workers and beat, as their signs of life tell, and the queues between them."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import redis as redis_client
from celery import current_app
from django.conf import settings

from dashboard.ops.doctor.advice import look, restart
from dashboard.ops.doctor.checks import redis
from dashboard.ops.doctor.finding import Asked, Finding, State, failed, many, ok, span, unknown, warning
from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.heartbeat import Heartbeat
from dashboard.views.site.health import QUEUES, WORKS, state_of_beat, state_of_worker

WORKERS = {"dashboard": "worker", "mms": "mms-worker"}  # by the half of the site (settings.SERVE)
TASKS = {"celery": "deployments.answer", "mms": "mms.answer"}  # by queue
LONG = 100  # tasks; beat sends a few every second, so these have waited for more than a minute
ROUND_TRIP = 10.0  # seconds
LOOK = 0.05


def check(asked: Asked) -> Iterator[Finding]:
    halves = sorted(settings.SERVE)
    try:
        with redis.connect() as link:
            signs = list(_signs(link, halves))
            yield from signs
            yield from (_queue(link, QUEUES[half], WORKERS[half]) for half in halves)
            if asked.thorough:
                alive = {sign.part for sign in signs if sign.state == State.OK}
                yield from _round_trips(link, [half for half in halves if WORKERS[half] in alive])
    except redis_client.RedisError:
        for name in ["beat", *(WORKERS[half] for half in halves)]:
            yield unknown(name, "Not known while Redis does not answer, for its signs of life lie there.")


def _signs(link: redis_client.Redis, halves: list[str]) -> Iterator[Finding]:
    beat = f"beat:{'+'.join(halves)}"
    signs = heartbeat.read(link, [beat, *(f"worker:{QUEUES[half]}" for half in halves)])
    now = time.time()
    state = state_of_beat(signs[beat], now)
    yield _beat(signs[beat], state, now)
    for half in halves:
        yield _worker(WORKERS[half], QUEUES[half], signs[f"worker:{QUEUES[half]}"], now, state == WORKS)


def _beat(sign: Heartbeat | None, state: str, now: float) -> Finding:
    if sign and state == WORKS:
        return ok("beat", f"Its last sign of life is {span(now - sign.at)} old.")
    says = f"{state.capitalize()}: nothing is polled, swept or refreshed by itself."
    return failed("beat", says, f"{restart('beat')} {look('beat')}")


def _worker(name: str, queue: str, sign: Heartbeat | None, now: float, beat_works: bool) -> Finding:
    state = state_of_worker(sign, now, beat_works)
    advice = f"{restart(name)} {look(name)}"
    if sign is None or now - sign.at > heartbeat.STALE_SECONDS:
        return failed(name, f"{state.capitalize()}: what people ask for waits in queue {queue}.", advice)
    if state != WORKS:
        return failed(name, f"It {state}: it is deaf or all its threads hang.", advice)
    if not beat_works:
        return ok(name, f"It lives (queue {queue}); without beat it has little to do.")
    return ok(name, f"It finished its last task {span(max(0.0, now - sign.task_completed_at))} ago (queue {queue}).")


def _queue(link: redis_client.Redis, queue: str, worker: str) -> Finding:
    waiting: Any = link.llen(queue)
    if waiting <= LONG:
        return ok("queues", f"{many(waiting, 'task')} in {queue}.")
    says = f"{many(waiting, 'task')} wait in queue {queue}: nobody takes them, or they come faster than they are done."
    return warning("queues", says, f"See {worker}. They are hints only: old ones cost nothing once it works again.")


# --- a task there and back ----------------------------------------------------------------------------------------


def _round_trips(link: redis_client.Redis, halves: list[str]) -> Iterator[Finding]:
    """Send each queue a task that leaves a word in Redis, and wait for the word."""
    started, keys = time.monotonic(), {half: f"doctor:{uuid.uuid4().hex}" for half in halves}
    for half, key in keys.items():
        current_app.send_task(TASKS[QUEUES[half]], [key], queue=QUEUES[half], expires=ROUND_TRIP, retry=False)
    waiting = dict(keys)
    while waiting and time.monotonic() - started < ROUND_TRIP:
        for half in [half for half, key in waiting.items() if link.exists(key)]:
            del waiting[half]
            yield ok(
                WORKERS[half], f"A task sent to queue {QUEUES[half]} was done {time.monotonic() - started:.1f} s later."
            )
        time.sleep(LOOK)
    for half in waiting:
        says = f"A task sent to queue {QUEUES[half]} was not done within {ROUND_TRIP:.0f} s."
        yield failed(WORKERS[half], says, f"{restart(WORKERS[half])} {look(WORKERS[half])}")

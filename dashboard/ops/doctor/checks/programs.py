"""The workers and the scheduler, judged by their heartbeats, and the queues between them."""

import time
import uuid
from collections.abc import Iterator
from typing import Any, cast

import redis as redis_client
from celery import current_app
from django.conf import settings

from dashboard.ops.doctor.advice import log_hint, restart
from dashboard.ops.doctor.checks import redis
from dashboard.ops.doctor.finding import CheckContext, Finding, State, duration, failed, ok, pluralize, unknown, warning
from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.health import QUEUES, WORKS, state_of_beat, state_of_worker
from dashboard.ops.supervisor.heartbeat import Heartbeat
from dashboard.ops.supervisor.messages import dropped_key
from dashboard.ops.supervisor.restarts import Restarts
from deployments.live.outage import UNREACHABLE, cause_of

WORKERS = {"dashboard": "worker", "mms": "mms-worker"}  # worker by half of the site (settings.SERVE)
TASKS = {"celery": "deployments.answer", "mms": "mms.answer"}  # by queue
LONG_QUEUE = 100  # tasks. Beat sends a few per second, so the oldest has waited for more than a minute.
ROUND_TRIP_SECONDS = 10.0
POLL_SECONDS = 0.05


def check(context: CheckContext) -> Iterator[Finding]:
    """Check heartbeats and queues. A thorough check also sends a task to each queue."""
    halves = sorted(settings.SERVE)
    yield from _check_restarts(Restarts())
    try:
        with redis.connect() as client:
            redis.try_writing(client)
            findings = list(_check_heartbeats(client, halves))
            yield from findings
            yield from (_check_queue(client, QUEUES[half], WORKERS[half]) for half in halves)
            yield from (finding for half in halves for finding in _check_dropped(client, QUEUES[half]))
            if context.thorough:
                working = {finding.part for finding in findings if finding.state == State.OK}
                yield from _check_round_trips(client, [half for half in halves if WORKERS[half] in working])
    except redis_client.RedisError as error:
        cause = cause_of(error) or UNREACHABLE
        for name in ["beat", *(WORKERS[half] for half in halves)]:
            yield unknown(name, f"Unknown: {cause}, and heartbeats are stored there.")


def _check_heartbeats(client: redis_client.Redis, halves: list[str]) -> Iterator[Finding]:
    beat = f"beat:{'+'.join(halves)}"
    heartbeats = heartbeat.read(client, [beat, *(f"worker:{QUEUES[half]}" for half in halves)])
    now = time.time()
    state = state_of_beat(heartbeats[beat], now)
    yield _check_beat(heartbeats[beat], state, now)
    for half in halves:
        queue = QUEUES[half]
        yield _check_worker(WORKERS[half], queue, heartbeats[f"worker:{queue}"], now, state == WORKS)


def _check_beat(last: Heartbeat | None, state: str, now: float) -> Finding:
    if last and state == WORKS:
        return ok("beat", f"Last heartbeat {duration(now - last.at)} ago.")
    message = f"{_capitalize(state)}. Without the scheduler, nothing is polled or refreshed automatically."
    return failed("beat", message, f"{restart('beat')} {log_hint('beat')}")


def _check_worker(name: str, queue: str, last: Heartbeat | None, now: float, beat_works: bool) -> Finding:
    state = state_of_worker(last, now, beat_works)
    advice = f"{restart(name)} {log_hint(name)}"
    if last is None or now - last.at > heartbeat.STALE_SECONDS:
        return failed(name, f"{_capitalize(state)}. Operations wait in queue {queue}.", advice)
    if state != WORKS:
        return failed(name, f"{_capitalize(state)}: it receives no messages, or all of its threads hang.", advice)
    if not beat_works:
        return ok(name, f"Running (queue {queue}). It has little to do while the scheduler is stopped.")
    age = duration(max(0.0, now - last.task_completed_at))
    return ok(name, f"Last task completed {age} ago (queue {queue}).")


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _check_queue(client: redis_client.Redis, queue: str, worker: str) -> Finding:
    waiting: Any = client.llen(queue)
    if waiting <= LONG_QUEUE:
        return ok("queues", f"{pluralize(waiting, 'task')} in {queue}.")
    message = f"{pluralize(waiting, 'task')} wait in queue {queue}: the worker is stalled or too slow."
    return warning("queues", message, f'See "{worker}". It discards expired tasks when it works again.')


def _check_dropped(client: redis_client.Redis, queue: str) -> Iterator[Finding]:
    """Report messages that workers dropped because they couldn't read them."""
    count = int(cast(bytes, client.get(dropped_key(queue))) or 0)
    if count:
        message = f"{pluralize(count, 'unreadable message')} in queue {queue} dropped within the last day."
        advice = "Another program writes to this Redis. Use a separate Redis for this site, protected with a password."
        yield warning("queues", message, f"{advice} The log of the worker has the reason.")


def _check_restarts(restarts: Restarts) -> Iterator[Finding]:
    """Report programs that the supervisor had to restart within the last hour."""
    for name, count in restarts.counts().items():
        finding = failed if name in restarts.in_a_loop() else warning
        message = f"Exited unexpectedly {pluralize(count, 'time')} within the last hour, and was restarted."
        yield finding(name, message, log_hint(name))


# --- round trips ----------------------------------------------------------------------------------------------------


def _check_round_trips(client: redis_client.Redis, halves: list[str]) -> Iterator[Finding]:
    """Send a task that writes a key to each queue, and wait for the keys."""
    started, keys = time.monotonic(), {half: f"doctor:{uuid.uuid4().hex}" for half in halves}
    for half, key in keys.items():
        current_app.send_task(TASKS[QUEUES[half]], [key], queue=QUEUES[half], expires=ROUND_TRIP_SECONDS, retry=False)
    waiting = dict(keys)
    while waiting and time.monotonic() - started < ROUND_TRIP_SECONDS:
        for half in [half for half, key in waiting.items() if client.exists(key)]:
            del waiting[half]
            message = f"A task sent to queue {QUEUES[half]} completed in {time.monotonic() - started:.1f} s."
            yield ok(WORKERS[half], message)
        time.sleep(POLL_SECONDS)
    for half in waiting:
        message = f"A task sent to queue {QUEUES[half]} didn't complete within {ROUND_TRIP_SECONDS:.0f} s."
        yield failed(WORKERS[half], message, f"{restart(WORKERS[half])} {log_hint(WORKERS[half])}")

"""Roll out a revision without failed requests, and take a service down."""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from mms.engines.base import EngineRefusedError, EngineUnavailableError, Health, Observation
from mms.engines.process.engine import ProcessEngine
from mms.gateway import routes
from mms.models import Operation, Revision, Service
from mms.services import route
from mms.services.engine import engine_for, process_engine, revision_spec

log = logging.getLogger(__name__)
RESULT = TypeVar("RESULT")

LIVE_STATES = ("starting", "active", "draining")
POLL_SECONDS = 0.05
LOG_LINES = 20  # included in the error of a failed rollout
FAILED_INIT = "init() failed:"  # the log line of the scoring program that is more useful than its exit status
# An unreachable supervisor is probably restarting, and this worker with it. The next worker then resumes the rollout.
ENGINE_RETRY_SECONDS = 30.0
DRAIN_SECONDS = 10.0  # `watch` stops revisions that take longer


class RolloutError(Exception):
    """The new revision failed to start. The previous one, if any, still serves."""

    def __init__(self, code: str, message: str, lines: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.details = [{"code": "Log", "message": line, "target": "service log"} for line in lines]


def roll_out(operation: Operation) -> None:
    """Start the operation's revision, switch to it once it is healthy, then drain and stop the previous one.

    A long request doesn't delay the rollout: `watch` stops the revision that serves it later.

    Safe to run again from any point. Raises RolloutError or EngineRefusedError; the new revision is then removed, and
    the previous one, if any, still serves.
    """
    assert operation.revision_id is not None  # noqa: S101 - by its verb
    revision = Revision.objects.select_related("service", "image").get(pk=operation.revision_id)
    engine = engine_for(revision.service.kube_config or "")
    if revision.state != "active":
        try:
            _start(engine, revision)
        except (RolloutError, EngineRefusedError) as failure:
            _abandon(engine, revision, str(failure))
            raise
    _switch(revision)  # also if already active: a worker may have been killed before it wrote the route
    deadline = time.monotonic() + DRAIN_SECONDS
    while _retry_while_unavailable(lambda: stop_drained(engine, revision.service)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def take_down(service: Service) -> None:
    """Remove the route, then stop all revisions of the service. Retains the logs. Safe to run again."""
    with route.lock():
        routes.remove(route.directory(), str(service.pk))
        service.revisions.filter(state__in=LIVE_STATES).update(state="stopped", stopped_at=timezone.now())
        Service.objects.filter(pk=service.pk).update(health="", health_detail="")
    _retry_while_unavailable(lambda: _stop_all(process_engine(), service))


def _stop_all(engine: ProcessEngine, service: Service) -> None:
    for service_id, number in engine.running():
        if service_id == str(service.pk):
            engine.remove(service_id, number)


def _start(engine: ProcessEngine, revision: Revision) -> None:
    """Start the revision and wait until it is healthy. Raises EngineRefusedError or RolloutError."""
    address = _retry_while_unavailable(lambda: engine.apply(revision_spec(revision)))
    Revision.objects.filter(pk=revision.pk).update(address=address, state="starting", detail="", stopped_at=None)
    Service.objects.filter(pk=revision.service_id, health="").update(health=Health.STARTING)
    deadline = time.monotonic() + settings.MMS_INIT_TIMEOUT + 5
    observe = partial(engine.observe, str(revision.service_id), revision.number)
    while (seen := _retry_while_unavailable(observe)).health != Health.HEALTHY:
        if _has_failed(seen) or time.monotonic() > deadline:
            raise _failure(engine, revision, seen)
        time.sleep(POLL_SECONDS)


def _has_failed(seen: Observation) -> bool:
    """Return True if the program can't become healthy: it reported a failure, or crashed repeatedly."""
    return seen.health == Health.UNHEALTHY or (
        seen.health == Health.CRASHED and (seen.is_unrecoverable or seen.restarts > 0)
    )


def _failure(engine: ProcessEngine, revision: Revision, seen: Observation) -> RolloutError:
    lines = engine.last_lines(str(revision.service_id), revision.number, LOG_LINES)
    if seen.health == Health.CRASHED:
        reason = seen.detail if seen.is_out_of_memory else _crash_reason(lines, seen)
        return RolloutError("ServiceCrashed", f"Revision {revision.number} crashed. {reason}", lines)
    message = f"Revision {revision.number} was not ready after {settings.MMS_INIT_TIMEOUT} s. {seen.detail}"
    return RolloutError("ServiceNotReady", message, lines)


def _crash_reason(lines: list[str], seen: Observation) -> str:
    """Return the line of the log with the cause. It is the last one if the program refused to start."""
    last = [line for line in lines if line.strip()][-1:] if seen.is_unrecoverable else []
    return next((line for line in reversed(lines) if FAILED_INIT in line), (last or [seen.detail])[0])


def _abandon(engine: ProcessEngine, revision: Revision, reason: str) -> None:
    Revision.objects.filter(pk=revision.pk).update(state="failed", detail=reason, stopped_at=timezone.now())
    if not revision.service.revisions.filter(state="active").exists():
        Service.objects.filter(pk=revision.service_id).update(health="", health_detail="")
    try:
        engine.remove(str(revision.service_id), revision.number)
    except (EngineUnavailableError, EngineRefusedError) as error:  # `watch` removes revisions without a row
        log.warning("Couldn't remove revision %s: %s", revision, error)


def _switch(revision: Revision) -> None:
    """Make this revision the active one, and start draining its predecessors."""
    with route.lock():
        with transaction.atomic():
            older = Revision.objects.filter(service=revision.service_id, state="active").exclude(pk=revision.pk)
            older.update(state="draining")
            Revision.objects.filter(pk=revision.pk).update(state="active", activated_at=timezone.now())
            Service.objects.filter(pk=revision.service_id).update(
                image=revision.image_id, health=Health.HEALTHY, health_detail=""
            )
        route.publish(revision.service)


def stop_drained(engine: ProcessEngine, service: Service) -> int:
    """Stop drained revisions and return how many are still draining. Raises EngineUnavailableError."""
    draining = list(service.revisions.filter(state="draining"))
    active = service.revisions.filter(state="active").first()
    since = active.activated_at if active and active.activated_at else service.updated_at
    drained = [old for old in draining if _is_drained(engine, old, since)]
    for old in drained:
        engine.remove(str(service.pk), old.number)
        Revision.objects.filter(pk=old.pk).update(state="stopped", stopped_at=timezone.now())
    return len(draining) - len(drained)


def _is_drained(engine: ProcessEngine, revision: Revision, since: datetime) -> bool:
    """Return True once no gateway has its route, and it has no open request or the longest possible one has ended."""
    age = (timezone.now() - since).total_seconds()
    if age < route.ROUTE_LIFETIME_SECONDS:
        return False
    if age > route.ROUTE_LIFETIME_SECONDS + route.RESPONSE_SECONDS:
        return True
    seen = engine.observe(str(revision.service_id), revision.number)
    return seen.in_flight == 0 or seen.health in {Health.CRASHED, Health.ABSENT}


def _retry_while_unavailable(call: Callable[[], RESULT]) -> RESULT:
    """Return the result of `call`, retried while the engine is unavailable, for ENGINE_RETRY_SECONDS.

    Raises RolloutError after that.
    """
    deadline = time.monotonic() + ENGINE_RETRY_SECONDS
    while True:
        try:
            return call()
        except EngineUnavailableError as error:
            if time.monotonic() > deadline:
                raise RolloutError("EngineUnavailable", str(error)) from None
        time.sleep(10 * POLL_SECONDS)

"""Rolling a revision out without a failed request, and taking a service down."""

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
Answer = TypeVar("Answer")

LIVE_STATES = ("starting", "active", "draining")
POLL_SECONDS = 0.05
LOG_LINES = 20  # of the log, in the error of a roll-out
FAILED_INIT = "init() failed:"  # how the scoring program's last word begins; it says more than an exit status
# A supervisor that is out of reach is most likely being restarted, and we with it: the next worker goes on from here.
ENGINE_RETRY_SECONDS = 30.0  # seconds
DRAIN_SECONDS = 10.0  # seconds; the watch stops what answers longer


class RolloutError(Exception):
    """The new revision did not come up; the one before, if any, still serves."""

    def __init__(self, code: str, message: str, lines: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.details = [{"code": "Log", "message": line, "target": "service log"} for line in lines]


def roll_out(operation: Operation) -> None:
    """Start the operation's revision, switch to it once it is healthy, drain and stop the one before.

    A request that takes long does not hold this up: the watch stops its revision later.

    Safe to run again from any point. Raises RolloutError or EngineRefusedError; then nothing of the new revision is
    left, and the old one, if any, still serves.
    """
    assert operation.revision_id is not None  # noqa: S101 - by its verb
    revision = Revision.objects.select_related("service", "image").get(pk=operation.revision_id)
    engine = engine_for(revision.service.kube_config or "")
    if revision.state != "active":
        try:
            _start(engine, revision)
        except (RolloutError, EngineRefusedError) as failure:
            _give_up(engine, revision, str(failure))
            raise
    _switch(revision)  # again, too, where a worker was killed right after it: the route may not have been written
    deadline = time.monotonic() + DRAIN_SECONDS
    while _patiently(lambda: stop_drained(engine, revision.service)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def take_down(service: Service) -> None:
    """Withdraw the route at once, then stop everything of the service. Logs stay. Safe to run again."""
    with route.lock():
        routes.remove(route.directory(), str(service.pk))
        service.revisions.filter(state__in=LIVE_STATES).update(state="stopped", stopped_at=timezone.now())
        Service.objects.filter(pk=service.pk).update(health="", health_detail="")
    _patiently(lambda: _stop_all(process_engine(), service))


def _stop_all(engine: ProcessEngine, service: Service) -> None:
    for service_id, number in engine.running():
        if service_id == str(service.pk):
            engine.remove(service_id, number)


def _start(engine: ProcessEngine, revision: Revision) -> None:
    """Start it and wait until it is healthy. Raises EngineRefusedError or RolloutError."""
    address = _patiently(lambda: engine.apply(revision_spec(revision)))
    Revision.objects.filter(pk=revision.pk).update(address=address, state="starting", detail="", stopped_at=None)
    Service.objects.filter(pk=revision.service_id, health="").update(health=Health.STARTING)
    deadline = time.monotonic() + settings.MMS_INIT_TIMEOUT + 5
    look = partial(engine.observe, str(revision.service_id), revision.number)
    while (seen := _patiently(look)).health != Health.HEALTHY:
        if _lost(seen) or time.monotonic() > deadline:
            raise _failure(engine, revision, seen)
        time.sleep(POLL_SECONDS)


def _lost(seen: Observation) -> bool:
    """Whether waiting on is useless: it says so itself, or it crashed, was started again and crashed again."""
    return seen.health == Health.UNHEALTHY or (
        seen.health == Health.CRASHED and (seen.is_unrecoverable or seen.restarts > 0)
    )


def _failure(engine: ProcessEngine, revision: Revision, seen: Observation) -> RolloutError:
    lines = engine.last_lines(str(revision.service_id), revision.number, LOG_LINES)
    if seen.health == Health.CRASHED:
        reason = next((line for line in reversed(lines) if FAILED_INIT in line), seen.detail)
        return RolloutError("ServiceCrashed", f"Revision {revision.number} does not stay up. {reason}", lines)
    message = f"Revision {revision.number} was not ready after {settings.MMS_INIT_TIMEOUT} s. {seen.detail}"
    return RolloutError("ServiceNotReady", message, lines)


def _give_up(engine: ProcessEngine, revision: Revision, reason: str) -> None:
    Revision.objects.filter(pk=revision.pk).update(state="failed", detail=reason, stopped_at=timezone.now())
    if not revision.service.revisions.filter(state="active").exists():
        Service.objects.filter(pk=revision.service_id).update(health="", health_detail="")
    try:
        engine.remove(str(revision.service_id), revision.number)
    except (EngineUnavailableError, EngineRefusedError) as error:  # the watch removes what belongs to nobody
        log.warning("Revision %s could not be removed: %s", revision, error)


def _switch(revision: Revision) -> None:
    """Make it the active one; its predecessors drain from now on."""
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
    done = [old for old in draining if _drained(engine, old, since)]
    for old in done:
        engine.remove(str(service.pk), old.number)
        Revision.objects.filter(pk=old.pk).update(state="stopped", stopped_at=timezone.now())
    return len(draining) - len(done)


def _drained(engine: ProcessEngine, revision: Revision, since: datetime) -> bool:
    """No gateway has its route any more, and it answers no request, or has had the time that the longest may take."""
    age = (timezone.now() - since).total_seconds()
    if age < route.ROUTE_LIFETIME_SECONDS:
        return False
    if age > route.ROUTE_LIFETIME_SECONDS + route.ANSWER_SECONDS:
        return True
    seen = engine.observe(str(revision.service_id), revision.number)
    return seen.in_flight == 0 or seen.health in {Health.CRASHED, Health.ABSENT}


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, asked again while the engine is out of reach. Raises RolloutError in the end."""
    deadline = time.monotonic() + ENGINE_RETRY_SECONDS
    while True:
        try:
            return ask()
        except EngineUnavailableError as error:
            if time.monotonic() > deadline:
                raise RolloutError("EngineUnavailable", str(error)) from None
        time.sleep(10 * POLL_SECONDS)

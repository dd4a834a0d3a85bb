"""Reconciliation of services every two seconds: health, stopped or missing revisions, and orphans."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from mms.engines.base import EngineRefusedError, EngineUnavailableError, Health, Observation
from mms.engines.process import sandbox
from mms.engines.process.engine import ProcessEngine
from mms.models import OPEN, Revision, Service
from mms.services import route
from mms.services.engine import process_engine, revision_spec
from mms.services.rollout import LIVE_STATES, stop_drained, take_down
from mms.system.locks import locked

log = logging.getLogger(__name__)

MAX_PARALLEL_PROBES = 8  # so that a service that hangs doesn't delay the checks of the others


def watch() -> None:
    """Make the engine and the routes match the database, and store the health of services in it."""
    with locked(settings.RUN_DIR / "watch.lock", wait=False) as acquired:
        if not acquired:
            return
        sandbox.unavailable_reason(
            settings.DATA_DIR
        )  # run the trial now, so that the first rollout doesn't wait for it
        try:
            _reconcile(process_engine())
        except EngineUnavailableError as error:
            log.warning("Couldn't check services: %s", error)


def _reconcile(engine: ProcessEngine) -> None:
    route.remove_temporary_files()
    _check_active(engine)  # first, because it repairs the route of a switch whose worker was killed before writing it
    for service in Service.objects.filter(revisions__state="draining").distinct():
        with _continue_with_others(f"drain service {service.pk}"):
            stop_drained(engine, service)
    _stop_orphans(engine)


@contextmanager
def _continue_with_others(what: str) -> Iterator[None]:
    """Log any error that concerns one service, so that the others are still checked.

    EngineUnavailableError concerns all of them and is raised.
    """
    try:
        yield
    except EngineUnavailableError:
        raise
    except Exception:
        log.exception("Couldn't %s.", what)


def _check_active(engine: ProcessEngine) -> None:
    active = list(Revision.objects.select_related("service", "image").filter(state="active", service__deleted_at=None))
    if not active:
        return
    with ThreadPoolExecutor(MAX_PARALLEL_PROBES) as pool:
        seen = list(pool.map(lambda revision: _observe(engine, revision), active))
    for revision, observation in zip(active, seen, strict=True):
        if observation:
            with _continue_with_others(f"check revision {revision}"):
                _check_revision(engine, revision, observation)


def _observe(engine: ProcessEngine, revision: Revision) -> Observation | None:
    with _continue_with_others(f"observe revision {revision}"):
        return engine.observe(str(revision.service_id), revision.number)
    return None


def _check_revision(engine: ProcessEngine, revision: Revision, seen: Observation) -> None:
    if seen.health in {Health.CRASHED, Health.ABSENT}:
        if not _still_active(revision):  # replaced or deleted since the rows were read
            return
        seen = _restart(engine, revision, seen)
    service = revision.service
    if (service.health, service.health_detail) != (seen.health, seen.detail):
        Service.objects.filter(pk=service.pk, deleted_at=None).update(health=seen.health, health_detail=seen.detail)
    _update_address(engine, revision)
    if not route.is_current(revision):
        _repair_route(revision)


def _repair_route(revision: Revision) -> None:
    """Write the current route. Gateways used the previous one until now, so its draining starts now."""
    route.publish_route(revision.service)
    if revision.service.revisions.filter(state="draining").exists():
        Revision.objects.filter(pk=revision.pk, state="active").update(activated_at=timezone.now())


def _update_address(engine: ProcessEngine, revision: Revision) -> None:
    """Store the revision's address, which changes when the data folder is moved or restored elsewhere."""
    address = engine.address(str(revision.service_id), revision.number)
    if address != revision.address:
        Revision.objects.filter(pk=revision.pk).update(address=address)
        revision.address = address


def _still_active(revision: Revision) -> bool:
    return Revision.objects.filter(pk=revision.pk, state="active", service__deleted_at=None).exists()


def _restart(engine: ProcessEngine, revision: Revision, seen: Observation) -> Observation:
    """Start a revision that is missing or that the supervisor stopped retrying."""
    try:
        engine.apply(revision_spec(revision))
    except EngineRefusedError as refusal:
        return Observation(Health.CRASHED, str(refusal))
    if seen.health == Health.ABSENT:
        return Observation(Health.STARTING, "It was missing and is being restarted.")
    return seen


def _stop_orphans(engine: ProcessEngine) -> None:
    """Stop revisions that no row requires: left by a killed worker, or by a deleted row."""
    running = engine.running()  # before reading rows, so that a revision started in between isn't seen as an orphan
    rolling_out = Q(state="starting", operations__state__in=OPEN)
    rows = Revision.objects.filter(Q(state__in=["active", "draining"]) | rolling_out, service__deleted_at=None)
    required = {(str(service_id), number) for service_id, number in rows.values_list("service_id", "number")}
    abandoned = Revision.objects.filter(state="starting").exclude(operations__state__in=OPEN)
    abandoned.update(state="failed", detail="Its rollout was abandoned.", stopped_at=timezone.now())
    for service in Service.objects.filter(deleted_at__isnull=False, revisions__state__in=LIVE_STATES).distinct():
        with _continue_with_others(f"take down service {service.pk}"):
            take_down(service)
    for service_id, number in running - required:
        log.warning("Stopping revision %s of service %s, which no row requires.", number, service_id)
        with _continue_with_others(f"stop revision {number} of service {service_id}"):
            engine.remove(service_id, number)

"""Looking after what runs, every two seconds: health, what was given up or is missing, what belongs to nobody."""

import logging
from concurrent.futures import ThreadPoolExecutor

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

MAX_PARALLEL_PROBES = 8  # at a time: a service that hangs does not hold up the look at the others


def watch() -> None:
    """Bring the engine and the routes to what the database says, and the health of services into the database."""
    with locked(settings.RUN_DIR / "watch.lock", wait=False) as alone:
        if not alone:
            return
        sandbox.unavailable_reason(settings.DATA_DIR)  # tried here, so that the first roll-out does not wait for it
        try:
            _look(process_engine())
        except EngineUnavailableError as error:
            log.warning("Services could not be looked after: %s", error)


def _look(engine: ProcessEngine) -> None:
    route.remove_temporary_files()
    _look_at_active(engine)  # first: it mends the route of a switch whose worker was killed before it wrote that
    for service in Service.objects.filter(revisions__state="draining").distinct():
        stop_drained(engine, service)
    _stop_orphans(engine)


def _look_at_active(engine: ProcessEngine) -> None:
    active = list(Revision.objects.select_related("service", "image").filter(state="active", service__deleted_at=None))
    if not active:
        return
    with ThreadPoolExecutor(MAX_PARALLEL_PROBES) as pool:
        seen = list(pool.map(lambda one: engine.observe(str(one.service_id), one.number), active))
    for revision, observation in zip(active, seen, strict=True):
        try:
            _look_after(engine, revision, observation)
        except OSError:  # the others are looked after all the same
            log.exception("Revision %s could not be looked after.", revision)


def _look_after(engine: ProcessEngine, revision: Revision, seen: Observation) -> None:
    if seen.health in {Health.CRASHED, Health.ABSENT}:
        if not _still_active(revision):  # replaced or deleted since the rows were read
            return
        seen = _revive(engine, revision, seen)
    service = revision.service
    if (service.health, service.health_detail) != (seen.health, seen.detail):
        Service.objects.filter(pk=service.pk, deleted_at=None).update(health=seen.health, health_detail=seen.detail)
    _note_address(engine, revision)
    if not route.is_current(revision):
        _mend_route(revision)


def _mend_route(revision: Revision) -> None:
    """Write the route that should stand. Gateways sent requests to the one before until now: its draining begins."""
    route.publish_route(revision.service)
    if revision.service.revisions.filter(state="draining").exists():
        Revision.objects.filter(pk=revision.pk, state="active").update(activated_at=timezone.now())


def _note_address(engine: ProcessEngine, revision: Revision) -> None:
    """Where a revision is found follows the data folder, which may have been moved, or restored elsewhere."""
    address = engine.address(str(revision.service_id), revision.number)
    if address != revision.address:
        Revision.objects.filter(pk=revision.pk).update(address=address)
        revision.address = address


def _still_active(revision: Revision) -> bool:
    return Revision.objects.filter(pk=revision.pk, state="active", service__deleted_at=None).exists()


def _revive(engine: ProcessEngine, revision: Revision, seen: Observation) -> Observation:
    """Start what is missing or was given up; what waits for its next start anyway stays as it is."""
    try:
        engine.apply(revision_spec(revision))
    except EngineRefusedError as refusal:
        return Observation(Health.CRASHED, str(refusal))
    if seen.health == Health.ABSENT:
        return Observation(Health.STARTING, "It was missing and is started again.")
    return seen


def _stop_orphans(engine: ProcessEngine) -> None:
    """Stop what no row asks for: left behind by a worker that was killed, or by a row that is gone."""
    running = engine.running()  # before the rows: what is started meanwhile must not look like an orphan
    rolling_out = Q(state="starting", operations__state__in=OPEN)
    rows = Revision.objects.filter(Q(state__in=["active", "draining"]) | rolling_out, service__deleted_at=None)
    asked_for = {(str(service_id), number) for service_id, number in rows.values_list("service_id", "number")}
    abandoned = Revision.objects.filter(state="starting").exclude(operations__state__in=OPEN)
    abandoned.update(state="failed", detail="Its roll-out was given up.", stopped_at=timezone.now())
    for service in Service.objects.filter(deleted_at__isnull=False, revisions__state__in=LIVE_STATES).distinct():
        take_down(service)
    for service_id, number in running - asked_for:
        log.warning("Revision %s of service %s belongs to nobody and is stopped.", number, service_id)
        engine.remove(service_id, number)

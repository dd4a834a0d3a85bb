"""The bundled MMS: its supervisor, the services it runs, and what it builds images with."""

import importlib.util
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from dashboard.ops.doctor.advice import look, restart, start
from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.finding import Asked, Finding, failed, many, ok, span, warning
from mms.engines.base import EngineUnavailableError, Health
from mms.engines.process.supervisor import ALIVE, State, Supervisor
from mms.models import Operation, Service
from mms.models import State as OperationState
from mms.operations import leases
from mms.services.engine import denial_reason, exposure, holes, unsandboxed_reason

PART = "MMS"
YOUNG = 60  # seconds; a program of the site that is so much younger than the others was started anew
UNTAKEN = timedelta(seconds=60)
NAMES = 5  # shown
REPAIR = (
    "Until this is fixed, deploy only what you would run yourself. Run the site as a user other than root, update "
    "bubblewrap and the kernel, restart, and run `manage.py doctor` again."
)


def check(asked: Asked) -> Iterator[Finding]:
    if "mms" not in settings.SERVE:
        return
    yield from _supervisor(asked)
    yield _sandbox()
    yield _builder()
    database.must_exist()
    yield _services(asked)
    yield _operations()


def _supervisor(asked: Asked) -> Iterator[Finding]:
    try:
        programs = Supervisor(Path(settings.SUPERVISOR_SOCKET)).programs()
    except EngineUnavailableError:
        says = f"It does not answer at {settings.SUPERVISOR_SOCKET}."
        yield failed("supervisor", says, f"{restart('web')} {look('supervisord')}")
        return
    own = [info for info in programs if info["group"] in {"site", "redis"}]
    broken = [info for info in programs if info["state"] not in ALIVE | {State.STOPPING}]
    yield from (_broken(info, asked) for info in broken)
    oldest = max((info["now"] - info["start"] for info in own if info not in broken), default=0)
    for info in own:
        if info not in broken and info["now"] - info["start"] < YOUNG < oldest - YOUNG:
            says = f"It was started anew {span(info['now'] - info['start'])} ago; the site runs for {span(oldest)}."
            yield warning(_part(info["name"]), says, f"If that happens again and again, look why. {look(info['name'])}")
    if not broken:
        yield ok("supervisor", f"It runs {many(len(programs), 'program')}, the oldest for {span(oldest)}.")


def _broken(info: dict[str, Any], asked: Asked) -> Finding:
    own = info["group"] in {"site", "redis"}
    name, state = info["name"] if own else "services", State(info["state"])
    which = "" if own or asked.accounts is not None else f" ({info['name']})"
    if state == State.BACKOFF:
        says = f"It ends soon after every start{which} and is started again and again."
    elif state == State.FATAL:
        says = f"It ended soon after every start{which}, and the supervisor has given it up."
    else:
        says = f"It is not running{which}: the supervisor has it as {state.name.lower()}."
    if not own:
        return failed(name, says, "Its service’s page shows its log.")
    mend = restart(name) if state == State.BACKOFF else start(name)
    return failed(_part(name), says, f"{look(name)} {mend}")


def _part(name: str) -> str:
    return "Redis" if name == "redis" else name


def _sandbox() -> Finding:
    if found := holes(retry=True):
        says = f"Tried as a driver would: a driver can {', '.join(found)}."
        return failed("sandbox", says, REPAIR)
    if reason := denial_reason():
        says, _, advice = reason.rpartition(" Install ")
        return failed("sandbox", says, f"Install {advice}")
    if not (danger := unsandboxed_reason()):
        return ok("sandbox", exposure())
    says, _, advice = danger.rpartition(" Deploy only ")
    return warning("sandbox", says, f"Deploy only {advice}")


def _builder() -> Finding:
    missing = [name for name in ("uv", "mms.images.build") if importlib.util.find_spec(name) is None]
    if missing or not _uv():
        again = (
            f"pipx reinstall {settings.PROJECT_NAME}"
            if settings.IS_INSTALLED
            else "pip install -r requirements/base.txt"
        )
        advice = f"Install the requirements anew: `{again}`."
        return failed(
            "builder", f"Images cannot be built: {', '.join(missing) or 'the program uv'} is missing.", advice
        )
    base = settings.MMS_BASE_IMAGE
    onto = f"on top of {base}" if base else "without a base image, so they run on this machine only"
    return ok("builder", f"uv and the builder are there; images are made {onto} (MMS_BASE_IMAGE).")


def _uv() -> bool:
    import uv

    try:
        return Path(uv.find_uv_bin()).exists()
    except FileNotFoundError:
        return False


def _services(asked: Asked) -> Finding:
    services = Service.objects.filter(deleted_at=None, revisions__state="active").distinct()
    ill = list(services.exclude(health__in=[Health.HEALTHY, Health.STARTING, ""]).values_list("name", "health")[:100])
    if not ill:
        count = services.count()
        return ok("services", f"{many(count, 'service')}, all healthy or starting." if count else "None is deployed.")
    names = ", ".join(f"{name} is {health}" for name, health in ill[:NAMES])
    which = f" {names}{' …' if len(ill) > NAMES else ''}." if asked.accounts is None else ""
    says = f"{len(ill)} of {many(services.count(), 'service')} {'is' if len(ill) == 1 else 'are'} not healthy.{which}"
    return failed("services", says, "The log on the page of each says why; update it, or delete it.")


def _operations() -> Finding:
    waiting = Operation.objects.filter(
        state=OperationState.NOT_STARTED, created_at__lt=timezone.now() - UNTAKEN, claimed_until=None
    ).count()
    if waiting and leases.free_build_slots():
        says = (
            f"The MMS accepted {many(waiting, 'operation')} more than {span(UNTAKEN.seconds)} ago that nobody works on."
        )
        return failed(PART, says, f"Nothing is lost; they go on once its worker does. {restart('mms-worker')}")
    return ok(PART, f"{many(waiting, 'operation')} waiting for a turn.")

"""The bundled MMS: its supervisor, its services, the sandbox and the image builder."""

import importlib.util
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from dashboard.ops.doctor.advice import log_hint, restart, start
from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.finding import CheckContext, Finding, duration, failed, ok, pluralize, warning
from dashboard.ops.supervisor.programs import is_own_group
from mms.engines.base import EngineUnavailableError, Health
from mms.engines.process.supervisor import ALIVE, State, Supervisor
from mms.models import Operation, Service
from mms.models import State as OperationState
from mms.operations import leases
from mms.services.engine import denial_reason, exposure, holes, unsandboxed_reason

PART = "MMS"
RESTARTED_SECONDS = 60  # a program younger than this was restarted if the others are much older
UNTAKEN_AFTER = timedelta(seconds=60)
MAX_NAMES = 5  # unhealthy services named in a message
SANDBOX_ADVICE = (
    "Until this is fixed, deploy only code that you trust. Run the site as a user other than root, update bubblewrap "
    "and the kernel, restart, and run `manage.py doctor` again."
)


def check(context: CheckContext) -> Iterator[Finding]:
    """Check the bundled MMS, if it runs here."""
    if "mms" not in settings.SERVE:
        return
    yield from _check_supervisor(context)
    yield _check_sandbox()
    yield _check_builder()
    database.require_database()
    yield _check_services(context)
    yield _check_operations()


def _check_supervisor(context: CheckContext) -> Iterator[Finding]:
    try:
        programs = Supervisor(Path(settings.SUPERVISOR_SOCKET)).programs()
    except EngineUnavailableError:
        message = f"No response at {settings.SUPERVISOR_SOCKET}."
        yield failed("supervisor", message, f"{restart('web')} {log_hint('supervisord')}")
        return
    own = [info for info in programs if is_own_group(info["group"])]
    broken = [info for info in programs if info["state"] not in ALIVE | {State.STOPPING}]
    yield from (_broken_program(info, context) for info in broken)
    oldest = max((info["now"] - info["start"] for info in own if info not in broken), default=0)
    for info in own:
        age = info["now"] - info["start"]
        if info not in broken and age < RESTARTED_SECONDS < oldest - RESTARTED_SECONDS:
            message = f"Restarted {duration(age)} ago, while the site has been running for {duration(oldest)}."
            yield warning(_part_name(info["name"]), message, f"If it restarts repeatedly: {log_hint(info['name'])}")
    if not broken:
        yield ok("supervisor", f"Runs {pluralize(len(programs), 'program')}, the oldest for {duration(oldest)}.")


def _broken_program(info: dict[str, Any], context: CheckContext) -> Finding:
    is_own = is_own_group(info["group"])
    name, state = info["name"] if is_own else "services", State(info["state"])
    which = "" if is_own or context.accounts is not None else f" ({info['name']})"
    if state == State.BACKOFF:
        message = f"Exits soon after every start{which}. The supervisor keeps restarting it."
    elif state == State.FATAL:
        message = f"Exited soon after every start{which}. The supervisor has given up."
    else:
        message = f"Not running{which}: its state in the supervisor is {state.name.lower()}."
    if not is_own:
        return failed(name, message, "The page of the service shows its log.")
    fix = restart(name) if state == State.BACKOFF else start(name)
    return failed(_part_name(name), message, f"{log_hint(name)} {fix}")


def _part_name(program: str) -> str:
    return "Redis" if program == "redis" else program


def _check_sandbox() -> Finding:
    if possible_actions := holes(retry=True):
        message = f"A test run as a service showed that a driver script can {', '.join(possible_actions)}."
        return failed("sandbox", message, SANDBOX_ADVICE)
    if reason := denial_reason():
        message, _, advice = reason.rpartition(" Install ")
        return failed("sandbox", message, f"Install {advice}")
    if not (risk := unsandboxed_reason()):
        return ok("sandbox", exposure())
    message, _, advice = risk.rpartition(" Deploy only ")
    return warning("sandbox", message, f"Deploy only {advice}")


def _check_builder() -> Finding:
    missing = [name for name in ("uv", "mms.images.build") if importlib.util.find_spec(name) is None]
    if missing or not _has_uv_binary():
        command = (
            f"pipx reinstall {settings.PROJECT_NAME}"
            if settings.IS_INSTALLED
            else "pip install -r requirements/base.txt"
        )
        message = f"Images can't be built: {', '.join(missing) or 'the program uv'} is missing."
        return failed("builder", message, f"Install the requirements again: `{command}`.")
    base = settings.MMS_BASE_IMAGE
    onto = f"on {base}" if base else "without a base image, so they run on this machine only"
    return ok("builder", f"uv and the builder are installed. Images are built {onto} (MMS_BASE_IMAGE).")


def _has_uv_binary() -> bool:
    import uv

    try:
        return Path(uv.find_uv_bin()).exists()
    except FileNotFoundError:
        return False


def _check_services(context: CheckContext) -> Finding:
    services = Service.objects.filter(deleted_at=None, revisions__state="active").distinct()
    healthy = [Health.HEALTHY, Health.STARTING, ""]
    unhealthy = list(services.exclude(health__in=healthy).values_list("name", "health")[:100])
    if not unhealthy:
        count = services.count()
        return ok("services", f"{pluralize(count, 'service')}, all healthy or starting." if count else "None deployed.")
    names = ", ".join(f"{name} is {health}" for name, health in unhealthy[:MAX_NAMES])
    which = f" {names}{' …' if len(unhealthy) > MAX_NAMES else ''}." if context.accounts is None else ""
    total = pluralize(services.count(), "service")
    message = f"{len(unhealthy)} of {total} {'is' if len(unhealthy) == 1 else 'are'} not healthy.{which}"
    return failed("services", message, "The log on each service's page shows why. Update or delete the service.")


def _check_operations() -> Finding:
    waiting = Operation.objects.filter(
        state=OperationState.NOT_STARTED, created_at__lt=timezone.now() - UNTAKEN_AFTER, claimed_until=None
    ).count()
    if waiting and leases.free_build_slots():
        message = (
            f"{pluralize(waiting, 'operation')} accepted more than {duration(UNTAKEN_AFTER.seconds)} ago that no "
            "worker has started."
        )
        advice = f"Nothing is lost; they start when the worker works again. {restart('mms-worker')}"
        return failed(PART, message, advice)
    return ok(PART, f"{pluralize(waiting, 'operation')} waiting for a worker.")

"""Selection of the engine for a service, and conversion of rows to what engines take."""

import re
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from mms.engines import base, kubeconfig
from mms.engines.process import sandbox
from mms.engines.process.engine import ProcessEngine
from mms.engines.process.guard import Resources
from mms.models import Revision, Service

PROCESS_SERVER = "process://local"


@lru_cache
def process_engine() -> ProcessEngine:
    """Return the engine that runs services on this machine."""
    return ProcessEngine(
        settings.MMS_DIR,
        settings.RUN_DIR,
        Path(settings.SUPERVISOR_SOCKET),
        hidden=settings.DATA_DIR,
        network=settings.MMS_SCORING_NETWORK,
        resources=Resources(
            settings.MMS_SCORING_MEMORY,
            settings.MMS_SCORING_TASKS,
            settings.MMS_SCORING_TMP,
            settings.MMS_SCORING_CPUS,
        ),
    )


def limits() -> dict[str, int]:
    """Return what each service may use: bytes of memory and of temporary files, tasks and CPUs; 0 is no limit."""
    resources = process_engine().resources
    return {
        "memory_bytes": resources.memory,
        "temporary_bytes": resources.temporary,
        "tasks": resources.tasks,
        "cpus": resources.cpu_count(settings.MMS_SCORING_PROCESSES),
    }


def engine_for(kube_config: str) -> ProcessEngine:
    """Return the engine for the server in `kube_config`. Raises base.EngineRefusedError if there is none here."""
    server = kubeconfig.find_server(kube_config)
    if server != PROCESS_SERVER:
        raise base.EngineRefusedError(
            f"This server runs services only on its own machine (a kubeConfig with the server {PROCESS_SERVER}); "
            f"it cannot deploy to {redact_url(server)} yet."
        )
    return process_engine()


def redact_url(server: str) -> str:
    """Return the URL for use in an error: without user, password and query."""
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", server, maxsplit=1)[0])[:200]


def exposure() -> str:
    """Describe what a service's code can access on this machine, and its limits."""
    return f"{sandbox.exposure(settings.DATA_DIR, settings.MMS_SCORING_NETWORK)} {process_engine().resources}"


def holes(retry: bool = False) -> list[str]:
    """Return what drivers can do but must not, see `sandbox.holes`. With `retry`, run the trial again."""
    if retry:
        sandbox.trial.cache_clear()
    return sandbox.holes(settings.DATA_DIR)


def denial_reason() -> str:
    """Return why no service can run on this machine, "" if they can."""
    return sandbox.denial_reason(settings.DATA_DIR)


def unsandboxed_reason() -> str:
    """Return the result of `exposure` if services run without a sandbox, "" if they have one."""
    return exposure() if sandbox.unavailable_reason(settings.DATA_DIR) else ""


def read_logs(service: Service, revision_number: int, after: int, limit: int) -> tuple[str, int]:
    """Return log text from byte `after` (from the end if negative), and the position for the next call."""
    return process_engine().logs(str(service.pk), revision_number, after, limit)


def revision_spec(revision: Revision) -> base.Revision:
    """Return the revision as engines take it."""
    limits = base.Limits(
        processes=settings.MMS_SCORING_PROCESSES,
        init_timeout=settings.MMS_INIT_TIMEOUT,
        run_timeout=settings.MMS_RUN_TIMEOUT,
        body_max_bytes=settings.MMS_BODY_MAX_BYTES,
        queue_length=settings.MMS_QUEUE_LENGTH,
    )
    return base.Revision(str(revision.service_id), revision.number, revision.image.digest, limits)

"""Which engine runs a service, and a revision in the engine's words."""

import re
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from mms.engines import base, kubeconfig
from mms.engines.process import sandbox
from mms.engines.process.engine import ProcessEngine
from mms.models import Revision, Service

PROCESS_SERVER = "process://local"


@lru_cache
def process_engine() -> ProcessEngine:
    """The engine of this machine."""
    return ProcessEngine(
        settings.MMS_DIR,
        settings.RUN_DIR,
        Path(settings.SUPERVISOR_SOCKET),
        hidden=settings.DATA_DIR,
        network=settings.MMS_SCORING_NETWORK,
        memory=settings.MMS_SCORING_MEMORY,
    )


def engine_for(kube_config: str) -> ProcessEngine:
    """Return the engine for the server in `kube_config`. Raises base.EngineRefusedError if there is none here."""
    server = kubeconfig.server(kube_config)
    if server != PROCESS_SERVER:
        raise base.EngineRefusedError(
            f"This server runs services on its own machine only (a kubeConfig whose server is {PROCESS_SERVER}); "
            f"it cannot deploy to {shown(server)} yet."
        )
    return process_engine()


def shown(server: str) -> str:
    """The server as an error may name it: without user, password and query."""
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", server, maxsplit=1)[0])[:200]


def exposure() -> str:
    """What the code of a service could reach on this machine, in plain words."""
    return sandbox.exposure(settings.DATA_DIR, settings.MMS_SCORING_NETWORK)


def holes(retry: bool = False) -> list[str]:
    """What a driver can do although it must not: see `sandbox.holes`. `retry` repeats the trial."""
    if retry:
        sandbox.trial.cache_clear()
    return sandbox.holes(settings.DATA_DIR)


def denial_reason() -> str:
    """Why no service can run on this machine; "" if they can."""
    return sandbox.denial_reason(settings.DATA_DIR)


def unsandboxed_reason() -> str:
    """What `exposure` says where services run without a sandbox; "" where they have one."""
    return exposure() if sandbox.unavailable_reason(settings.DATA_DIR) else ""


def read_logs(service: Service, revision_number: int, after: int, limit: int) -> tuple[str, int]:
    """Log text of a revision from byte `after` (from the end if negative), and the position to ask from next."""
    return process_engine().logs(str(service.pk), revision_number, after, limit)


def revision_spec(revision: Revision) -> base.Revision:
    """The revision as engines know it."""
    limits = base.Limits(
        processes=settings.MMS_SCORING_PROCESSES,
        init_timeout=settings.MMS_INIT_TIMEOUT,
        run_timeout=settings.MMS_RUN_TIMEOUT,
        body_max_bytes=settings.MMS_BODY_MAX_BYTES,
        queue_length=settings.MMS_QUEUE_LENGTH,
    )
    return base.Revision(str(revision.service_id), revision.number, revision.image.digest, limits)

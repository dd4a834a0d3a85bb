"""The program `reload` of `make dev`: restarts the workers when Python files change, and keeps sample data fresh.

The web server watches the same files itself.
"""

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import django
from django.conf import settings
from django.db import Error

from dashboard.ops.supervisor import programs
from mms.engines.base import EngineUnavailableError
from mms.engines.process.supervisor import GIVEN_UP, Supervisor

log = logging.getLogger(__name__)
NOT_RESTARTED = {"web", "redis", "reload"}
STOP_SECONDS = 15.0  # longer than supervisord waits before it kills a worker
FRESH_SECONDS = 20  # between updates of the sample data; badges become stale later (badges.OUTDATED)


def main() -> None:
    """Watch the code and refresh the sample data until the supervisor stops this program."""
    from watchfiles import PythonFilter, watch

    from dashboard.ops.seed import live

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # logs only the number of changed files
    names = [program.qualified_name for program in programs.programs() if program.name not in NOT_RESTARTED]
    supervisor = Supervisor(Path(settings.SUPERVISOR_SOCKET))
    directories = programs.code_directories()
    for changes in watch(
        *directories, watch_filter=PythonFilter(), yield_on_timeout=True, rust_timeout=FRESH_SECONDS * 1000
    ):
        try:
            if changes:
                _log_changes(Path(path) for _, path in changes)
                restart(supervisor, names)
            live.keep_fresh()
        except (EngineUnavailableError, Error) as error:
            log.warning("%s", error)


def restart(supervisor: Supervisor, names: list[str]) -> None:
    """Stop these programs, and start each as soon as it has stopped."""
    for name in names:
        supervisor.stop(name)
    until = time.monotonic() + STOP_SECONDS
    for name in names:
        while supervisor.state(name) not in {*GIVEN_UP, None} and time.monotonic() < until:
            time.sleep(0.1)
        supervisor.start(name)


def _log_changes(paths: Iterable[Path]) -> None:
    changed = ", ".join(sorted({str(path.relative_to(settings.BASE_DIR)) for path in paths}))
    log.warning("%s changed: restarting the workers", changed)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    django.setup()
    main()

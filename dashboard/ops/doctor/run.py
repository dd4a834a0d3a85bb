"""Parallel run of all checks, each in a thread with a time limit, so that a hanging check doesn't delay the others."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

import redis as redis_client
from django.db import Error, connections

from dashboard.ops.doctor.checks import (
    addresses,
    database,
    disk,
    engine,
    operations,
    programs,
    redis,
    servers,
    versions,
)
from dashboard.ops.doctor.finding import CheckContext, Finding, unknown

Check = Callable[[CheckContext], Iterable[Finding]]
CHECKS: dict[str, Check] = {
    "database": database.check,
    "Redis": redis.check,
    "programs": programs.check,
    "accounts": servers.check,
    "operations": operations.check,
    "engine": engine.check,
    "addresses": addresses.check,
    "disk": disk.check,
    "versions": versions.check,
}
QUICK_SECONDS, THOROUGH_SECONDS = 4.0, 30.0  # time limits for all checks together
MAX_THREADS = 60  # threads in this process, including those of hanging checks

log = logging.getLogger(__name__)
_free_threads = threading.BoundedSemaphore(MAX_THREADS)


def run_checks(context: CheckContext) -> list[Finding]:
    """Run every check and return the findings in the order of CHECKS.

    Never raises. Returns within QUICK_SECONDS, or THOROUGH_SECONDS if the context is thorough.
    """
    limit = THOROUGH_SECONDS if context.thorough else QUICK_SECONDS
    until = time.monotonic() + limit
    runs = [CheckRun(part, check, context) for part, check in CHECKS.items()]
    for run in runs:
        run.join(max(0.0, until - time.monotonic()))
    return [finding for run in runs for finding in run.findings_so_far(limit)]


class CheckRun:
    """One check in a thread. Its findings so far remain available if it then hangs."""

    def __init__(self, part: str, check: Check, context: CheckContext) -> None:
        self.part, self.check, self.context = part, check, context
        self.findings: list[Finding] = []
        self.thread = threading.Thread(target=self._run, name=f"check {part}", daemon=True)
        if _free_threads.acquire(blocking=False):
            self.thread.start()
        else:
            message = "Not checked: too many earlier checks of this process are still hanging."
            self.findings.append(unknown(self.part, message, "Fix the other problems first, then check again."))

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the check."""
        if self.thread.ident:
            self.thread.join(seconds)

    def findings_so_far(self, limit: float) -> list[Finding]:
        """Return the findings. One is added if the check has not finished within `limit` seconds."""
        findings = list(self.findings)
        if self.thread.is_alive():
            message = f"Not complete after {limit:.0f} s." if findings else f"No result after {limit:.0f} s."
            findings.append(unknown(self.part, message, "It waits for something that hangs. See the other problems."))
        return findings

    def _run(self) -> None:
        try:
            for finding in self.check(self.context):
                self.findings.append(finding)
        except Error:
            self.findings.append(unknown(self.part, 'Unknown, because the database can\'t be read. See "database".'))
        except redis_client.RedisError:
            self.findings.append(unknown(self.part, 'Unknown, because Redis isn\'t responding. See "Redis".'))
        except Exception as error:
            log.exception("The check of %s failed.", self.part)
            message = f"The check failed: {type(error).__name__}: {str(error)[:200]}"
            self.findings.append(unknown(self.part, message, "This is a bug in the check. The log has details."))
        finally:
            connections.close_all()
            _free_threads.release()

"""All checks beside each other, each in a thread of its own with a limit: what hangs holds up nobody else's answer."""

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
from dashboard.ops.doctor.finding import Asked, Finding, unknown

Check = Callable[[Asked], Iterable[Finding]]
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
QUICK, THOROUGH = 4.0, 30.0  # seconds for all of it
MOST_THREADS = 60  # of this process that may hang in a check at a time

log = logging.getLogger(__name__)
_room = threading.BoundedSemaphore(MOST_THREADS)


def examine(asked: Asked) -> list[Finding]:
    """What every check finds, in the order of CHECKS. Never raises, and returns within QUICK or THOROUGH seconds."""
    limit = THOROUGH if asked.thorough else QUICK
    until = time.monotonic() + limit
    running = [Running(part, check, asked) for part, check in CHECKS.items()]
    for one in running:
        one.join(max(0.0, until - time.monotonic()))
    return [finding for one in running for finding in one.so_far(limit)]


class Running:
    """One check at work. What it has found is kept, should it hang after that."""

    def __init__(self, part: str, check: Check, asked: Asked) -> None:
        self.part, self.check, self.asked = part, check, asked
        self.found: list[Finding] = []
        self.thread = threading.Thread(target=self._run, name=f"check {part}", daemon=True)
        if _room.acquire(blocking=False):
            self.thread.start()
        else:
            self.found.append(unknown(part, "It was not checked: too many checks of this process hang already."))

    def join(self, seconds: float) -> None:
        if self.thread.ident:
            self.thread.join(seconds)

    def so_far(self, limit: float) -> list[Finding]:
        found = list(self.found)
        if self.thread.is_alive():
            says = f"There was no answer within {limit:.0f} s." if not found else f"More did not come in {limit:.0f} s."
            found.append(unknown(self.part, says, "Something it asks hangs: see what else is not in order."))
        return found

    def _run(self) -> None:
        try:
            for finding in self.check(self.asked):
                self.found.append(finding)
        except Error:
            self.found.append(unknown(self.part, "Not known, for the database cannot be read: see “database”."))
        except redis_client.RedisError:
            self.found.append(unknown(self.part, "Not known, for Redis cannot be asked: see “Redis”."))
        except Exception as error:
            log.exception("The check of %s failed.", self.part)
            says = f"It could not be checked: {type(error).__name__}: {str(error)[:200]}"
            self.found.append(unknown(self.part, says, "This is a fault of the check itself; the log has its details."))
        finally:
            connections.close_all()
            _room.release()

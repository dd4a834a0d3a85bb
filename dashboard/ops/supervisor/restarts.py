"""Restarts of the site's programs, read from the log of the supervisor.

Programs that an operator restarts aren't counted: the supervisor logs those as stopped, not as exited.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

WINDOW_SECONDS = 3600.0
LOOP_SECONDS, LOOP_EXITS = 60.0, 3  # a program that failed this often within this time is in a crash loop
MAX_LOG_BYTES = 256 * 1024  # of the end of the log; a service that crashes in a loop writes to it as well
PROGRAM = r"((?:web|worker|mms-worker|beat|gateway|redis)(?:[_-]\d+)?)"
EXIT = re.compile(rf"^(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ \w+ exited: {PROGRAM} \((.*)\)$", re.MULTILINE)
KILLED = "terminated by SIGKILL"


class Restarts:
    """Exits of the site's programs within the last hour, by program, as Unix times. Services aren't included."""

    def __init__(self, log: Path | None = None, now: float | None = None) -> None:
        self.now = time.time() if now is None else now
        self.exits: dict[str, list[float]] = {}
        self.failures: dict[str, list[float]] = {}  # exits of which the program itself is the cause
        for program, at, reason in _exits(log or settings.LOG_DIR / "supervisord.log"):
            if self.now - at <= WINDOW_SECONDS:
                self.exits.setdefault(program, []).append(at)
                if not reason.startswith(KILLED):
                    self.failures.setdefault(program, []).append(at)

    def counts(self) -> dict[str, int]:
        """Return the number of restarts by program."""
        return {program: len(times) for program, times in sorted(self.exits.items())}

    def in_a_loop(self) -> list[str]:
        """Return the programs that fail repeatedly."""
        return [
            program
            for program, times in sorted(self.failures.items())
            if sum(self.now - at <= LOOP_SECONDS for at in times) >= LOOP_EXITS
        ]


def _exits(log: Path) -> Iterator[tuple[str, float, str]]:
    """Yield program, Unix time and reason of each exit in the log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MAX_LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:  # the programs run without a supervisor, in containers
        return
    for at, program, reason in EXIT.findall(text):
        yield program, time.mktime(time.strptime(at, "%Y-%m-%d %H:%M:%S")), reason

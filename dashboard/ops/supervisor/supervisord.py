"""supervisord, patched to stop when its terminal closes, to leave no orphans, and to survive a full disk.

Run it by path and isolated: `python -I supervisord.py -c FILE`. It imports neither Django nor Celery, to use little
memory for as long as the site runs.

This is the only module that uses private names of supervisor; test_supervisord.py fails if a release changes them.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from supervisor import loggers, options, supervisord
from supervisor.options import ServerOptions

PR_SET_PDEATHSIG = 1
SUPERVISOR_PID = os.getpid()
libc = ctypes.CDLL(None)  # loaded here because nothing may be loaded between fork and exec


class Options(ServerOptions):
    """supervisord's options, with two changes to its signal handling, and without a pause before the first start."""

    def __init__(self) -> None:
        super().__init__()
        poll = self.poller.poll

        def poll_without_waiting(_: float) -> Any:
            """Poll once without waiting: supervisord starts its programs after the first poll, which takes 1 s."""
            self.poller.poll = poll
            return poll(0)

        self.poller.poll = poll_without_waiting

    def setsignals(self) -> None:
        """Stop the site when the terminal closes. By default, supervisord reloads on SIGHUP."""
        super().setsignals()
        signal.signal(signal.SIGHUP, lambda *_: self.signal_receiver.receive(signal.SIGTERM, None))

    def setpgrp(self) -> None:
        """Make the kernel send SIGTERM to the child if supervisord is killed. Runs between fork and exec."""
        super().setpgrp()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # supervisord's handler would only record it, and exec drops that
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != SUPERVISOR_PID:  # supervisord was killed before the call above
            os._exit(1)


def ignore_error(handler: loggers.Handler) -> None:
    """Drop a log line that can't be written.

    By default, supervisord reports the error on stderr. If stderr is a file on the same full disk, that fails too:
    supervisord closes the program's output and then exits, and the site stops.
    """


def tolerate_failed_rollover(roll_over: Callable[..., None]) -> Callable[..., None]:
    """Wrap `RotatingFileHandler.doRollover` to keep the current file if a new one can't be created.

    The next line tries again.
    """

    def attempt(handler: loggers.RotatingFileHandler) -> None:
        try:
            roll_over(handler)
        except (OSError, ValueError):  # ValueError: closed by a previous attempt that failed
            with suppress(OSError):
                handler.stream = open(handler.baseFilename, "ab")  # noqa: SIM115, PTH123 - stays open

    return attempt


def find_included(pattern: str) -> list[str]:
    """Return the files that an include pattern matches. Only the last part of its path is a pattern.

    supervisord puts the folder of its configuration before the pattern, and that may have brackets.
    """
    path = Path(pattern)
    return [str(found) for found in path.parent.glob(path.name)]


def patch() -> None:
    """Apply the patches to supervisor."""
    options.glob = SimpleNamespace(glob=find_included)
    supervisord.ServerOptions = Options  # main() looks it up by this name at every restart
    loggers.Handler.handleError = ignore_error
    loggers.RotatingFileHandler.doRollover = tolerate_failed_rollover(loggers.RotatingFileHandler.doRollover)


if __name__ == "__main__":
    patch()
    supervisord.main()

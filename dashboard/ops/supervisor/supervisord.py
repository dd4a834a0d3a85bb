"""supervisord, made to end with its terminal, to leave no orphan behind, and to outlive a full disk.

Run by path and isolated (`python -I supervisord.py -c FILE`): it imports neither Django nor Celery and stays small,
because it runs as long as the site.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from supervisor import loggers, supervisord
from supervisor.options import ServerOptions

PR_SET_PDEATHSIG = 1
SUPERVISOR = os.getpid()
libc = ctypes.CDLL(None)  # loaded here, for nothing may be loaded between fork and exec


class Options(ServerOptions):
    """supervisord's options, with two differences in how it treats signals."""

    def setsignals(self) -> None:
        """A closed terminal ends the site, as it ends any foreground program; supervisord would restart everything."""
        super().setsignals()
        signal.signal(signal.SIGHUP, lambda *_: self.signal_receiver.receive(signal.SIGTERM, None))

    def setpgrp(self) -> None:
        """Called in every child between fork and exec: it gets SIGTERM should supervisord itself be killed."""
        super().setpgrp()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # supervisord's own would only note it, and exec forget that
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != SUPERVISOR:  # it was killed before the line above
            os._exit(1)


def keep_quiet(handler: loggers.Handler) -> None:
    """A log line that cannot be written is lost. supervisord would say so on stderr, which lies on the same full disk
    where it is a file: it would first close the program's output, and then end, and the site with it."""


def roll_over_if_possible(roll_over: Any) -> Any:
    """The same for a new log file that cannot be begun: the next line tries again."""

    def attempt(handler: loggers.RotatingFileHandler) -> None:
        try:
            roll_over(handler)
        except (OSError, ValueError):  # ValueError: closed by an attempt that failed
            with suppress(OSError):
                handler.stream = open(handler.baseFilename, "ab")  # noqa: SIM115 - as long as the program runs

    return attempt


if __name__ == "__main__":
    supervisord.ServerOptions = Options  # main() makes its options by this name, anew on every restart
    loggers.Handler.handleError = keep_quiet
    loggers.RotatingFileHandler.doRollover = roll_over_if_possible(loggers.RotatingFileHandler.doRollover)
    supervisord.main()

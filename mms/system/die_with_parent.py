"""Run a program that is killed when its parent exits: `python -IS die_with_parent.py PROGRAM ARGUMENT...`.

A killed worker must not leave a build running. The kernel sends SIGKILL when the parent exits (prctl(2), preserved over
exec). This is a separate program because running Python between fork and exec is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def wrap(*command: str) -> list[str]:
    """Return a command that runs `command` and is killed when the calling process exits."""
    return [sys.executable, "-IS", __file__, *command]


def main(command: list[str]) -> None:
    """Replace this process with `command`, which is killed when its parent exits."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent exited before the line above
            os._exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    main(sys.argv[1:])

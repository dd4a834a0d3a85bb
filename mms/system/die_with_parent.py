"""Run a program that is killed when its parent exits: `python -IS die_with_parent.py MEMORY PROGRAM ARGUMENT...`.

A killed worker must not leave a build running. The kernel sends SIGKILL when the parent exits (prctl(2), preserved over
exec). This is a separate program because running Python between fork and exec is unsafe in a process with threads.

MEMORY limits the data of the program and of each process that it starts, in bytes; 0 sets no limit. If memory runs out,
the kernel kills a limited program before the processes of the site.
"""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"  # of 1000; services have more, and the site has 0


def wrap(*command: str, memory: int = 0) -> list[str]:
    """Return a command that runs `command` with at most `memory` bytes, killed when the calling process exits."""
    return [sys.executable, "-IS", __file__, str(memory), *command]


def limit_memory(memory: int) -> None:
    """Limit the data of this process, and of each that it starts, to `memory` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib loads slowly
        file.write(OOM_SCORE)


def kill_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, the process that started it, exits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent exited before the line above
            os._exit(1)


def main(memory: int, command: list[str]) -> None:
    """Replace this process with `command`, which is killed when its parent exits."""
    parent = os.getppid()
    if memory:
        limit_memory(memory)
    kill_with_parent(parent)
    os.execvp(command[0], command)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

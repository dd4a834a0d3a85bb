"""Run a program that dies with the one that started it: `python -IS leash.py PROGRAM ARGUMENT…`.

A killed worker must not leave a build behind. The kernel sends SIGKILL when the parent dies (prctl, kept over exec).
It is a program of its own because running Python between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main(sys.argv[1:])

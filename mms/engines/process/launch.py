"""Become one revision of a service: `python -I -S launch.py PLAN.json`, run by supervisord.

Sets what has to be set from inside the process (limits, signals, terminal) and then replaces itself by the program,
so that nothing of this stays in memory. Standard library only, and little of it: every start pays for the imports.

The plan: `argv`, `environment` (all of it), `directory`, `socket` (of the last run, removed), `starts` (a file that
counts), `limits` (names of RLIMIT_… to numbers), `wrapped` (argv is a sandbox around the program), `user` (uid and gid
that argv will change to, or null) and `passage` (what that user must reach without a sandbox, or null). The rest of it
is for the engine.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import stat
import sys
import termios
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG = 1


def count_start(path: str) -> None:
    """Keep the number of starts under the present supervisor, whose process id stands in front of it."""
    supervisor, starts = os.getppid(), 0
    with suppress(OSError, ValueError), open(path) as file:
        known, count = (int(word) for word in file.read().split())
        starts = count if known == supervisor else 0
    with suppress(OSError), open(path, "w") as file:  # a full disk keeps no service down
        file.write(f"{supervisor} {starts + 1}")


def hand_over(socket: str, uid: int, gid: int) -> None:
    """Give the program's user the folder of its socket and the pipe to its log. Only root can, so it is done here."""
    os.chown(os.path.dirname(socket), uid, gid, follow_symlinks=False)
    for output in (1, 2):
        if stat.S_ISFIFO(os.fstat(output).st_mode):
            os.fchown(output, uid, gid)


def open_passage(top: str, to: list[str], gid: int) -> None:
    """Let the group `gid` pass through, but not list, the folders from `top` down to each path of `to`."""
    for path in to:
        while path != top and path != "/":
            path = os.path.dirname(path)
            mode = os.lstat(path).st_mode
            if not mode & 0o001 and os.lstat(path).st_uid == os.geteuid():
                os.chown(path, -1, gid)
                os.chmod(path, stat.S_IMODE(mode) | 0o010)  # noqa: S103 - to search, for one group


def leave_terminal() -> None:
    """Give up the terminal of `make up`: a driver could push keystrokes into it (TIOCSTI).

    bubblewrap's own answer, --new-session, would also take the program out of the process group that supervisord
    stops, and it would never get its SIGTERM.
    """
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
        os.close(terminal)


def set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))


def set_signals(wrapped: bool) -> None:
    """Die with the supervisor. A sandbox around the program sees to that itself, and must outlive SIGTERM: ignored
    here, the signal reaches the program inside, which sets a handler of its own, and the sandbox ends with it."""
    if wrapped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(plan: dict[str, Any]) -> None:
    count_start(plan["starts"])
    with suppress(FileNotFoundError):
        os.unlink(plan["socket"])
    if plan.get("passage"):
        open_passage(plan["passage"]["top"], plan["passage"]["to"], plan["user"][1])
    if plan.get("user"):
        hand_over(plan["socket"], *plan["user"])
    leave_terminal()
    set_limits(plan["limits"])
    set_signals(plan["wrapped"])
    os.chdir(plan["directory"])
    os.execve(plan["argv"][0], plan["argv"], plan["environment"])  # noqa: S606


if __name__ == "__main__":
    with open(sys.argv[1]) as _file:
        _plan = json.load(_file)
    main(_plan)

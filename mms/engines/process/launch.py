"""Start one revision of a service: `python -I -S launch.py PLAN.json`, run by supervisord.

Sets what has to be set from inside the process (limits, signals, terminal) and then replaces itself with the program,
so that none of this stays in memory. Uses few modules of the standard library, because imports delay each start.

The plan: `argv`, `environment` (complete), `directory`, `socket` (its path; the program gets the socket itself as
descriptor `listener`), `starts` (a file with the number of starts), `cpus` (how many it may use), `limits` (numbers by
name of RLIMIT_*), `wrapped` (argv is a sandbox around the program), `user` (uid and gid that argv will change to, or
null) and `passage` (paths that this user must reach without a sandbox, or null). The engine uses the other items.
"""

import _socket
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
LISTENER = 3  # the first descriptor that isn't standard input or output
BACKLOG = 1024


def count_start(path: str) -> None:
    """Store the supervisor's process ID, the number of starts under it and the ID of this process."""
    supervisor, starts = os.getppid(), 0
    with suppress(OSError, ValueError), open(path) as file:
        stored, count = (int(word) for word in file.read().split()[:2])
        starts = count if stored == supervisor else 0
    with suppress(OSError), open(path, "w") as file:  # a full disk must not stop a service from starting
        file.write(f"{supervisor} {starts + 1} {os.getpid()}")


def listen(path: str, number: int) -> None:
    """Create the program's socket at `path` as descriptor `number`, and record which file it is.

    The program can accept connections, but it has no access to the folder, so it can't replace the socket.
    `mms.system.service_sockets` compares it with the record.
    """
    folder, name = os.path.split(path)
    os.chdir(folder)  # the name that the program can read from its socket then has no folder
    new = f"{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(new)
    finally:
        os.umask(mask)
    listening.listen(BACKLOG)
    made = os.lstat(new)
    with suppress(FileNotFoundError):
        os.unlink(f"{name}.id.new")
    # A short link is part of its directory entry, so a full disk doesn't stop a service from starting.
    os.symlink(f"{made.st_dev} {made.st_ino} {made.st_mtime_ns}", f"{name}.id.new")
    os.rename(f"{name}.id.new", f"{name}.id")
    os.rename(new, name)
    descriptor = listening.detach()
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.set_inheritable(number, True)


def hand_over(uid: int, gid: int) -> None:
    """Make the program's user the owner of the pipe to its log, which only root can."""
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
                os.chmod(path, stat.S_IMODE(mode) | 0o010)  # noqa: S103 - search permission for one group


def start_session() -> None:
    """Start a new session, in the process group that supervisord stops.

    The kernel shares CPU time equally between sessions (autogroup, see sched(7)), however many threads are busy in one.
    The program also loses its terminal: otherwise a driver could insert keystrokes into that of `make up` (TIOCSTI).

    The leader of a process group can't start a session, so this process joins its parent's group before. bubblewrap's
    option --new-session would start one outside the group, so the program would never receive SIGTERM.
    """
    with suppress(OSError):
        os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()
        return
    with suppress(OSError):  # the parent is in another session
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
        os.close(terminal)


def set_limits(limits: dict[str, int]) -> None:
    """Set resource limits, but none above the current hard limit."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def set_priority(cpus: int) -> None:
    """Let the kernel kill this process first if memory runs out, and use only the last `cpus` CPUs.

    All services share these, so the others remain for the site. `confine.py` prevents the program from changing it.
    """
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if cpus and sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])


def set_signals(wrapped: bool) -> None:
    """End this process when the supervisor ends. A sandbox has an option for that.

    A sandbox must ignore SIGTERM: the program inside has its own handler, and the sandbox ends when the program does.
    """
    if wrapped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(plan: dict[str, Any]) -> None:
    """Set up the process and execute the plan's program. Doesn't return."""
    count_start(plan["starts"])
    if "listener" in plan:
        listen(plan["socket"], plan["listener"])
    else:  # created by an earlier release that is still running: the program creates its own socket
        with suppress(FileNotFoundError):
            os.unlink(plan["socket"])
    if plan.get("passage"):
        open_passage(plan["passage"]["top"], plan["passage"]["to"], plan["user"][1])
    if plan.get("user"):
        hand_over(*plan["user"])
    start_session()
    set_limits(plan["limits"])
    set_priority(plan.get("cpus", 0))
    set_signals(plan["wrapped"])
    os.chdir(plan["directory"])
    os.execve(plan["argv"][0], plan["argv"], plan["environment"])  # noqa: S606


if __name__ == "__main__":
    with open(sys.argv[1]) as _file:
        _plan = json.load(_file)
    main(_plan)

"""Attempt actions that a driver must not be able to perform, and print the results as JSON.

Runs where a driver runs: a Python inside the sandbox reads this file on stdin (`python -I -S - OPTIONS`). OPTIONS is a
JSON object: `folder` (of the site), `socket` (the service's, outside), and the limits `memory` and `temporary` (bytes)
and `tasks`. Standard library only. Leaves no changes: kernel settings are overwritten with their current values, and
created files are deleted.
"""

import ctypes
import json
import mmap
import os
import sys
from contextlib import suppress
from typing import Any

# Settings that accept their current value.
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/file-max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/swappiness",
    "/proc/irq/default_smp_affinity",
)
# Opened for writing but never written, because a write would have side effects.
SWITCHES = ("/proc/sysrq-trigger", "/proc/mtrr", "/proc/kcore", "/proc/sys/vm/drop_caches")
KERNEL_SECRETS = ("/proc/kcore", "/proc/keys", "/proc/timer_list")  # not needed by any user program
OUTSIDE = ("/", "/app", "/bin", "/boot", "/etc", "/lib", "/opt", "/root", "/sys", "/usr", "/usr/bin", "/var")
PRIVATE = ("/tmp", "/dev/shm")  # noqa: S108 - writable by design, with a limit on their size
CLONE_NEWUSER = 0x10000000
MOUNT_BIND = 4096


def can_write(path: str) -> bool:
    """Return True if the current value of the setting `path` can be written to it."""
    try:
        with open(path, "rb") as file:
            value = file.read(4096)
        with open(path, "r+b", buffering=0) as file:
            return file.write(value) == len(value)
    except OSError:
        return False


def can_open(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def can_create(folder: str) -> bool:
    path = os.path.join(folder, f".mms-attempt-{os.getpid()}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True


def can_list(folder: str) -> bool:
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


def succeeds(call: str, *arguments: object) -> bool:
    """Return True if the C library's `call` returns 0 in a child process."""
    child = os.fork()
    if not child:
        try:
            os._exit(1 if getattr(ctypes.CDLL(None), call)(*arguments) else 0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def becomes_root() -> bool:
    for become in (os.setuid, os.setgid):
        try:
            become(0)
        except OSError:
            continue
        return True
    return False


def status(field: str) -> int:
    """Return a hexadecimal field of /proc/self/status, 0 if it is missing."""
    try:
        with open("/proc/self/status") as file:
            return next((int(line.split()[1], 16) for line in file if line.startswith(f"{field}:")), 0)
    except OSError:
        return 0


def mount_points() -> list[str]:
    try:
        with open("/proc/self/mountinfo") as file:
            return [line.split()[4] for line in file]
    except OSError:
        return []


def can_replace(socket: str) -> bool:
    """Return True if the path can be renamed. Renames it back."""
    try:
        os.rename(socket, f"{socket}.attempt")
        os.rename(f"{socket}.attempt", socket)
    except OSError:
        return False
    return True


def can_allocate(size: int) -> bool:
    """Return True if the process gets `size` bytes of memory, which it doesn't use."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


def can_fill(size: int) -> bool:
    """Return True if `size` bytes fit into /tmp, which must be private. The kernel refuses before it writes any."""
    path = f"/tmp/.mms-attempt-{os.getpid()}"  # noqa: S108
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError:
        return False
    return True


def can_start(count: int) -> bool:
    """Return True if `count` processes run at the same time. Ends them."""
    reader, writer = os.pipe()
    children = []
    try:
        for _ in range(count):
            child = os.fork()
            if not child:
                os.close(writer)
                os.read(reader, 1)  # until the parent ends
                os._exit(0)
            children.append(child)
    except OSError:
        return False
    finally:
        os.close(writer)
        for child in children:
            os.waitpid(child, 0)
        os.close(reader)
    return True


def can_use_more_cpus() -> bool:
    if not hasattr(os, "sched_getaffinity"):
        return False
    before = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    after = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, before)
    return after != before


def can_outlive_others() -> bool:
    """Return True if the process can avoid being the first one that is killed if memory runs out."""
    path = "/proc/self/oom_score_adj"
    try:
        with open(path) as file:
            if int(file.read()) < 1000:
                return True
        for score in ("0", "1000"):
            with open(path, "w") as file:
                file.write(score)
    except (OSError, ValueError):
        return False
    return True


def main(options: dict[str, Any]) -> dict[str, object]:
    linux = sys.platform == "linux"
    places = sorted({*OUTSIDE, *mount_points()}.difference(PRIVATE))
    return {
        "uid": os.geteuid(),
        "groups": os.getgroups(),
        "settings": [path for path in SETTINGS if can_write(path)]
        + [path for path in SWITCHES if can_open(path, os.O_WRONLY)],
        "secretive": [path for path in KERNEL_SECRETS if can_open(path, os.O_RDONLY)],
        "outside": [folder for folder in places if can_create(folder)],
        "own": can_list(options["folder"]),
        "socket": can_replace(options["socket"]),
        "memory": linux and can_allocate(options["memory"] + 1),
        "temporary": "/tmp" in mount_points() and can_fill(options["temporary"] + 1),  # noqa: S108
        "tasks": can_start(options["tasks"] + 1),
        "cpus": can_use_more_cpus(),
        "out_of_memory": linux and can_outlive_others(),
        "user_namespace": linux and succeeds("unshare", CLONE_NEWUSER),
        "mount": linux and succeeds("mount", b"/tmp", b"/tmp", None, MOUNT_BIND, None),
        "capabilities": bool(status("CapEff") | status("CapPrm")),
        "new_privileges": linux and not status("NoNewPrivs"),
        "root": os.geteuid() != 0 and becomes_root(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

"""Attempt actions that a driver must not be able to perform, and print the results as JSON.

Runs where a driver runs: a Python inside the sandbox reads this file on stdin (`python -I -S - FOLDER ...`, with
folders of the site). Standard library only. Leaves no changes: kernel settings are overwritten with their current
values, and created files are deleted.
"""

import ctypes
import json
import os
import sys

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


def main(own: list[str]) -> dict[str, object]:
    linux = sys.platform == "linux"
    return {
        "uid": os.geteuid(),
        "groups": os.getgroups(),
        "settings": [path for path in SETTINGS if can_write(path)]
        + [path for path in SWITCHES if can_open(path, os.O_WRONLY)],
        "secretive": [path for path in KERNEL_SECRETS if can_open(path, os.O_RDONLY)],
        "outside": [folder for folder in OUTSIDE if can_create(folder)],
        "own": [folder for folder in own if can_list(folder)],
        "user_namespace": linux and succeeds("unshare", CLONE_NEWUSER),
        "mount": linux and succeeds("mount", b"/tmp", b"/tmp", None, MOUNT_BIND, None),
        "capabilities": bool(status("CapEff") | status("CapPrm")),
        "new_privileges": linux and not status("NoNewPrivs"),
        "root": os.geteuid() != 0 and becomes_root(),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))

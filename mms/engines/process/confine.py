"""Drop all privileges, then execute a program: `python -I -S confine.py USER [TASKS] PROGRAM [ARGUMENT ...]`.

USER is `uid:gid`, or `-` to keep the current user. TASKS limits the user's processes and threads; 0 sets no limit. Runs
as the first program inside a sandbox, or without one, and replaces itself with the scoring program. Standard library
only: nothing else is available in a sandbox.

It drops root (failing if any of it remains), supplementary groups, all capabilities and the ability to gain privileges
by executing a file (`no_new_privs`), and blocks system calls that exploits use but scoring programs don't.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

REFUSED = (
    3  # the scoring program's exit status for an error that a restart can't fix (mms.scoring.settings.INIT_FAILED)
)

# linux/prctl.h, linux/seccomp.h, linux/capability.h
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 22, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER, LAST_CAPABILITY = 4, 2, 63
CAPABILITY_VERSION = 0x20080522
# linux/filter.h: load a word of seccomp_data; jump if equal, at least, any bit set; return
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # FAIL is combined with an errno
EPERM, ENOSYS = 1, 38
# The words of seccomp_data: the call's number, the architecture, the lower half of the first argument.
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW... flag of clone(2)
X32 = 0x40000000  # x86-64: numbers from here on are the x32 variants of the same calls

# Numbers per machine: AUDIT_ARCH, clone, and those that fail with EPERM: unshare, setns, mount, umount2, pivot_root,
# add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, kexec_load, kexec_file_load, init_module,
# finit_module, delete_module, open_by_handle_at, and those that would evade limits on CPUs and memory:
# sched_setaffinity, memfd_create, shmget.
MACHINES = {
    "x86_64": (
        0xC000003E,
        56,
        (272, 308, 165, 166, 155, 248, 249, 250, 321, 298, 323, 246, 320, 175, 313, 176, 304, 203, 319, 29),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (97, 268, 40, 39, 41, 217, 218, 219, 280, 241, 282, 104, 294, 105, 273, 106, 265, 122, 279, 194),
    ),
}
# The same number everywhere: io_uring_{setup,enter,register}, open_tree, move_mount, fsopen, fsconfig, fsmount,
# fspick, mount_setattr, memfd_secret.
COMMON_NUMBERS = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 447)
CLONE3 = 435  # its flags are in memory, which a filter can't read; the C library then uses clone


def seccomp_filter(machine: str) -> bytes:
    """Return the BPF program for `machine`, empty where the numbers of its system calls aren't known here."""
    if machine not in MACHINES:
        return b""
    architecture, clone_number, refused = MACHINES[machine]
    fail = (RETURN, 0, 0, FAIL | EPERM)
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, FAIL | ENOSYS),
        (LOAD, 0, 0, NUMBER),
        *([(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, FAIL | ENOSYS)] if machine == "x86_64" else []),
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, FAIL | ENOSYS),
    ]
    for number in (*refused, *COMMON_NUMBERS):
        lines += [(EQUAL, 0, 1, number), fail]
    lines += [
        (EQUAL, 0, 3, clone_number),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 0, 1, NEW_NAMESPACE),
        fail,
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def drop_user(uid: int, gid: int) -> None:
    """Switch to `uid` with `gid` as the only group, which also drops all capabilities."""
    libc = ctypes.CDLL(None)
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def lock_down() -> None:
    """Prevent new privileges and block the system calls above. Skips features that the kernel lacks."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))  # none effective, permitted or inheritable
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = ctypes.create_string_buffer(seccomp_filter(os.uname().machine))
    length = (len(program) - 1) // 8
    if length:
        header = struct.pack("@HP", length, ctypes.addressof(program))
        libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0)
    # Changing the user cleared this. In a sandbox the parent is its first process, which must outlive the program too.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit_tasks(tasks: int) -> None:
    """Limit the processes and threads of the user in this user namespace.

    Before Linux 5.14, the kernel counts those of the user elsewhere as well. The limit isn't set if no process could be
    started with it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = tasks if hard == resource.RLIM_INFINITY else min(tasks, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        child = os.fork()
    except BlockingIOError:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        return
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def main(user: str, argv: list[str]) -> None:
    tasks = int(argv.pop(0)) if argv[0].isdigit() else 0
    if user != "-":
        uid, gid = map(int, user.split(":"))
        drop_user(uid, gid)
    if 0 in (os.getuid(), os.geteuid()):
        print("A service never runs as root. Install bubblewrap or run the site as another user.", file=sys.stderr)
        sys.exit(REFUSED)
    if tasks:
        limit_tasks(tasks)
    if sys.platform == "linux":
        lock_down()
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell wanted
    except OSError as error:
        print(f"User {os.getuid()} can't run {argv[0]}: {error.strerror}.", file=sys.stderr)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

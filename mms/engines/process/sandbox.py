"""The sandbox of a scoring program, made by bubblewrap.

The program sees the layers of its image, Python and system libraries, all read-only, and a private /tmp. It gets its
socket as an open descriptor. It has no network by default.

If the site runs as root, bubblewrap creates the sandbox as root, and `confine.py` drops root inside it, for a user
that runs nothing else on the machine. Otherwise bubblewrap creates the sandbox in a user namespace.

The command line is visible in the process list. It has no secrets.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mms.engines.process import attempts, confine, launch

TRIAL_TIMEOUT_SECONDS = 30
# Limits of the trial: lower than those of services, so that exceeding them takes little time.
TRIAL_MEMORY_BYTES = 256 * 1024**2
TRIAL_TEMPORARY_BYTES = 1024**2
TRIAL_TASKS = 32
MAX_SHARED_MEMORY_BYTES = 256 * 1024**2  # in /dev/shm
CONFINE = "/run/confine.py"  # in the sandbox
# On systems without a merged /usr, these are separate folders.
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki")

# Kernel settings and information below /proc, the same as for containers of Docker and Podman. bubblewrap covers some
# of them, but not /proc/sys for root: access(2) reports that folder as read-only, while files in it are writable.
PROC_READ_ONLY = ("bus", "fs", "irq", "mtrr", "sys", "sysrq-trigger")
PROC_MASKED = (
    "acpi",
    "asound",
    "kcore",
    "key-users",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)

NAMESPACES = ("ipc", "pid", "net", "uts")
# Options for bubblewrap, in order of preference. The second is for a setuid-root or old bubblewrap.
AS_USER = (
    ("--unshare-all", "--unshare-user", "--disable-userns"),
    ("--unshare-all",),
)
# In a user namespace, root would still be root for the files in /proc, and couldn't change to another user.
AS_ROOT = (
    (
        *(f"--unshare-{name}" for name in NAMESPACES),
        "--unshare-cgroup-try",
        *(word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")),
    ),
)

# User IDs for services of a site that runs as root: an unassigned range (https://systemd.io/UIDS-GIDS), so that no
# other program has one of them, and two services almost never have the same. In a container with only the first 65536
# IDs, all services share one from another unassigned range.
SERVICE_UIDS = range(0x7000_0000, 0x8000_0000)
SHARED_UID = SERVICE_GID = 65521


@dataclass(frozen=True)
class View:
    """The program's view besides the system: files and folders of this machine, by path in the sandbox."""

    read_only: Mapping[str, Path]
    directory: str  # working directory, in the sandbox
    hidden: Path  # a folder that appears empty if it is inside one of the above
    network: bool = False
    temporary: int = 1024**3  # bytes in /tmp
    tasks: int = 0  # processes and threads; 0 sets no limit


@dataclass(frozen=True)
class User:
    """The user and group that a service runs as, if not the site's own."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


@dataclass(frozen=True)
class Trial:
    """The result of starting a sandbox and trying to break out of it."""

    options: tuple[str, ...] | None  # of bubblewrap; None if services run without a sandbox
    reason: str  # why they do, as a sentence
    found: Mapping[str, Any] = field(default_factory=dict)  # output of `attempts.py`; empty if it didn't run
    failure: str = ""  # why it didn't, as a sentence


def python() -> str:
    """Return the Python that runs services: the base of our virtual environment, without its packages."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(base if base.exists() else Path(sys.executable).resolve())


def python_for(user: User | None) -> str:
    """Return `python()`, or the system's of the same version where `user` can't reach that one outside a sandbox."""
    system = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(system) if user and closed_above(Path(python())) and system.exists() else python()


def bubblewrap() -> str | None:
    """Return the path of the program bwrap; None if it isn't installed."""
    return shutil.which("bwrap")


def service_user(service_id: str) -> User | None:
    """Return the user for a service (a GUID) of a site that runs as root; None if the site doesn't."""
    if os.geteuid() != 0:
        return None
    uid = SERVICE_UIDS[uuid.UUID(service_id).int % len(SERVICE_UIDS)]
    return User(uid if _is_mapped(uid) else SHARED_UID, SERVICE_GID)


def _is_mapped(uid: int) -> bool:
    """Return True if this user id exists in our user namespace."""
    try:
        ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return True
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in ranges)


def closed_above(path: Path) -> list[Path]:
    """Return the folders above `path` that users other than their owner can't pass through."""
    return [folder for folder in path.parents if folder.exists() and not folder.stat().st_mode & 0o001]


def command(view: View, environment: Mapping[str, str], user: User | None) -> list[str]:
    """Return the command that runs another in the sandbox. Only for machines without an `unavailable_reason`."""
    return _command(view, environment, user, trial(view.hidden).options or AS_USER[0])


def _command(view: View, environment: Mapping[str, str], user: User | None, options: tuple[str, ...]) -> list[str]:
    return [
        bubblewrap() or "bwrap",
        *("--die-with-parent", "--clearenv", "--cap-drop", "ALL"),
        *(word for word in options if not (view.network and word == "--unshare-net")),
        *(["--share-net"] if view.network and "--unshare-all" in options else []),
        *_system(view.network),
        *_hide(view.hidden),
        *("--proc", "/proc", *_kernel(), "--remount-ro", "/proc", "--dev", "/dev"),
        *_temporary("/dev/shm", MAX_SHARED_MEMORY_BYTES),  # noqa: S108 - inside
        *_temporary("/tmp", view.temporary),  # noqa: S108 - inside
        *_folders(CONFINE, *view.read_only),
        *(word for inside, path in view.read_only.items() for word in ("--ro-bind", str(path), inside)),
        *("--ro-bind", confine.__file__, CONFINE),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", view.directory),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        "--",
        *confined(CONFINE, user, view.tasks),
    ]


def _temporary(path: str, size: int) -> Iterator[str]:
    yield from ("--perms", "1777", "--size", str(size), "--tmpfs", path)


def confined(path: str, user: User | None, tasks: int = 0, interpreter: str = "") -> list[str]:
    """Return the command that runs another through `confine.py` at `path`.

    Services that share a user aren't limited to `tasks` processes and threads, because they would be counted together.
    """
    limit = 0 if user and user.uid == SHARED_UID else tasks
    return [interpreter or python(), "-I", "-S", path, str(user or "-"), str(limit)]


def unwrapped(user: User | None, tasks: int = 0) -> list[str]:
    """Return the command that runs another without a sandbox.

    The processes of the site's own user aren't limited to `tasks`: they include the site's.
    """
    return confined(confine.__file__, user, tasks if user else 0, python_for(user))


def rules(data: Path) -> list[str]:
    """Return the current isolation rules, to compare with those of running services; empty without a sandbox."""
    options = trial(data).options
    return [] if options is None else [*options, *_kernel(), CONFINE, "socket by descriptor", "/etc/passwd"]


def _system(network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    yield from ("--dir", "/etc")
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            yield from ("--symlink", str(folder.readlink()), str(folder))
        elif folder.exists():
            yield from ("--ro-bind", str(folder), str(folder))
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        yield from (*_folders(sys.base_prefix), "--ro-bind", sys.base_prefix, sys.base_prefix)
    for file in (*SYSTEM_FILES, *(NETWORK_FILES if network else ())):
        yield from ("--ro-bind-try", file, file)


def _folders(*paths: str) -> Iterator[str]:
    """Create the parents of these paths. Those that bubblewrap creates itself are closed to other users."""
    parents = {str(folder) for path in paths for folder in Path(path).parents if folder != Path("/")}
    return (word for folder in sorted(parents) for word in ("--dir", folder))


def _kernel() -> Iterator[str]:
    """Cover everything in /proc besides processes. The kernel is shared, so the same files exist in the sandbox."""
    for path in (f"/proc/{name}" for name in PROC_READ_ONLY):
        if Path(path).exists():
            yield from ("--ro-bind", path, path)
    for path in (f"/proc/{name}" for name in PROC_MASKED):
        if Path(path).is_dir():
            yield from ("--tmpfs", path, "--remount-ro", path)
        elif Path(path).exists():
            yield from ("--ro-bind", "/dev/null", path)


def _hide(folder: Path) -> Iterator[str]:
    if any(folder.is_relative_to(shown) for shown in ("/usr", sys.base_prefix, *SYSTEM_FOLDERS)):
        yield from ("--tmpfs", str(folder), "--remount-ro", str(folder))


@lru_cache
def trial(data: Path) -> Trial:
    """Find options of bubblewrap that work here, and run `attempts.py` with them as a hostile driver would.

    `data` is DATA_DIR. It is bound into the sandbox, as a service's folders would be. The result is cached.
    """
    user = service_user(str(uuid.uuid4()))  # another one for each site, because processes are counted by user
    reason = ""
    if not sys.platform.startswith("linux"):
        reason = f"bubblewrap needs Linux; this is {sys.platform}."
    elif bubblewrap() is None:
        reason = "bubblewrap (the program bwrap) is not installed."
    else:
        view = View({"/app": data}, "/app", data, temporary=TRIAL_TEMPORARY_BYTES, tasks=TRIAL_TASKS)
        for options in AS_ROOT if user else AS_USER:
            found, failure = _attempt([*_command(view, {}, user, options), python()], data, user)
            if found:
                return Trial(options, "", found)
            reason = reason or f"bubblewrap doesn't work here: {failure}."
    found, failure = _attempt([*unwrapped(user, TRIAL_TASKS), python_for(user)], data, user)
    return Trial(None, reason, found, failure)


def _attempt(prefix: list[str], data: Path, user: User | None) -> tuple[dict[str, Any], str]:
    """Run `attempts.py` like a service, through `launch.py`. Return its output, or the reason why it didn't run."""
    try:
        with tempfile.TemporaryDirectory(prefix="mms-trial-") as folder:
            plan = Path(folder, "plan.json")
            plan.write_text(json.dumps(_trial_plan(prefix, data, user, Path(folder, "s"))))
            done = subprocess.run(
                [python(), "-I", "-S", launch.__file__, str(plan)],
                input=Path(attempts.__file__).read_bytes(),
                check=True,
                capture_output=True,
                timeout=TRIAL_TIMEOUT_SECONDS,
            )
        return json.loads(done.stdout), ""
    except subprocess.CalledProcessError as failure:
        lines = failure.stderr.decode(errors="replace").strip().splitlines()
        return {}, (lines[-1] if lines else f"exit status {failure.returncode}").removesuffix(".")
    except (OSError, ValueError, subprocess.TimeoutExpired) as failure:
        return {}, str(failure)


def _trial_plan(prefix: list[str], data: Path, user: User | None, socket: Path) -> dict[str, Any]:
    limits = {"memory": TRIAL_MEMORY_BYTES, "temporary": TRIAL_TEMPORARY_BYTES, "tasks": TRIAL_TASKS}
    options = {"folder": str(data), "socket": str(socket), **limits}
    return {
        "argv": [*prefix, "-I", "-S", "-", json.dumps(options)],
        "environment": {},
        "directory": "/",
        "socket": str(socket),
        "listener": launch.LISTENER,
        "starts": str(socket.with_name("starts")),
        "limits": {"CORE": 0, "DATA": TRIAL_MEMORY_BYTES},
        "cpus": 1,
        "wrapped": False,  # it ends without SIGTERM
        "user": [user.uid, user.gid] if user else None,
    }


def unavailable_reason(data: Path) -> str:
    """Return why services can't run in bubblewrap here, as a sentence; "" if they can."""
    return trial(data).reason


def denial_reason(data: Path) -> str:
    """Return why services can't run here, as a sentence; "" if they can. Always "" unless the site runs as root."""
    found, user = trial(data), service_user(str(uuid.UUID(int=0)))
    if found.options is not None or user is None:
        return ""
    advice = "Install bubblewrap, or run the site as a user other than root, then restart."
    if found.failure:
        return f"Services never run as root, and can't run as user {user.uid} either: {found.failure}. {advice}"
    if closed := closed_above(data):
        reason = f"user {user.uid} can't pass through {closed[-1]} to the images"
        return f"Services never run as root, and {reason}. {advice}"
    return ""


def holes(data: Path) -> list[str]:
    """Return what drivers can do here but must not, according to the trial, in phrases that follow "A driver can"."""
    tried = trial(data)
    found, is_sandboxed = tried.found, tried.options is not None
    has_own_count = found.get("uid") != SHARED_UID  # of processes
    if not found:
        return []
    checks = [
        (found["uid"] == 0, "act as root"),
        (found["root"], "become root"),
        (found["settings"], f"write kernel settings of this machine ({_abbreviate(found['settings'])})"),
        (found["capabilities"], "use capabilities of the kernel"),
        (found["new_privileges"], "gain privileges from setuid programs"),
        (found["mount"], "mount file systems"),
        (is_sandboxed and found["user_namespace"], "create user namespaces"),
        (is_sandboxed and found["outside"], f"create files in {_abbreviate(found['outside'])}"),
        (is_sandboxed and found["secretive"], f"read the kernel's own {_abbreviate(found['secretive'])}"),
        (
            (is_sandboxed or os.geteuid() == 0) and found["own"],
            f"see the files of this site in {data}",
        ),
        ((is_sandboxed or os.geteuid() == 0) and found["socket"], "replace its socket"),
        (found["memory"], "use any amount of memory"),
        (is_sandboxed and found["temporary"], "write any amount of temporary files"),
        (is_sandboxed and has_own_count and found["tasks"], "start any number of processes"),
        (found["cpus"], "use all CPUs"),
        (is_sandboxed and found["out_of_memory"], "outlive the site if memory runs out"),
    ]
    return [text for applies, text in checks if applies]


def _abbreviate(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (" and more" if len(paths) > 3 else "")


def exposure(data: Path, network: bool) -> str:
    """Describe what drivers can access on this machine, for its administrators."""
    found = trial(data)
    if reason := denial_reason(data):
        return f"No service can run. {found.reason} {reason}"
    if found.reason:
        return f"Services run without a sandbox. {found.reason} {_exposed()} {ADVICE}"
    reach = "the network" if network else "no network"
    return (
        "Services run in bubblewrap. A driver can read its own image, Python and the system's libraries, write to an "
        f"empty folder for temporary files, and use {reach}. It can't see files of this site, other services or "
        f"their processes. {_trial_summary(data)}"
    )


ADVICE = "Deploy only code that you trust, or install bubblewrap and restart."


def _exposed() -> str:
    if os.geteuid() != 0:
        return (
            "A driver, and every model it loads, can read and change everything that this site can: the database, the "
            "secret key, which decrypts all stored tokens and passwords, the uploads, and other services. It can also "
            "use the network."
        )
    return (
        "A driver runs as a separate user. It can't read the database, the secret key, the uploads or other services, "
        "but it can read files that all users of this machine can read, see all processes and use the network."
    )


def _trial_summary(data: Path) -> str:
    if found := holes(data):
        return f"Tested: a driver can {', '.join(found)}."
    return (
        f"Tested as user {trial(data).found['uid']}: it can't write kernel settings, become root, mount file systems, "
        "create user namespaces, replace its socket, write outside its own folders or exceed its limits."
    )

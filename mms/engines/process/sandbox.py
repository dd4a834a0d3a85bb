"""bubblewrap around a scoring program: it sees its image's layers, the Python and system libraries of this machine,
all read-only, one folder for its socket, a private /tmp, and by default no network.

Where the site runs as root, bubblewrap makes the sandbox as root and `confine.py` gives root up inside it, for a user
that nothing else on the machine is. Elsewhere bubblewrap needs a user namespace of its own to make the sandbox in.

No setting of the program is a secret, so it is no harm that the command line shows in the process list.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mms.engines.process import attempts, confine

PROBE_SECONDS = 10
TMP_MAX_BYTES = 1024**3
SOCKET_FOLDER = "/run/mms"  # inside
CONFINE = "/run/confine.py"  # inside
# Where a merged /usr is not the case, these are folders of their own.
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki")

# The kernel's settings and information below /proc, as in the containers of Docker and Podman. bubblewrap covers some
# of them, but not /proc/sys for root: access(2) denies writing to that folder, while the files in it are writable.
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
# Ways to call bubblewrap, best first. The second is for one that is setuid root, or too old for the first.
AS_USER = (
    ("--unshare-all", "--unshare-user", "--disable-userns"),
    ("--unshare-all",),
)
# In a user namespace root would still be root for the files in /proc, and could not become anybody else.
AS_ROOT = (
    (
        *(f"--unshare-{name}" for name in NAMESPACES),
        "--unshare-cgroup-try",
        *(word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")),
    ),
)

# User ids for services of a site that runs as root: a range that nobody assigns (https://systemd.io/UIDS-GIDS), so
# that no other program has one of them, and almost never two services the same. Inside a container that has only the
# first 65536 ids, all services share one from the other range that nobody assigns.
SERVICE_UIDS = range(0x7000_0000, 0x8000_0000)
SHARED_UID = SERVICE_GID = 65521


@dataclass(frozen=True)
class View:
    """What the program sees besides the system: paths inside to folders or files of this machine."""

    read_only: Mapping[str, Path]
    sockets: Path  # writable, at SOCKET_FOLDER
    directory: str  # working directory, inside
    hidden: Path  # a folder that shows empty, should it lie within something of the above
    network: bool = False


@dataclass(frozen=True)
class User:
    """The user and group that a service runs as, where that is not the site's own."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


@dataclass(frozen=True)
class Trial:
    """The result of trying the sandbox, and of trying to break out of it."""

    way: tuple[str, ...] | None  # of calling bubblewrap; None where services run without
    reason: str  # why they do, as a sentence
    found: Mapping[str, Any] = field(default_factory=dict)  # what `attempts.py` says; empty where it didn't run
    failure: str = ""  # why not even that runs, as a sentence


def python() -> str:
    """The Python that runs services: the one below our virtual environment, without the packages in it."""
    plain = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(plain if plain.exists() else Path(sys.executable).resolve())


def python_for(user: User | None) -> str:
    """Return `python()`, or the system's of the same version where `user` can't reach that one outside a sandbox."""
    system = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(system) if user and closed_above(Path(python())) and system.exists() else python()


def bubblewrap() -> str | None:
    return shutil.which("bwrap")


def service_user(service_id: str) -> User | None:
    """Return the user for a service (a GUID) of a site that runs as root; None where the site doesn't."""
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
    """The command line that ends before the program's own; for machines where `unavailable_reason` says nothing."""
    return _command(view, environment, user, trial(view.hidden).way or AS_USER[0])


def _command(view: View, environment: Mapping[str, str], user: User | None, way: tuple[str, ...]) -> list[str]:
    return [
        bubblewrap() or "bwrap",
        *("--die-with-parent", "--clearenv", "--cap-drop", "ALL"),
        *(word for word in way if not (view.network and word == "--unshare-net")),
        *(["--share-net"] if view.network and "--unshare-all" in way else []),
        *_system(view.network),
        *_hide(view.hidden),
        *("--proc", "/proc", *_kernel(), "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--perms", "1777", "--size", str(TMP_MAX_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *_folders(CONFINE, SOCKET_FOLDER, *view.read_only),
        *(word for inside, path in view.read_only.items() for word in ("--ro-bind", str(path), inside)),
        *("--ro-bind", confine.__file__, CONFINE),
        *("--bind", str(view.sockets), SOCKET_FOLDER),
        *("--remount-ro", "/", "--chdir", view.directory),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        "--",
        *confined(CONFINE, user),
    ]


def confined(path: str, user: User | None, interpreter: str = "") -> list[str]:
    """The command line of `confine.py` at `path`, which ends before the program's own."""
    return [interpreter or python(), "-I", "-S", path, str(user or "-")]


def unwrapped(user: User | None) -> list[str]:
    """The command line that ends before the program's own, where there is no sandbox."""
    return confined(confine.__file__, user, python_for(user))


def rules(data: Path) -> list[str]:
    """What is around services now, to compare with what a running one was started with; empty for no sandbox."""
    found = trial(data)
    return [] if found.way is None else [*found.way, *_kernel(), CONFINE]


def _system(network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
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
    """Make the folders above these paths: those that bubblewrap makes for itself are closed to users but its own."""
    above = {str(folder) for path in paths for folder in Path(path).parents if folder != Path("/")}
    return (word for folder in sorted(above) for word in ("--dir", folder))


def _kernel() -> Iterator[str]:
    """Cover what is in /proc besides processes. The kernel is the same inside: it has there what it has here."""
    for path in (f"/proc/{name}" for name in PROC_READ_ONLY):
        if os.path.exists(path):
            yield from ("--ro-bind", path, path)
    for path in (f"/proc/{name}" for name in PROC_MASKED):
        if os.path.isdir(path):
            yield from ("--tmpfs", path, "--remount-ro", path)
        elif os.path.exists(path):
            yield from ("--ro-bind", "/dev/null", path)


def _hide(folder: Path) -> Iterator[str]:
    if any(folder.is_relative_to(shown) for shown in ("/usr", sys.base_prefix, *SYSTEM_FOLDERS)):
        yield from ("--tmpfs", str(folder))


@lru_cache
def trial(data: Path) -> Trial:
    """Find the way to run services here, and run there what a hostile driver would. Tried once per process.

    `data` is the folder that holds all our data; something below it is bound in, as a service's folders would be.
    """
    user = service_user(str(uuid.UUID(int=0)))
    reason = ""
    if not sys.platform.startswith("linux"):
        reason = f"bubblewrap needs Linux; this is {sys.platform}."
    elif bubblewrap() is None:
        reason = "bubblewrap (the program bwrap) is not installed."
    else:
        view = View(read_only={"/app": data}, sockets=data, directory="/app", hidden=data)
        for way in AS_ROOT if user else AS_USER:
            found, failure = _attempt([*_command(view, {}, user, way), python()], data)
            if found:
                return Trial(way, "", found)
            reason = reason or f"bubblewrap does not work here: {failure}."
    found, failure = _attempt([*unwrapped(user), python_for(user)], data)
    return Trial(None, reason, found, failure)


def _attempt(prefix: list[str], data: Path) -> tuple[dict[str, Any], str]:
    """Run `attempts.py` as a service would run; its results, or why it didn't run."""
    command = [*prefix, "-I", "-S", "-", str(data)]
    try:
        source = Path(attempts.__file__).read_bytes()
        done = subprocess.run(command, input=source, check=True, capture_output=True, timeout=PROBE_SECONDS)
        return json.loads(done.stdout), ""
    except subprocess.CalledProcessError as failure:
        lines = failure.stderr.decode(errors="replace").strip().splitlines()
        return {}, (lines[-1] if lines else f"exit status {failure.returncode}").removesuffix(".")
    except (OSError, ValueError, subprocess.TimeoutExpired) as failure:
        return {}, str(failure)


def unavailable_reason(data: Path) -> str:
    """Why services cannot run in bubblewrap here, as a sentence; "" if they can. See `trial`."""
    return trial(data).reason


def denial_reason(data: Path) -> str:
    """Why no service can run here at all, as a sentence; "" if they can. Only for a site that runs as root."""
    found, user = trial(data), service_user(str(uuid.UUID(int=0)))
    if found.way is not None or user is None:
        return ""
    advice = "Install bubblewrap, or run the site as a user other than root, then restart."
    if found.failure:
        return f"Services never run as root, and can't run as user {user.uid} either: {found.failure}. {advice}"
    if closed := closed_above(data):
        reason = f"user {user.uid} can't pass through {closed[-1]} to the images"
        return f"Services never run as root, and {reason}. {advice}"
    return ""


def holes(data: Path) -> list[str]:
    """What a driver can do here although it must not, as found by trying: parts of a sentence after "A driver can"."""
    tried = trial(data)
    found, boxed = tried.found, tried.way is not None
    if not found:
        return []
    checks = [
        (found["uid"] == 0, "act as root"),
        (found["root"], "become root"),
        (found["settings"], f"write kernel settings of this machine ({_some(found['settings'])})"),
        (found["capabilities"], "use capabilities of the kernel"),
        (found["new_privileges"], "gain privileges from setuid programs"),
        (found["mount"], "mount file systems"),
        (boxed and found["user_namespace"], "create user namespaces"),
        (boxed and found["outside"], f"create files in {_some(found['outside'])}"),
        (boxed and found["secretive"], f"read the kernel's own {_some(found['secretive'])}"),
        ((boxed or os.geteuid() == 0) and found["own"], f"see the files of this site in {_some(found['own'])}"),
    ]
    return [text for applies, text in checks if applies]


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (" and more" if len(paths) > 3 else "")


def exposure(data: Path, network: bool) -> str:
    """What a driver can reach on this machine, in plain words, for the people who run it."""
    found = trial(data)
    if refused := denial_reason(data):
        return f"No service can run. {found.reason} {refused}"
    if found.reason:
        return f"Services run without a sandbox. {found.reason} {_exposed()} {ADVICE}"
    reach = "the network" if network else "no network"
    return (
        "Services run in bubblewrap. A driver sees its own image, Python and the system's libraries, all read-only, "
        f"an empty folder for temporary files and {reach}; it sees no file of this site, no other service and no "
        f"process but its own. {_tried(data)}"
    )


ADVICE = "Deploy only what you would run yourself, or install bubblewrap and restart."


def _exposed() -> str:
    if os.geteuid() != 0:
        return (
            "A driver, and every model it loads, can read and change what this site can: the database, the secret key "
            "and with it every stored token and password, the uploads and the other services; and it can use the "
            "network."
        )
    return (
        "A driver runs as a user of its own: it can't read the database, the secret key, the uploads or other "
        "services, but it can read what every user of this machine may read, see all processes and use the network."
    )


def _tried(data: Path) -> str:
    if found := holes(data):
        return f"Tried: a driver can {', '.join(found)}."
    return (
        f"Tried as user {trial(data).found['uid']}: it can't write kernel settings, become root, mount file systems, "
        "create user namespaces or write outside its own folders."
    )

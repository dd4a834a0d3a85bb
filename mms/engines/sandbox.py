"""bubblewrap around a scoring program: it sees its image's layers, the Python and system libraries of this machine,
all read-only, one folder for its socket, a private /tmp, and by default no network.

No setting of the program is a secret, so it is no harm that the command line shows in the process list.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROBE_SECONDS = 10
TMP_MAX_BYTES = 1024**3
SOCKET_FOLDER = "/run/mms"  # inside
# Where a merged /usr is not the case, these are folders of their own.
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki")


@dataclass(frozen=True)
class View:
    """What the program sees besides the system: paths inside to folders or files of this machine."""

    read_only: Mapping[str, Path]
    sockets: Path  # writable, at SOCKET_FOLDER
    directory: str  # working directory, inside
    hidden: Path  # a folder that shows empty, should it lie within something of the above
    network: bool = False


def python() -> str:
    """The Python that runs services: the one below our virtual environment, without the packages in it."""
    plain = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(plain if plain.exists() else Path(sys.executable).resolve())


def bubblewrap() -> str | None:
    return shutil.which("bwrap")


def command(view: View, environment: Mapping[str, str]) -> list[str]:
    """The command line that ends before the program's own; for machines where `why_not` says nothing."""
    return [
        bubblewrap() or "bwrap",
        *("--unshare-all", "--die-with-parent", "--clearenv", "--cap-drop", "ALL"),
        *(["--share-net"] if view.network else []),
        *_system(view.network),
        *_hide(view.hidden),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(TMP_MAX_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *(word for inside, path in view.read_only.items() for word in ("--ro-bind", str(path), inside)),
        *("--bind", str(view.sockets), SOCKET_FOLDER),
        *("--remount-ro", "/", "--chdir", view.directory),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        "--",
    ]


def _system(network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            yield from ("--symlink", str(folder.readlink()), str(folder))
        elif folder.exists():
            yield from ("--ro-bind", str(folder), str(folder))
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        yield from ("--ro-bind", sys.base_prefix, sys.base_prefix)
    for file in (*SYSTEM_FILES, *(NETWORK_FILES if network else ())):
        yield from ("--ro-bind-try", file, file)


def _hide(folder: Path) -> Iterator[str]:
    if any(folder.is_relative_to(shown) for shown in ("/usr", sys.base_prefix, *SYSTEM_FOLDERS)):
        yield from ("--tmpfs", str(folder))


@lru_cache
def why_not(data: Path) -> str:
    """Why services cannot run in bubblewrap here, as a sentence; "" if they can. Tried once per process.

    `data` is the folder that holds all our data; something below it is bound in, as a service's folders would be.
    """
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux; this is {sys.platform}."
    if bubblewrap() is None:
        return "bubblewrap (the program bwrap) is not installed."
    view = View(read_only={"/app": data}, sockets=data, directory="/app", hidden=data)
    try:
        subprocess.run(
            [*command(view, {}), python(), "-I", "-S", "-c", ""], check=True, capture_output=True, timeout=PROBE_SECONDS
        )
    except subprocess.CalledProcessError as failure:
        lines = failure.stderr.decode(errors="replace").strip().splitlines()
        return f"bubblewrap does not work here: {lines[-1] if lines else f'exit status {failure.returncode}'}."
    except (OSError, subprocess.TimeoutExpired) as failure:
        return f"bubblewrap does not work here: {failure}."
    return ""


def exposure(data: Path, network: bool) -> str:
    """What a driver can reach on this machine, in plain words, for the people who run it."""
    reason = why_not(data)
    if reason:
        return (
            f"Services run without a sandbox. {reason} A driver, and every model it loads, can read and change what "
            "this site can: the database, the secret key and with it every stored token and password, the uploads "
            "and the other services; and it can use the network. Deploy only what you would run yourself, or "
            "install bubblewrap and restart."
        )
    reach = "the network" if network else "no network"
    return (
        "Services run in bubblewrap. A driver sees its own image, Python and the system's libraries, all read-only, "
        f"an empty folder for temporary files and {reach}; it sees no file of this site, no other service and no "
        "process but its own."
    )

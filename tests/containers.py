"""A container engine and a registry for tests: podman with a separate store, and Debian's docker-registry.

Nothing is pulled: the base image is built from this machine's Python.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.ports import free_port
from tests.site import wait_until

USER, PASSWORD = "robot", "s3cret"
# The output of `htpasswd -Bbn robot s3cret`. The registry accepts only bcrypt.
HTPASSWD = "robot:$2y$05$P1PV9edsJ6aTqWeStFYzpOE.wsPMFjjMhFBZqo7tq9jnAKwzQ46Qi\n"
# Works inside a container too: no resource limits, no systemd, and no log service.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
NOT_IN_BASE = {"site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "__pycache__"}
# Loaded by name, or by packages outside the base image, so that following dependencies wouldn't find them.
MORE_LIBRARIES = ["libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"]


def missing() -> list[str]:
    """Return the required programs that aren't installed."""
    return [name for name in ("podman", "docker-registry", "ldd") if not shutil.which(name)]


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """Run a registry that requires USER and PASSWORD and stores its blobs in `folder`. Yield its `host:port`."""
    location = f"127.0.0.1:{free_port()}"
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "registry.yml").write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}\n"
        f"http: {{addr: '{location}'}}\n"
        f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
    )
    command = ["docker-registry", "serve", str(folder / "registry.yml")]
    with (folder / "registry.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _answers(f"http://{location}/v2/"), 20, "the registry")
        yield location
    finally:
        server.terminate()
        server.wait(10)


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


class Podman:
    """Podman with images and containers in `folder`. Call `close` at the end."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        self.environment = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }

    def __call__(self, *words: str) -> str:
        """Run `podman …` and return its output. Raise AssertionError with its error output if it fails."""
        done = self._run(*words)
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def why_not(self, *words: str) -> str:
        """Run `podman …` and return its error output, or "" if it succeeds."""
        done = self._run(*words)
        return done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else ""

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        runtime = ["--runtime", "runc"] if shutil.which("runc") else []  # older crun knows fewer kinds of cgroups
        command = ["podman", *runtime, "--root", f"{self.folder}/images", "--runroot", f"{self.folder}/run", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)

    def close(self) -> None:
        """Delete all containers and images. Podman does it, because files in the store may belong to other users."""
        with suppress(subprocess.TimeoutExpired):
            self._run("rm", "--all", "--force", "--time", "1")
            self._run("rmi", "--all", "--force")


def write_base(target: Path) -> None:
    """Write the tar file `target`: a root file system with only this machine's Python and its dependencies."""
    with tarfile.open(target, "w") as tar:
        for folder in ("usr", "usr/bin", "usr/lib", "usr/lib64", "usr/local", "proc", "sys", "dev", "run", "etc"):
            _add_folder(tar, folder)
        _add_folder(tar, "tmp", 0o1777)
        for name in ("bin", "lib", "lib64"):
            _add_link(tar, name, f"usr/{name}")
        _add_text(tar, "etc/ld.so.conf", "/usr/local/lib\n")
        modules = _standard_library(tar)
        program = Path(sys.base_prefix, "bin", PYTHON)
        tar.add(program.resolve(), f"usr/local/bin/{PYTHON}")
        _add_link(tar, "usr/local/bin/python3", PYTHON)
        for library in sorted({library for file in (program, *modules) for library in _libraries(file)}):
            tar.add(library.resolve(), _place(library))


def _standard_library(tar: tarfile.TarFile) -> list[Path]:
    """Add Python's standard library. Return its compiled modules."""
    root, native = Path(sys.base_prefix, "lib", PYTHON), []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_IN_BASE and not name.startswith("config-"))
        for path in (Path(folder, name) for name in sorted(files) if not name.startswith(("_tkinter", "_test"))):
            tar.add(path, f"usr/local/lib/{PYTHON}/{path.relative_to(root)}")
            native += [path] if path.suffix == ".so" else []
    return native


def _libraries(file: Path) -> set[Path]:
    """Return the libraries that `file` loads, and those in the folder of its C library."""
    lines = subprocess.run(["ldd", str(file)], capture_output=True, text=True).stdout.splitlines()
    found = {Path(word) for line in lines for word in line.split() if word.startswith("/")}
    beside = {library.parent for library in found if library.name == "libc.so.6"}
    more = {folder / name for folder in beside for name in MORE_LIBRARIES}
    return found | {path for path in more if path.exists()}


def _place(library: Path) -> str:
    """Return the path of a library in the image: unchanged, except that Python's own are in /usr/local/lib."""
    if library.is_relative_to(sys.base_prefix) and sys.base_prefix != "/usr":
        return f"usr/local/lib/{library.name}"
    path = str(library).lstrip("/")
    return f"usr/{path}" if path.startswith("lib") else path


def _add_folder(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    tar.addfile(entry, BytesIO(text.encode()))

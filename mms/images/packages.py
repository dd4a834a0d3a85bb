"""Packages from the index, by uv: locked with hashes, installed into a folder, compiled, freed of this machine's paths.

Only wheels are taken: building a source distribution would run code of strangers in the build.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mms import leash
from mms.images import pipconf

LOCK_FRESH = 24 * 3600.0  # seconds for which the same requirements get the same lock without asking the index again
_CPUS = {"amd64": "x86_64", "arm64": "aarch64"}


class Failed(Exception):
    """uv could not do it. The text is uv's own."""


@dataclass(frozen=True)
class Target:
    """The Python that the packages are for."""

    python: str  # minor version
    platform: str  # as OCI spells it: "linux/amd64"
    interpreter: str  # a Python of this machine, which uv asks about itself

    @property
    def options(self) -> list[str]:
        cpu = self.platform.removeprefix("linux/")
        return [
            f"--python={self.interpreter}",
            f"--python-version={self.python}",
            f"--python-platform={_CPUS.get(cpu, cpu)}-unknown-linux-gnu",
            "--only-binary=:all:",
        ]


class Installer:
    """uv with a cache of its own below `cache`, on the file system of the store: packages are linked, not copied."""

    def __init__(self, cache: Path, tmp: Path, say: Callable[[str], None]) -> None:
        self._cache, self._tmp, self._say = cache, tmp, say
        self._locks = cache / "locks"
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, lines: list[str], key: str, target: Target) -> str:
        """The requirements `lines`, resolved and with hashes. `key` stands for `lines` and `target`. Raises Failed."""
        path = self._locks / f"{key}.txt"
        if path.exists() and time.time() - path.stat().st_mtime < LOCK_FRESH:
            self._say("the same requirements were locked before; that lock is used")
            return path.read_text()
        source, found = self._tmp / "requirements.in", self._tmp / "requirements.lock"
        source.write_text("".join(f"{line}\n" for line in lines))
        found.unlink(missing_ok=True)
        quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        self._uv("pip", "compile", "--generate-hashes", *quiet, *target.options, f"--output-file={found}", str(source))
        found.replace(path)
        return path.read_text()

    def install(self, lock: str, folder: Path, target: Target) -> None:
        """Install exactly what `lock` says into the new folder. Raises Failed, also where a hash differs."""
        source = self._tmp / "requirements.lock"
        source.write_text(lock)
        only = ["--no-deps", "--require-hashes", f"--target={folder}"]
        self._uv("pip", "install", *only, *target.options, "-r", str(source))

    def _uv(self, *arguments: str) -> None:
        """Run uv; what it says goes to the log as it comes, and into the exception when it fails."""
        command = [sys.executable, "-IS", leash.__file__, _uv_binary(), *arguments, "--color=never", "--no-progress"]
        environment = pipconf.for_uv(os.environ) | {
            "UV_CACHE_DIR": str(self._cache / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",  # else a missing Python costs ten seconds of retries
            "UV_CUSTOM_COMPILE_COMMAND": "",
        }
        process = subprocess.Popen(
            command, env=environment, cwd=self._tmp, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        lines: deque[str] = deque(maxlen=20)
        for line in process.stderr or ():
            lines.append(pipconf.without_passwords(line.rstrip()))
            self._say(lines[-1])
        if process.wait():
            raise Failed(
                "\n".join(line for line in lines if line).strip() or f"uv ended with code {process.returncode}."
            )


def _uv_binary() -> str:
    import uv

    return uv.find_uv_bin()


def compile_tree(folder: Path, place: str) -> None:
    """Byte-compile `folder`, which will lie at `place` in the image, with this Python: the same bytes every time.

    unchecked-hash and the epoch make the result independent of times, the prefix of where it was made. What cannot be
    compiled (a template with a .py ending) stays as it is.
    """
    command = [sys.executable, "-m", "compileall", "-q", "-q", "-j0", "--invalidation-mode=unchecked-hash"]
    command += ["-s", str(folder.absolute()), "-p", place, str(folder.absolute())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, env=environment | {"SOURCE_DATE_EPOCH": "0"}, stdout=subprocess.DEVNULL, check=False)


def forget_machine(folder: Path) -> None:
    """Take out what names the Python of this machine: first lines of scripts, and uv's own lock file."""
    (folder / ".lock").unlink(missing_ok=True)
    for script in sorted((folder / "bin").glob("*")):
        if script.is_file() and not script.is_symlink():
            _neutral_script(script)


def _neutral_script(script: Path) -> None:
    with script.open("rb") as file:
        if file.read(2) != b"#!":
            return
        first, rest = file.readline(), file.read()
    if b"python" not in first and not rest.startswith(b"'''exec'"):
        return
    if rest.startswith(b"'''exec'"):  # the long form: a shell line, then the end of the string
        rest = rest.split(b"\n", 2)[2]
    mode = script.stat().st_mode
    script.unlink()  # it may be a hard link into uv's cache
    script.write_bytes(b"#!/usr/bin/env python3\n" + rest)
    script.chmod(mode)

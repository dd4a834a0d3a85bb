"""Packages from the index, by uv: locked with hashes, installed into a folder, compiled, freed of this machine's paths.

Only wheels are taken: building a source distribution would run code of strangers in the build.
"""

import base64
import csv
import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mms.images.packages import pipconf
from mms.images.store.layout import replace_file
from mms.system import die_with_parent
from mms.system.locks import locked

LOCK_MAX_AGE_SECONDS = 24 * 3600.0  # reuse a lock for this long before the index is asked again
_CPUS = {"amd64": "x86_64", "arm64": "aarch64"}


class InstallError(Exception):
    """uv, or the compiler, could not do it. The text is uv's own."""


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
        """Resolve the requirements `lines` into a lock with hashes, cached as `key`. Raises InstallError."""
        path = self._locks / f"{key}.txt"
        if path.exists() and time.time() - path.stat().st_mtime < LOCK_MAX_AGE_SECONDS and (lock := path.read_text()):
            self._say("the same requirements were locked before; that lock is used")
            return lock
        source, found = self._tmp / "requirements.in", self._tmp / "requirements.lock"
        source.write_text("".join(f"{line}\n" for line in lines))
        found.unlink(missing_ok=True)
        only = ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        self._uv("pip", "compile", *only, *target.options, f"--output-file={found}", str(source))
        replace_file(path, found.read_bytes())
        return path.read_text()

    def install(self, lock: str, folder: Path, target: Target) -> None:
        """Install exactly what `lock` says into the new folder. Raises InstallError, also where a hash differs."""
        source = self._tmp / "requirements.lock"
        source.write_text(lock)
        only = ["--no-deps", "--require-hashes", f"--target={folder}"]
        arguments = ["pip", "install", *only, *target.options, "-r", str(source)]
        self._uv(*arguments)
        if cut := find_truncated_file(folder):
            self._say(f"{cut} is not as long as its package says: everything is fetched anew")
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            clear_cache(self._cache, "*")
            self._uv(*arguments, "--no-cache")

    def _uv(self, *arguments: str) -> None:
        """Run uv; what it says goes to the log as it comes, and into the exception when it fails."""
        quiet = ["--color=never", "--no-progress", *pipconf.uv_arguments(os.environ)]
        command = die_with_parent.wrap(_uv_binary(), *arguments, *quiet)
        environment = pipconf.uv_environment(os.environ) | {
            "UV_CACHE_DIR": str(self._cache / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",  # else a missing Python costs ten seconds of retries
            "UV_CUSTOM_COMPILE_COMMAND": "",
        }
        lines: deque[str] = deque(maxlen=20)
        with subprocess.Popen(
            command, env=environment, cwd=self._tmp, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr or ():
                    lines.append(pipconf.redact_passwords(line.rstrip()))
                    self._say(lines[-1])
            except BaseException:  # the build is told to stop
                process.kill()
                raise
        if process.returncode:
            raise InstallError(_reason(list(lines)) or f"uv ended with code {process.returncode}.")


def prune_cache(cache: Path) -> None:
    """Let uv drop what is dangling in its cache below `cache`, or begin with it: the next time goes on.

    Only while no build runs: uv would wait for it.
    """
    if (cache / "uv").exists():
        command = [_uv_binary(), "cache", "prune", "--quiet", "--no-config", "--offline"]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env={"UV_CACHE_DIR": str(cache / "uv")}, check=False, timeout=10)


def _reason(lines: list[str]) -> str:
    """Why uv failed, in its words: from where it says "error", with the causes in the same sentence."""
    start = next((at for at, line in enumerate(lines) if line.startswith("error: ")), 0)
    text = "\n".join(line for line in lines[start:] if line).strip()
    return text.removeprefix("error: ").replace("\n  cause: ", ": ")


def find_truncated_file(folder: Path) -> str:
    """The first installed file whose size is not the one in its package's list; "" if all are whole.

    uv writes its cache without waiting for the disk: after a power cut, files in it may be shorter than they were.
    """
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        with record.open(newline="") as file:
            for name, _, size in csv.reader(file):
                if size and (folder / name).is_file() and (folder / name).stat().st_size != int(size):
                    return name
    return ""


def clear_cache(cache: Path, pattern: str = ".tmp*") -> None:
    """Remove what a uv that was killed left half-fetched, or folders of another pattern. Not while any uv runs: each
    holds this lock, together with the others."""
    with locked(cache / "uv" / ".lock", wait=False) as alone:
        for folder in (cache / "uv").glob(pattern) if alone else ():
            shutil.rmtree(folder, ignore_errors=True)


def _uv_binary() -> str:
    import uv

    return uv.find_uv_bin()


def compile_tree(folder: Path, place: str) -> None:
    """Byte-compile `folder`, which will lie at `place` in the image, with this Python: the same bytes every time.

    unchecked-hash and the epoch make the result independent of times, the prefix of where it was made. What cannot be
    compiled (a template with a .py ending) stays as it is. Raises InstallError if a compiler was killed, and OSError on
    a full disk: the result would be incomplete.
    """
    files = sorted(str(path.absolute()) for path in folder.rglob("*.py"))
    count = os.cpu_count() or 1
    # Not compileall's own -j: its processes wait for work for ever once the one that made them was killed.
    compilers = [_compiler(files[at::count], folder.absolute(), place) for at in range(count) if files[at:]]
    said = "".join(compiler.stdout.read() for compiler in compilers if compiler.stdout)
    if min([compiler.wait() for compiler in compilers], default=0) < 0:
        raise InstallError("Byte-compiling was killed; the machine may have run out of memory.")
    if f"[Errno {errno.ENOSPC}]" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _compiler(files: list[str], folder: Path, place: str) -> "subprocess.Popen[str]":
    """A process that compiles `files` of `folder` and ends with this one. It says what could not be compiled."""
    command = die_with_parent.wrap(sys.executable, "-m", "compileall", "-q")
    command += ["--invalidation-mode=unchecked-hash", "-s", str(folder), "-p", place, "-i", "-"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"SOURCE_DATE_EPOCH": "0", "PYTHONUTF8": "1"}
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", errors="replace", **streams)
    assert process.stdin  # noqa: S101 - as asked for
    with process.stdin:  # it reads the whole list before it says anything
        process.stdin.writelines(f"{file}\n" for file in files)
    return process


def remove_machine_details(folder: Path) -> None:
    """Take out what names this machine or this moment: the Python in the first line of scripts, and uv's own notes."""
    (folder / ".lock").unlink(missing_ok=True)
    changed = {script for script in sorted((folder / "bin").glob("*")) if _replace_shebang(script)}
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        (record.parent / "uv_cache.json").unlink(missing_ok=True)
        _update_record(record, folder, changed)


def _replace_shebang(script: Path) -> bool:
    """Let a script begin with whatever Python it is run by; whether it was changed."""
    data = script.read_bytes() if script.is_file() and script.stat().st_size < 1 << 20 else b""
    first, _, rest = data.partition(b"\n")
    if rest.startswith(b"'''exec'"):  # the form for long paths: two more lines, which a shell reads
        rest = rest.split(b"\n", 2)[2]
    elif not (first.startswith(b"#!") and b"python" in first):
        return False
    _rewrite(script, b"#!/usr/bin/env python3\n" + rest)
    return True


def _update_record(record: Path, folder: Path, changed: set[Path]) -> None:
    """Let a package's list of files tell the truth again."""
    with record.open(newline="") as file:
        rows = [row for row in csv.reader(file) if (folder / row[0]).exists()]
    for row in rows:
        if folder / row[0] in changed:
            data = (folder / row[0]).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            row[1:] = [f"sha256={digest}", str(len(data))]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    _rewrite(record, text.getvalue().encode())


def _rewrite(path: Path, data: bytes) -> None:
    """Replace a file, never write into it: it may be a hard link into uv's cache."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)

"""Python packages, installed by uv: locked with hashes, byte-compiled, and independent of this machine's paths.

Only wheels are installed: building a source distribution would run untrusted code.
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

from mms.images.packages import pipconf, unresolved
from mms.images.store.layout import replace_file
from mms.system import die_with_parent
from mms.system.locks import locked

LOCK_MAX_AGE_SECONDS = 24 * 3600.0  # how long a lock is reused before the index is queried again
MAX_OUTPUT_LINES, MAX_REASON_CHARS = 100, 4000  # of uv's output in an error
_CPUS = {"amd64": "x86_64", "arm64": "aarch64"}


class InstallError(Exception):
    """uv or the compiler failed. The message is uv's own."""


@dataclass(frozen=True)
class Target:
    """The Python and platform to install packages for."""

    python: str  # minor version
    platform: str  # in OCI notation: "linux/amd64"
    interpreter: str  # path of a Python on this machine, which uv inspects

    @property
    def options(self) -> list[str]:
        """Return uv's options for this target."""
        cpu = self.platform.removeprefix("linux/")
        return [
            f"--python={self.interpreter}",
            f"--python-version={self.python}",
            f"--python-platform={_CPUS.get(cpu, cpu)}-unknown-linux-gnu",
            "--only-binary=:all:",
        ]


class Installer:
    """Runs uv with its own cache below `cache`, on the store's file system: packages are linked, not copied.

    `config` is the site's pip configuration file, the only configuration that is read.
    """

    def __init__(self, cache: Path, tmp: Path, log: Callable[[str], None], config: Path | None = None) -> None:
        self._cache, self._tmp, self._log, self._config = cache, tmp, log, config
        self._home = tmp / "home"
        self._locks = cache / "locks"
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, lines: list[str], key: str, target: Target) -> str:
        """Resolve the requirements `lines` into a lock with hashes, cached as `key`. Raises InstallError."""
        path = self._locks / f"{key}.txt"
        if path.exists() and time.time() - path.stat().st_mtime < LOCK_MAX_AGE_SECONDS and (lock := path.read_text()):
            self._log("reusing the lock of an earlier build with the same requirements")
            return lock
        try:
            lock = self._resolve(lines, target, self._log)
        except InstallError as error:
            if not str(error).startswith(unresolved.UNRESOLVED):
                raise
            self._log("looking for all requirements that can't be installed")

            def resolve(line: str, has_dependencies: bool) -> tuple[str, str]:
                return self._try_resolve(line, has_dependencies, target)

            reason = unresolved.explain(str(error), lines, resolve, target.python)
            raise InstallError(reason) from None
        replace_file(path, lock.encode())
        return lock

    def _resolve(
        self, lines: list[str], target: Target, log: Callable[[str], None], options: tuple[str, ...] = ()
    ) -> str:
        source, found = self._tmp / "requirements.in", self._tmp / "requirements.lock"
        source.write_text("".join(f"{line}\n" for line in lines))
        found.unlink(missing_ok=True)
        only = ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        self._uv("pip", "compile", *only, *options, *target.options, f"--output-file={found}", str(source), log=log)
        return found.read_text()

    def _try_resolve(self, line: str, has_dependencies: bool, target: Target) -> tuple[str, str]:
        """Return the lock of one requirement, or "" and uv's message."""
        options = () if has_dependencies else ("--no-deps",)
        try:
            return self._resolve([line], target, lambda _: None, options), ""
        except InstallError as error:
            return "", str(error)

    def install(self, lock: str, folder: Path, target: Target) -> None:
        """Install exactly the packages in `lock` into the new folder. Raises InstallError, also if a hash differs."""
        source = self._tmp / "requirements.lock"
        source.write_text(lock)
        only = ["--no-deps", "--require-hashes", f"--target={folder}"]
        arguments = ["pip", "install", *only, *target.options, "-r", str(source)]
        self._uv(*arguments)
        if truncated := find_truncated_file(folder):
            self._log(f"{truncated} is shorter than its package says: downloading all packages again")
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            clear_cache(self._cache, "*")
            self._uv(*arguments, "--no-cache")

    def _uv(self, *arguments: str, log: Callable[[str], None] | None = None) -> None:
        """Run uv and log its output line by line. Raises InstallError with that output."""
        log = log or self._log
        self._home.mkdir(exist_ok=True)
        try:
            output_options = ["--color=never", "--no-progress", *pipconf.uv_arguments(self._config)]
            environment = pipconf.uv_environment(self._config, os.environ, self._home)
        except pipconf.InvalidConfigError as error:
            raise InstallError(f"MMS_PIP_CONFIG can't be used: {error}. Ask the operators of the server.") from None
        command = die_with_parent.wrap(_uv_binary(), *arguments, *output_options)
        environment |= {
            "UV_CACHE_DIR": str(self._cache / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",  # otherwise a missing Python costs ten seconds of retries
            "UV_CUSTOM_COMPILE_COMMAND": "",
        }
        lines: deque[str] = deque(maxlen=MAX_OUTPUT_LINES)
        with subprocess.Popen(
            command, env=environment, cwd=self._tmp, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr or ():
                    lines.append(pipconf.redact_passwords(line.rstrip()))
                    log(lines[-1])
            except BaseException:  # the build is being stopped
                process.kill()
                raise
        if process.returncode:
            raise InstallError(
                _reason(list(lines)) or f"uv exited with code {process.returncode}. Check the build log for the reason."
            )


def prune_cache(cache: Path) -> None:
    """Remove unused entries from uv's cache below `cache`. If that takes too long, the next call continues.

    Call only while no build runs: uv would wait for it.
    """
    if (cache / "uv").exists():
        command = [_uv_binary(), "cache", "prune", "--quiet", "--no-config", "--offline"]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env={"UV_CACHE_DIR": str(cache / "uv")}, check=False, timeout=10)


def _reason(lines: list[str]) -> str:
    """Return uv's error message: its output from the line "error:", with the causes in the same sentence."""
    start = next((at for at, line in enumerate(lines) if line.startswith("error: ")), 0)
    text = "\n".join(line for line in lines[start:] if line).strip()
    return text.removeprefix("error: ").replace("\n  cause: ", ": ")[:MAX_REASON_CHARS]


def find_truncated_file(folder: Path) -> str:
    """Return the first installed file whose size differs from its package's RECORD; "" if there is none.

    uv doesn't sync its cache to the disk: after a power failure, cached files may be truncated.
    """
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        with record.open(newline="") as file:
            for name, _, size in csv.reader(file):
                if size and (folder / name).is_file() and (folder / name).stat().st_size != int(size):
                    return name
    return ""


def clear_cache(cache: Path, pattern: str = ".tmp*") -> None:
    """Delete partial downloads of killed uv processes, or the cache folders that match `pattern`.

    Does nothing while a uv process runs: each holds this lock in shared mode.
    """
    with locked(cache / "uv" / ".lock", wait=False) as is_exclusive:
        for folder in (cache / "uv").glob(pattern) if is_exclusive else ():
            shutil.rmtree(folder, ignore_errors=True)


def _uv_binary() -> str:
    import uv

    return uv.find_uv_bin()


def compile_tree(folder: Path, image_path: str) -> None:
    """Byte-compile `folder`, located at `image_path` in the image, with this Python. The output is reproducible.

    unchecked-hash and the epoch make it independent of timestamps, the prefix independent of this machine's paths.
    Files that can't be compiled, such as templates ending in .py, are left as they are. Raises InstallError if a
    compiler was killed, and OSError on a full disk: the result would be incomplete.
    """
    files = sorted(str(path.absolute()) for path in folder.rglob("*.py"))
    count = os.cpu_count() or 1
    # Not compileall's own -j: its workers wait forever once their parent has been killed.
    compilers = [_compiler(files[at::count], folder.absolute(), image_path) for at in range(count) if files[at:]]
    output = "".join(compiler.stdout.read() for compiler in compilers if compiler.stdout)
    if min([compiler.wait() for compiler in compilers], default=0) < 0:
        reason = "A compiler process was killed, perhaps because the machine ran out of memory."
        raise InstallError(f"{reason} Free some memory, then build again.")
    if f"[Errno {errno.ENOSPC}]" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _compiler(files: list[str], folder: Path, image_path: str) -> "subprocess.Popen[str]":
    """Start a process that compiles `files` of `folder`, prints failures, and ends with this process."""
    command = die_with_parent.wrap(sys.executable, "-m", "compileall", "-q")
    command += ["--invalidation-mode=unchecked-hash", "-s", str(folder), "-p", image_path, "-i", "-"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"SOURCE_DATE_EPOCH": "0", "PYTHONUTF8": "1"}
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", errors="replace", **streams)
    assert process.stdin  # noqa: S101 - requested above
    with process.stdin:  # it reads the entire list before it prints anything
        process.stdin.writelines(f"{file}\n" for file in files)
    return process


def remove_machine_details(folder: Path) -> None:
    """Remove traces of this machine and time: the interpreter paths in scripts, and uv's own metadata."""
    (folder / ".lock").unlink(missing_ok=True)
    changed = {script for script in sorted((folder / "bin").glob("*")) if _replace_shebang(script)}
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        (record.parent / "uv_cache.json").unlink(missing_ok=True)
        _update_record(record, folder, changed)


def _replace_shebang(script: Path) -> bool:
    """Make a script run with the Python in PATH. Return True if it was changed."""
    data = script.read_bytes() if script.is_file() and script.stat().st_size < 1 << 20 else b""
    first, _, rest = data.partition(b"\n")
    if rest.startswith(b"'''exec'"):  # the form for long paths: two more lines for the shell
        rest = rest.split(b"\n", 2)[2]
    elif not (first.startswith(b"#!") and b"python" in first):
        return False
    _rewrite(script, b"#!/usr/bin/env python3\n" + rest)
    return True


def _update_record(record: Path, folder: Path, changed: set[Path]) -> None:
    """Update a package's RECORD after its files were changed or removed."""
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
    """Replace a file instead of writing to it: it may be a hard link into uv's cache."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)

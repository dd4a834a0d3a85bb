"""The disk: free space, largest directories, and permissions of secrets."""

import os
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from dashboard.ops.doctor import mounts
from dashboard.ops.doctor.finding import CheckContext, Finding, failed, file_size, ok, pluralize, warning

MB, GB = 1024**2, 1024**3
# Free space is low below LOW_BYTES, or below both LOW_SHARE and AMPLE_BYTES. It is critical below CRITICAL_BYTES, or
# below both CRITICAL_SHARE and LOW_BYTES.
LOW_BYTES, LOW_SHARE, AMPLE_BYTES = 2 * GB, 0.10, 20 * GB
CRITICAL_BYTES, CRITICAL_SHARE = 200 * MB, 0.02
LOW_INODES_SHARE, CRITICAL_INODES_SHARE = 0.05, 0.01
ADVICE = f"Free some: `{settings.COMMAND} prune` lists and deletes unused files. Or move DATA_DIR to a larger disk."
COUNT_SECONDS = 1.5  # limit for adding up directories
CACHE_SECONDS = 600  # for the sizes of directories


def check(context: CheckContext) -> Iterator[Finding]:
    """Check the disk of DATA_DIR."""
    data: Path = settings.DATA_DIR
    yield _check_space(data, "disk")
    yield _check_inodes(data, "disk")
    if data.stat().st_dev != settings.TMP_DIR.stat().st_dev:
        yield _check_space(settings.TMP_DIR, "temporary files")
        message = f"{settings.TMP_DIR} is on another disk than {data}, so finished files can't be renamed into place."
        yield warning("temporary files", message, "Put both on the same disk.")
    yield _measure_directories(int(time.time() // CACHE_SECONDS))
    yield from _check_secrets(data)


def _check_space(directory: Path, part: str) -> Finding:
    stats = os.statvfs(directory)
    free, total = stats.f_bavail * stats.f_frsize, stats.f_blocks * stats.f_frsize
    share = free / total if total else 1.0
    point = mounts.find_mount(directory).point
    message = f"{file_size(free)} of {file_size(total)} ({share:.0%}) are free on {point}, the disk of {directory}."
    if free < CRITICAL_BYTES or (share < CRITICAL_SHARE and free < LOW_BYTES):
        return failed(part, f"{message} Uploads and builds fail, and soon all changes will.", ADVICE)
    if free < LOW_BYTES or (share < LOW_SHARE and free < AMPLE_BYTES):
        return warning(part, message, ADVICE)
    return ok(part, message)


def _check_inodes(directory: Path, part: str) -> Finding:
    stats = os.statvfs(directory)
    if not stats.f_files:  # the file system has no limit
        return ok(part, "The number of files is unlimited.")
    share = stats.f_favail / stats.f_files
    message = f"Space for {pluralize(stats.f_favail, 'more file')} ({share:.0%} of the inodes)."
    if share < LOW_INODES_SHARE:
        finding = failed if share < CRITICAL_INODES_SHARE else warning
        return finding(part, message, ADVICE)
    return ok(part, message)


@lru_cache(maxsize=1)
def _measure_directories(period: int) -> Finding:
    """Report the sizes of the largest directories. Measured once per `period`, because every file is read."""
    until = time.monotonic() + COUNT_SECONDS
    sizes = sorted(((_disk_usage(path, until), path.name) for path in settings.DATA_DIR.iterdir()), reverse=True)
    largest = ", ".join(f"{name} {file_size(size)}" for size, name in sizes[:4] if size)
    at_least = "at least " if time.monotonic() > until else ""
    return ok(
        "data",
        f"Uses {at_least}{file_size(sum(size for size, _ in sizes))}: {largest}. "
        f"`{settings.COMMAND} prune` lists unused files.",
    )


def _disk_usage(path: Path, until: float) -> int:
    """Return the bytes that a file or directory occupies. Counting stops at the time `until`."""
    try:
        stats = path.lstat()
        if not stat.S_ISDIR(stats.st_mode):
            return stats.st_blocks * 512
        total = 0
        for inner in path.iterdir():
            if time.monotonic() > until:
                break
            total += _disk_usage(inner, until)
        return total
    except OSError:  # deleted in the meantime, or not readable
        return 0


def _check_secrets(data: Path) -> Iterator[Finding]:
    """Check the permissions and the owner of the data."""
    readable = [
        path for path in (data / "secret_key", settings.RUN_DIR / "supervisord.conf") if _is_open_to_others(path)
    ]
    owner = data.stat().st_uid
    if readable:
        names = " and ".join(map(str, readable))
        message = f"Other users of this machine can read {names}, and with it every stored token and password."
        yield failed("secrets", message, f"`chmod 600 {' '.join(map(str, readable))}`")
    if _is_open_to_others(data):
        mode = f"{stat.S_IMODE(data.stat().st_mode):o}"
        message = f"Other users of this machine can access {data} (mode {mode})."
        yield warning("secrets", message, f"`chmod 700 {data}`")
    if owner != os.geteuid():
        message = f"{data} belongs to user {owner}, but doctor runs as user {os.geteuid()}: one can lock out the other."
        yield warning("secrets", message, "Run the site and its commands as the owner of the data.")
    if not readable and not _is_open_to_others(data):
        yield ok("secrets", "Other users of this machine can't read the data and the secret key.")


def _is_open_to_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)

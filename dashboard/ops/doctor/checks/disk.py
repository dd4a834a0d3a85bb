"""The disk: room for what comes, what takes the room, and who may read the secrets on it."""

import os
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from dashboard.ops.doctor import mounts
from dashboard.ops.doctor.finding import Asked, Finding, failed, many, ok, size, warning

MB, GB = 1024**2, 1024**3
# Too little: less than both of these shares and sizes, or less than the size alone where that is written first.
LITTLE, LITTLE_SHARE, PLENTY = 2 * GB, 0.10, 20 * GB
VERY_LITTLE, VERY_LITTLE_SHARE = 200 * MB, 0.02
FEW_FILES, VERY_FEW_FILES = 0.05, 0.01  # shares of all inodes
ADVICE = (
    f"Free some: `{settings.COMMAND} prune` shows and removes what nothing uses; or move DATA_DIR to a larger disk."
)
COUNTING = 1.5  # seconds for adding up folders
COUNTED = 600  # seconds that the sums are good for


def check(asked: Asked) -> Iterator[Finding]:
    data: Path = settings.DATA_DIR
    yield _room(data, "disk")
    yield _files(data, "disk")
    if data.stat().st_dev != settings.TMP_DIR.stat().st_dev:
        yield _room(settings.TMP_DIR, "temporary files")
        says = f"{settings.TMP_DIR} lies on another disk than {data}: finished files cannot be renamed into place."
        yield warning("temporary files", says, "Let both lie on the same disk.")
    yield _folders(int(time.time() // COUNTED))
    yield from _secrets(data)


def _room(folder: Path, part: str) -> Finding:
    found = os.statvfs(folder)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    share = free / whole if whole else 1.0
    says = f"{size(free)} of {size(whole)} are free ({share:.0%}) on {mounts.of(folder).point}, where {folder} lies."
    if free < VERY_LITTLE or (share < VERY_LITTLE_SHARE and free < LITTLE):
        return failed(part, f"{says} Uploads, builds and soon every change fail.", ADVICE)
    if free < LITTLE or (share < LITTLE_SHARE and free < PLENTY):
        return warning(part, says, ADVICE)
    return ok(part, says)


def _files(folder: Path, part: str) -> Finding:
    found = os.statvfs(folder)
    if not found.f_files:  # this kind of disk has no such limit
        return ok(part, "It has no limit on the number of files.")
    share = found.f_favail / found.f_files
    says = f"Room for {many(found.f_favail, 'more file')} ({share:.0%} of its inodes)."
    if share < FEW_FILES:
        kind = failed if share < VERY_FEW_FILES else warning
        return kind(part, says, ADVICE)
    return ok(part, says)


@lru_cache(maxsize=1)
def _folders(period: int) -> Finding:
    """What takes how much, largest first. Added up once per `period`, for it means looking at every file."""
    until = time.monotonic() + COUNTING
    sums = sorted(((_sum(path, until), path.name) for path in settings.DATA_DIR.iterdir()), reverse=True)
    most = ", ".join(f"{name} {size(count)}" for count, name in sums[:4] if count)
    at_least = "at least " if time.monotonic() > until else ""
    return ok(
        "data",
        f"It holds {at_least}{size(sum(count for count, _ in sums))}: {most}. "
        f"`{settings.COMMAND} prune` shows what is unused.",
    )


def _sum(path: Path, until: float) -> int:
    """The bytes that a file or a folder takes on the disk, counted until the time is up."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return found.st_blocks * 512
        total = 0
        for inner in path.iterdir():
            if time.monotonic() > until:
                break
            total += _sum(inner, until)
        return total
    except OSError:  # removed meanwhile, or not ours to read
        return 0


def _secrets(data: Path) -> Iterator[Finding]:
    """Whether others of this machine can read the data, and whether it is ours at all."""
    open_files = [
        path for path in (data / "secret_key", settings.RUN_DIR / "supervisord.conf") if _open_to_others(path)
    ]
    owner = data.stat().st_uid
    if open_files:
        names = " and ".join(map(str, open_files))
        says = f"Others of this machine may read {names}, and with it every stored token and password."
        yield failed("secrets", says, f"`chmod 600 {' '.join(map(str, open_files))}`")
    if _open_to_others(data):
        says = f"Others of this machine may look into {data} (mode {stat.S_IMODE(data.stat().st_mode):o})."
        yield warning("secrets", says, f"`chmod 700 {data}`")
    if owner != os.geteuid():
        says = f"{data} belongs to user {owner}, but this runs as user {os.geteuid()}: one may shut out the other."
        yield warning("secrets", says, "Run the site and its commands as the owner of its data.")
    if not open_files and not _open_to_others(data):
        yield ok("secrets", "The data and the secret key are closed to others of this machine.")


def _open_to_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)

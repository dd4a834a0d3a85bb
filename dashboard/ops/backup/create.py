"""Backup of the database and of all files that can't be recreated, while the site is in use: `manage.py backup`.

A snapshot of the database is written first, then the files, so every file that the snapshot refers to is included.
Files never change after they are written; those added during the backup are harmless. Unpacked layers, caches, routes,
static files and the queue are left out, because they are recreated. See docs/decisions/0012-backups.md.
"""

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from dashboard.ops.backup.archive import NAME, Writer
from dashboard.ops.backup.database import Snapshot, is_empty, snapshot
from dashboard.ops.startup.data_dir import require_finished_restore, require_recorded_database
from dashboard.version import __version__
from mms.system.locks import locked

ABOUT, KEY, FALLBACKS, URLS = "about.json", "secret_key", "secret_key_fallbacks", "files_urls"
CONTENTS_WARNING = (
    "It contains the secret key of the site. Anyone who can read it can decrypt every stored token and password, and "
    "sign in as any user. Protect it like the site itself."
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class BackupError(Exception):
    """No backup was written. The message gives the reason and the fix."""


@dataclass(frozen=True)
class Part:
    """Files below `root` that match `patterns`, in this order. In the archive, their names start with `prefix`.

    `by_digest`: the name of a file, if as long as a SHA-256 digest, is the digest of its contents.
    """

    label: str
    root: Path
    prefix: str
    patterns: tuple[str, ...]
    by_digest: bool = False


@dataclass
class PartSummary:
    """The files of one part in the archive."""

    label: str
    count: int = 0
    size: int = 0  # bytes
    missing: int = 0  # deleted during the backup
    damaged: int = 0  # their contents don't match the digest in their name


def backup_parts() -> list[Part]:
    """Return the parts of this installation, or of this half of it."""
    uploads, mms = settings.FILES_DIR, settings.MMS_DIR
    # The index first: a build writes blobs before it adds them to the index.
    images = ("oci/index.json", "oci/oci-layout", "known/*.json", "oci/blobs/sha256/*")
    return [
        Part("uploads", uploads, "files", ("[0-9a-f][0-9a-f]/*",), by_digest=True),
        Part("images", mms, "mms", images, by_digest=True),
        Part("build logs", mms, "mms", ("builds/*.log",)),
        Part("service logs", mms, "mms", ("services/*/*.log*",)),
    ]


def create_backup(file: BinaryIO, report: Callable[[PartSummary], None], *, with_database: bool = True) -> int:
    """Write a backup to `file` and return its size in bytes. Call `report` after each part.

    Raises BackupError and OSError, and ImproperlyConfigured if files and database may not match.
    """
    with backup_lock():
        require_finished_restore()
        if settings.SECRET_KEY_IS_MISSING:
            raise BackupError(
                f"The file with the secret key is missing in {settings.DATA_DIR}, so the backup couldn't be used. "
                "Restore the key first."
            )
        if with_database:
            require_recorded_database()
        return write_archive(file, report, with_database=with_database)


@contextmanager
def backup_lock() -> Iterator[None]:
    """Hold the lock that excludes other backups, restores and prunes. Raises BackupError if it is held already."""
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as is_locked:
        if not is_locked:
            raise BackupError("A backup, restore or prune is already running. Wait until it ends, then retry.")
        yield


def write_archive(
    file: BinaryIO, report: Callable[[PartSummary], None], *, with_database: bool = True, with_files: bool = True
) -> int:
    """Write the backup. The caller must hold `backup_lock` and have checked that files and database match."""
    writer = Writer(file)
    try:
        if with_database and is_empty():
            raise BackupError("There is nothing to back up: the site was never started with this database.")
        with snapshot() if with_database else nullcontext() as current:
            _add_metadata(writer, current)
            if current:
                report(_add_database(writer, current))
    except (DatabaseError, sqlite3.Error) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackupError(
            f"Couldn't read the database: {reason}. Run `{settings.COMMAND} doctor` to find out what to do."
        ) from None
    for part in backup_parts() if with_files else []:
        report(_add_part(writer, part))
    writer.finish()
    return writer.size


def _add_metadata(writer: Writer, current: Snapshot | None) -> None:
    writer.add_bytes(ABOUT, json.dumps(_about(current), indent=1).encode())
    writer.add_bytes(KEY, settings.SECRET_KEY.encode())
    writer.add_bytes(FALLBACKS, ",".join(settings.SECRET_KEY_FALLBACKS).encode())
    urls = settings.FILES_URLS_PATH
    writer.add_bytes(URLS, urls.read_bytes() if urls.exists() else f"{settings.FILES_URL}\n".encode())


def _about(current: Snapshot | None) -> dict[str, Any]:
    database = current and {
        "vendor": current.vendor,
        "migrations": current.migrations,
        "tables": [asdict(table) for table in current.tables],
    }
    return {
        "what": f"Backup of a {settings.PROJECT_NAME}. {CONTENTS_WARNING}",
        "version": __version__,
        "made_at": timezone.now().isoformat(),
        "serves": sorted(settings.SERVE),
        "database": database,
    }


def _add_database(writer: Writer, current: Snapshot) -> PartSummary:
    summary = PartSummary(f"database, {current.rows} rows")
    for name, file in current.members:
        before = writer.size
        writer.add(name, file)
        summary.count, summary.size = summary.count + 1, summary.size + writer.size - before
    return summary


def _add_part(writer: Writer, part: Part) -> PartSummary:
    summary = PartSummary(part.label)
    for path in _files(part):
        name = f"{part.prefix}/{path.relative_to(part.root).as_posix()}"
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                digest = writer.add(name, file, stat.st_mode & 0o777)
        except FileNotFoundError:
            summary.missing += 1
            continue
        summary.count, summary.size = summary.count + 1, summary.size + stat.st_size
        summary.damaged += part.by_digest and len(path.name) == len(digest) and path.name != digest
    return summary


def _files(part: Part) -> Iterator[Path]:
    """Yield the files of a part. A directory is listed only after the files of the previous pattern are written."""
    for pattern in part.patterns:
        for path in sorted(part.root.glob(pattern)):
            if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                yield path


@contextmanager
def atomic_output_file(path: Path, force: bool) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to `path` once it is complete and on disk. Only the owner can read it.

    Raises BackupError if it can't be written, or if `path` exists and `force` is False.
    """
    _check_replaceable(path, force)
    partial = path.with_name(f"{path.name}.partial")
    with open(_open_and_lock(partial), "wb") as file:
        try:
            _check_replaceable(path, force)  # checked again, because another backup may have finished in the meantime
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    _sync_directory(path.parent)


def _check_replaceable(path: Path, force: bool) -> None:
    if path.is_dir():
        raise BackupError(f"{path} is a directory. Choose a file name.")
    if path.exists() and not force:
        raise BackupError(f"{path} already exists. Choose another name, or replace it with --force.")


def _open_and_lock(partial: Path) -> int:
    """Open, lock and truncate the file, which may be left over from a killed backup. Return its descriptor."""
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackupError(f"Couldn't write {partial}: {error.strerror}. Choose another file.") from None
    if not _lock(descriptor, partial):
        os.close(descriptor)
        raise BackupError(f"Another backup is writing {partial}. Choose another name, or wait until it ends.")
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)
    return descriptor


def _lock(descriptor: int, partial: Path) -> bool:
    """Lock the file. Return False if another process holds the lock, or renamed the file before we could lock it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), partial.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def private_files() -> Iterator[None]:
    """Create files readable by the owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def user_message(error: OSError) -> str:
    """Return an error message that names the cause and the fix."""
    if error.errno in DISK_FULL:
        return f"The disk is full. Free some space on it and in {settings.TMP_DIR}, then retry."
    name = error.filename or "a file"
    return f"Couldn't read or write {name}: {error.strerror or error}. Check its path, owner and disk, then retry."

"""A backup of everything worth keeping, taken while the site works: `manage.py backup`.

The database comes first, as of one moment, and then the files: whatever that database names was on disk by then.
Files never change once they are there, so one that appears meanwhile is at most too much. What can be made again
(unpacked layers, caches, routes, static files, the queue) is left out. See docs/decisions/0012-backups.md.
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
from dashboard.ops.startup.data_dir import refuse_another_database, refuse_half_a_restore
from dashboard.version import __version__
from mms.system.locks import locked

ABOUT, KEY, FALLBACKS, URLS = "about.json", "secret_key", "secret_key_fallbacks", "files_urls"
WARNING = (
    "It contains the site's secret key. Anyone who has it can read every stored token and password and sign in as "
    "any user. Protect it like the site itself."
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Failed(Exception):
    """There is no backup. The text says why and what to do."""


@dataclass(frozen=True)
class Part:
    """Files below `root` that match `patterns`, in this order; in the archive below `prefix`."""

    what: str
    root: Path
    prefix: str
    patterns: tuple[str, ...]
    by_digest: bool = False  # named by the sha256 of what they hold, at least those whose name looks so


@dataclass
class Held:
    """How much of one part is in the archive."""

    what: str
    count: int = 0
    size: int = 0  # bytes
    gone: int = 0  # deleted while the backup was made
    damaged: int = 0  # do not hold what their names say


def parts() -> list[Part]:
    """The folders of this installation, or of this half of it."""
    uploads, mms = settings.FILES_DIR, settings.MMS_DIR
    # An index comes before the blobs it names: who adds to both writes the blobs first.
    images = ("oci/index.json", "oci/oci-layout", "known/*.json", "oci/blobs/sha256/*")
    return [
        Part("uploads", uploads, "files", ("[0-9a-f][0-9a-f]/*",), by_digest=True),
        Part("images", mms, "mms", images, by_digest=True),
        Part("build logs", mms, "mms", ("builds/*.log",)),
        Part("service logs", mms, "mms", ("services/*/*.log*",)),
    ]


def back_up(file: BinaryIO, say: Callable[[Held], None], *, with_database: bool = True) -> int:
    """Write a backup to `file` and `say` what is in it, part by part; returns its bytes.

    Raises Failed and OSError, and ImproperlyConfigured where the data here does not belong together.
    """
    with files_stay():
        refuse_half_a_restore()
        if with_database:
            refuse_another_database()
        return write(file, say, with_database=with_database)


@contextmanager
def files_stay() -> Iterator[None]:
    """Nobody prunes meanwhile, or makes another backup, or puts one in place. Raises Failed where somebody is at it."""
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as alone:
        if not alone:
            raise Failed("A backup, restore or prune is already running. Try again when it has finished.")
        yield


def write(file: BinaryIO, say: Callable[[Held], None], *, with_database: bool = True, with_files: bool = True) -> int:
    """What `back_up` does, for who knows that the files stay and belong to the database."""
    writer = Writer(file)
    try:
        if with_database and is_empty():
            raise Failed("There is nothing to back up: the site has never been started with this database.")
        with snapshot() if with_database else nullcontext() as found:
            _add_small_things(writer, found)
            if found:
                say(_add_database(writer, found))
    except (DatabaseError, sqlite3.Error) as error:
        raise Failed(f"Couldn't read the database: {str(error).strip().splitlines()[0]}.") from None
    for part in parts() if with_files else []:
        say(_add_part(writer, part))
    writer.finish()
    return writer.size


def _add_small_things(writer: Writer, found: Snapshot | None) -> None:
    writer.add_bytes(ABOUT, json.dumps(_about(found), indent=1).encode())
    writer.add_bytes(KEY, settings.SECRET_KEY.encode())
    writer.add_bytes(FALLBACKS, ",".join(settings.SECRET_KEY_FALLBACKS).encode())
    urls = settings.FILES_URLS_PATH
    writer.add_bytes(URLS, urls.read_bytes() if urls.exists() else f"{settings.FILES_URL}\n".encode())


def _about(found: Snapshot | None) -> dict[str, Any]:
    database = found and {
        "vendor": found.vendor,
        "migrations": found.migrations,
        "tables": [asdict(table) for table in found.tables],
    }
    return {
        "what": f"Backup of a {settings.PROJECT_NAME}. {WARNING}",
        "version": __version__,
        "made_at": timezone.now().isoformat(),
        "serves": sorted(settings.SERVE),
        "database": database,
    }


def _add_database(writer: Writer, found: Snapshot) -> Held:
    held = Held(f"database, {found.rows} rows")
    for name, file in found.members:
        before = writer.size
        writer.add(name, file)
        held.count, held.size = held.count + 1, held.size + writer.size - before
    return held


def _add_part(writer: Writer, part: Part) -> Held:
    held = Held(part.what)
    for path in _files(part):
        name = f"{part.prefix}/{path.relative_to(part.root).as_posix()}"
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                digest = writer.add(name, file, stat.st_mode & 0o777)
        except FileNotFoundError:
            held.gone += 1
            continue
        held.count, held.size = held.count + 1, held.size + stat.st_size
        held.damaged += part.by_digest and len(path.name) == len(digest) and path.name != digest
    return held


def _files(part: Part) -> Iterator[Path]:
    """What there is, pattern by pattern: each folder is looked at only when those before it are written."""
    for pattern in part.patterns:
        for path in sorted(part.root.glob(pattern)):
            if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                yield path


@contextmanager
def whole_file(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A file beside `path`, for the owner alone, that takes its name once it is whole and on disk. Raises Failed."""
    _refuse_to_replace(path, force)
    partial = path.with_name(f"{path.name}.partial")
    with open(_taken(partial), "wb") as file:
        try:
            _refuse_to_replace(path, force)  # again: another backup may have been finished in between
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _refuse_to_replace(path: Path, force: bool) -> None:
    if path.is_dir() or (path.exists() and not force):
        raise Failed(f"{path} already exists. Choose another name, or replace it with --force.")


def _taken(partial: Path) -> int:
    """The file, empty: nobody else writes it, and what a killed backup left there is dropped."""
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failed(f"Couldn't write {partial}: {error.strerror}.") from None
    if not _is_ours(descriptor, partial):
        os.close(descriptor)
        raise Failed(f"Another backup is writing {partial}.")
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)
    return descriptor


def _is_ours(descriptor: int, partial: Path) -> bool:
    """Lock the file; False where another has it, or gave it its name between our opening it and locking it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), partial.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def for_the_owner_alone() -> Iterator[None]:
    """What is made meanwhile nobody else may read."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def in_words(error: OSError) -> str:
    """What stopped a backup or a restore, for people."""
    if error.errno in NO_ROOM:
        return f"The disk is full. Free some space there and in {settings.TMP_DIR}, then try again."
    return f"Couldn't read or write {error.filename or 'a file'}: {error.strerror or error}."

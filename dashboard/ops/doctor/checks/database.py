"""The database: connection, write access, tables of this release, and the key that its secrets are encrypted with."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import Error, OperationalError, connection, transaction

from dashboard.ops.doctor import mounts
from dashboard.ops.doctor.finding import CheckContext, Finding, failed, milliseconds, ok, pluralize, warning
from dashboard.ops.startup import data_dir, migrate
from encryption import check as check_key

PART = "database"
TIMEOUT_SECONDS = 2.0
SLOW_LOCK_SECONDS = 0.5  # writers usually hold the lock for milliseconds
MIN_BUSY_TIMEOUT_MS = 5000  # because several processes write to the same file
KEY_TABLE = ("encryption", "0001_initial")
WRITE_LOCK_OFFSET = "120"  # of the write lock in the -shm file of SQLite, as in /proc/locks


def check(context: CheckContext) -> Iterator[Finding]:
    """Check the database of the site. A thorough check reads every page of an SQLite file."""
    yield from _check_restore()
    file = _sqlite_file()
    if file and not file.exists():
        yield failed(
            PART, f"There is no database at {file}.", f"Start the site to create it: `{settings.START_COMMAND}`."
        )
        return
    try:
        yield _check_responds(file)
    except Error as error:
        advice = f"Check {file} and its disk." if file else "Check that it is running at the address in DATABASE_URL."
        yield failed(PART, f"Not responding: {_first_line(error)}.", advice)
        return
    if file:
        yield _check_file_writable(file)
        yield from _check_file_sharing(file)
    elif migrate.applied():
        yield _check_server_writable()
    yield from _check_tables()
    if KEY_TABLE in migrate.applied():
        yield check_secret_key()
    if file and context.thorough:
        yield _check_integrity(file)


def check_secret_key() -> Finding:
    """Check that the secrets in the database are encrypted with the site's key."""
    if problem := check_key.key_problem():
        check_key.withdraw_new_key()
        reason, _, advice = problem.partition(". ")
        return failed("secret key", f"{reason}.", advice)
    return ok("secret key", "It matches the secrets in the database.")


def _check_restore() -> Iterator[Finding]:
    with suppress(FileNotFoundError):
        command = data_dir.unfinished_restore().read_text().strip() or f"{settings.COMMAND} restore FILE"
        message = "A restore is unfinished. The database may not match the files, so the site doesn't start."
        yield failed(PART, message, f"If no restore is running, run the command again: `{command}`.")


def require_database() -> None:
    """Raise OperationalError if there is no database file. Connecting would create an empty one."""
    if (file := _sqlite_file()) and not file.exists():
        raise OperationalError(f"There is no database at {file}.")


def _sqlite_file() -> Path | None:
    """Return the file of an SQLite database, or None for a database server."""
    return Path(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else None


def _check_responds(file: Path | None) -> Finding:
    started = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1" if file else "SHOW server_version")
        version = f"SQLite {sqlite3.sqlite_version}" if file else f"PostgreSQL {cursor.fetchone()[0]}"
    elapsed = milliseconds(time.monotonic() - started)
    return ok(PART, f"{version} responds in {elapsed}{f' (file {file})' if file else ''}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


# --- SQLite -------------------------------------------------------------------------------------------------------


def _connect(file: Path, timeout: float) -> sqlite3.Connection:
    """Return a connection that doesn't create the file and starts no transaction of its own."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)


def _check_file_writable(file: Path) -> Finding:
    """Acquire and release the lock that writers need."""
    link, started = _connect(file, TIMEOUT_SECONDS), time.monotonic()
    try:
        link.execute("BEGIN IMMEDIATE")
        link.execute("ROLLBACK")
    except sqlite3.Error as error:
        return _not_writable(file, error)
    finally:
        link.close()
    elapsed = time.monotonic() - started
    if elapsed > SLOW_LOCK_SECONDS:
        message = f"Writable, but only after waiting {elapsed:.1f} s for another writer."
        return warning(PART, message, "If this persists, look for a long transaction: a restore, a script or a shell.")
    return ok(PART, f"Writable; the write lock was free after {milliseconds(elapsed)}.")


def _not_writable(file: Path, error: sqlite3.Error) -> Finding:
    if "locked" not in str(error):
        return failed(PART, f"Not writable: {_first_line(error)}.", f"Check the owner and the disk of {file}.")
    holder = _lock_holder(Path(f"{file}-shm"))
    message = f"Locked: another program has held the write lock for more than {TIMEOUT_SECONDS:g} s."
    advice = (
        f"If process {holder} hangs, stop it." if holder else f"`fuser {file}` lists the programs that have it open."
    )
    return failed(PART, message, f"Until the lock is released, nothing can be saved. {advice}")


def _lock_holder(shared: Path) -> str:
    """Return the process that holds SQLite's write lock, as "1234 (python)", or "" if unknown."""
    try:
        inode = str(shared.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, mode, pid, where, start, _ = line.split(maxsplit=7)
            if (kind, mode, start) == ("POSIX", "WRITE", WRITE_LOCK_OFFSET) and where.rpartition(":")[2] == inode:
                return f"{pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except (OSError, ValueError):
        pass
    return ""


def _check_file_sharing(file: Path) -> Iterator[Finding]:
    """Check the settings for sharing one file, on a connection configured like those of the programs."""
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        timeout = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
    file_system = mounts.find_mount(file).type
    if mode != "wal":
        message = f'The journal mode is "{mode}" instead of WAL, so readers and writers block each other.'
        yield failed(PART, message, "WAL needs a local disk: move DATA_DIR to one.")
    if timeout < MIN_BUSY_TIMEOUT_MS:
        message = f"Programs wait only {timeout} ms for the write lock."
        yield failed(PART, message, "Several processes share the file: set `timeout` in settings.DATABASES to 20.")
    if file_system in mounts.REMOTE_TYPES:
        message = f"The file is on a network file system ({file_system}), where SQLite's locks are unreliable."
        yield failed(PART, message, "Move DATA_DIR to a local disk, or use PostgreSQL (DATABASE_URL).")
    elif mode == "wal" and timeout >= MIN_BUSY_TIMEOUT_MS:
        yield ok(PART, f"WAL on a local disk ({file_system}); writers wait up to {timeout / 1000:g} s for the lock.")


def _check_integrity(file: Path) -> Finding:
    started = time.monotonic()
    link = _connect(file, TIMEOUT_SECONDS)
    try:
        errors = [row[0] for row in link.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        errors = [_first_line(error)]
    finally:
        link.close()
    if errors == ["ok"]:
        return ok(PART, f"Every page of the file is intact (checked in {time.monotonic() - started:.1f} s).")
    advice = f"Stop the site, keep a copy of the file, and restore the last backup: `{settings.COMMAND} restore FILE`."
    return failed(PART, f"The file is damaged: {'; '.join(errors)}.", advice)


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def _check_server_writable() -> Finding:
    """Run an update that matches no rows. A read-only server rejects it."""
    started = time.monotonic()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {TIMEOUT_SECONDS * 1000:.0f}")
            cursor.execute("UPDATE django_migrations SET name = name WHERE false")
    except Error as error:
        advice = "Check whether it is a standby, its disk is full, or its user lacks privileges."
        return failed(PART, f"Not writable: {_first_line(error)}.", advice)
    return ok(PART, f"Writable, in {milliseconds(time.monotonic() - started)}.")


# --- tables -------------------------------------------------------------------------------------------------------


def _check_tables() -> Iterator[Finding]:
    """Check that the tables are those of this release, neither older nor newer."""
    on_disk, newer = migrate.on_disk(), migrate.unknown()
    if missing := on_disk - migrate.applied():
        count = pluralize(len(missing), "migration")
        message = f"The tables are too old: {count} not applied ({migrate.format_names(missing)})."
        yield failed(PART, message, "Restart the site to apply them.")
    if newer:
        message = f"The tables belong to a newer release: it applied {migrate.format_names(newer)}."
        yield failed(PART, message, "Install that release again, or restore a backup made before the upgrade.")
    if not missing and not newer:
        yield ok(PART, f"All {len(on_disk)} migrations are applied.")

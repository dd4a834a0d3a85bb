"""The database: does it answer, can it be written, and is it the one that this version of the site wants?"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import Error, OperationalError, connection, transaction

from dashboard.ops.doctor import mounts
from dashboard.ops.doctor.finding import Asked, Finding, failed, many, milliseconds, ok, warning
from dashboard.ops.startup import data_dir, migrate

PART = "database"
PATIENCE = 2.0  # seconds
SLOW = 0.5  # seconds until the lock was free; writers usually hold it for milliseconds
BUSY_TIMEOUT = 5000  # milliseconds, at least: several processes write to the same file
WRITE_LOCK = "120"  # where in the file -shm SQLite's writers lock each other out, as /proc/locks has it


def check(asked: Asked) -> Iterator[Finding]:
    yield from _half_restored()
    file = _file()
    if file and not file.exists():
        yield failed(
            PART, f"There is no database at {file} yet.", f"Start the site, which makes it: `{settings.START_COMMAND}`."
        )
        return
    try:
        yield _answers(file)
    except Error as error:
        advice = f"Look at {file} and at the disk it lies on." if file else "Is it running where DATABASE_URL says?"
        yield failed(PART, f"It does not answer: {_first_line(error)}.", advice)
        return
    if file:
        yield _written_to_file(file)
        yield from _shared_well(file)
    elif migrate.applied():
        yield _written_to_server()
    yield from _tables()
    if file and asked.thorough:
        yield _is_whole(file)


def _half_restored() -> Iterator[Finding]:
    with suppress(FileNotFoundError):
        again = data_dir.unfinished_restore().read_text().strip() or f"{settings.COMMAND} restore FILE"
        says = "A restore is not finished: database and files may not belong together, and the site does not start."
        yield failed(PART, says, f"If none is running just now, run the same command again: `{again}`.")


def must_exist() -> None:
    """Raise an Error where there is no database: SQLite would make an empty one for whoever asks."""
    if (file := _file()) and not file.exists():
        raise OperationalError(f"There is no database at {file}.")


def _file() -> Path | None:
    """The file of an SQLite database; None for a server."""
    return Path(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else None


def _answers(file: Path | None) -> Finding:
    started = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1" if file else "SHOW server_version")
        version = f"SQLite {sqlite3.sqlite_version}" if file else f"PostgreSQL {cursor.fetchone()[0]}"
    took = milliseconds(time.monotonic() - started)
    return ok(PART, f"{version} answers in {took}{f', from {file}' if file else ''}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


# --- a file -------------------------------------------------------------------------------------------------------


def _open(file: Path, seconds: float) -> sqlite3.Connection:
    """A connection of our own, which makes no file, writes nothing by itself and gives up soon."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=seconds, isolation_level=None)


def _written_to_file(file: Path) -> Finding:
    """Take the lock that a writer needs, and give it back."""
    link, started = _open(file, PATIENCE), time.monotonic()
    try:
        link.execute("BEGIN IMMEDIATE")
        link.execute("ROLLBACK")
    except sqlite3.Error as error:
        return _not_written(file, error)
    finally:
        link.close()
    took = time.monotonic() - started
    if took > SLOW:
        says = f"It can be written, but only after waiting {took:.1f} s for another writer."
        return warning(PART, says, "If this goes on, look for what writes for so long: a restore, a script, a shell.")
    return ok(PART, f"It can be written; the lock was free after {milliseconds(took)}.")


def _not_written(file: Path, error: sqlite3.Error) -> Finding:
    if "locked" not in str(error):
        return failed(
            PART, f"It cannot be written: {_first_line(error)}.", f"Look at the owner and the disk of {file}."
        )
    holder = _holder(Path(f"{file}-shm"))
    says = f"It is locked: another program has held the write lock for more than {PATIENCE:g} s."
    end = f"It is process {holder}; end it if it hangs." if holder else f"`fuser {file}` names who has it open."
    return failed(PART, says, f"Nobody can save anything until that ends. {end}")


def _holder(shared: Path) -> str:
    """The process that holds SQLite's write lock, as "1234 (python)"; "" where the kernel does not tell."""
    try:
        inode = str(shared.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, mode, pid, where, start, _ = line.split(maxsplit=7)
            if (kind, mode, start) == ("POSIX", "WRITE", WRITE_LOCK) and where.rpartition(":")[2] == inode:
                return f"{pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except (OSError, ValueError):
        pass
    return ""


def _shared_well(file: Path) -> Iterator[Finding]:
    """What several processes on one file need; asked of a connection like every program's."""
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        timeout = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
    kind = mounts.of(file).kind
    if mode != "wal":
        says = f"Its journal mode is “{mode}” where it should be WAL: readers and writers lock each other out."
        yield failed(PART, says, "WAL needs a local disk: move DATA_DIR to one.")
    if timeout < BUSY_TIMEOUT:
        says = f"A program waits only {timeout} ms for the write lock."
        yield failed(PART, says, "Several processes share the file: set `timeout` in settings.DATABASES to 20.")
    if kind in mounts.REMOTE:
        says = f"It lies on a disk of another machine ({kind}), where SQLite's locks cannot be relied on."
        yield failed(PART, says, "Move DATA_DIR to a local disk, or use PostgreSQL: DATABASE_URL.")
    elif mode == "wal" and timeout >= BUSY_TIMEOUT:
        yield ok(PART, f"WAL on a local disk ({kind}); a writer waits up to {timeout / 1000:g} s for its turn.")


def _is_whole(file: Path) -> Finding:
    started = time.monotonic()
    link = _open(file, PATIENCE)
    try:
        faults = [row[0] for row in link.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        faults = [_first_line(error)]
    finally:
        link.close()
    if faults == ["ok"]:
        return ok(PART, f"Every page of the file is sound (looked at in {time.monotonic() - started:.1f} s).")
    advice = f"Stop the site, keep a copy of the file, and restore the last backup: `{settings.COMMAND} restore FILE`."
    return failed(PART, f"The file is damaged: {'; '.join(faults)}.", advice)


# --- a server -----------------------------------------------------------------------------------------------------


def _written_to_server() -> Finding:
    """Write nothing, in a transaction: a server that only reads refuses even that."""
    started = time.monotonic()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {PATIENCE * 1000:.0f}")
            cursor.execute("UPDATE django_migrations SET name = name WHERE false")
    except Error as error:
        advice = "Is it a standby, is its disk full, or does its user lack the right to write?"
        return failed(PART, f"It cannot be written: {_first_line(error)}.", advice)
    return ok(PART, f"It can be written, in {milliseconds(time.monotonic() - started)}.")


# --- tables -------------------------------------------------------------------------------------------------------


def _tables() -> Iterator[Finding]:
    """Whether its tables are those of this version, neither older nor newer."""
    on_disk, newer = migrate.on_disk(), migrate.unknown()
    if missing := on_disk - migrate.applied():
        says = f"Its tables are too old: {many(len(missing), 'migration')} not applied ({migrate.names(missing)})."
        yield failed(PART, says, "Restart the site, which applies them.")
    if newer:
        says = f"A newer version has changed its tables, by {migrate.names(newer)}."
        yield failed(PART, says, "Run that version again, or restore a backup made before it.")
    if not missing and not newer:
        yield ok(PART, f"All {len(on_disk)} migrations are applied.")

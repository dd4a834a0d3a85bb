"""Atomic replacement of the database with that of a backup."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection, transaction

from dashboard.audit.models import PRUNING_TABLE, START_PRUNING
from dashboard.ops.backup.archive import BLOCK_BYTES
from dashboard.ops.backup.database import SQLITE_MEMBER, TABLE_MEMBERS, Table, column_list, our_tables, quoted
from dashboard.ops.startup import migrate
from dashboard.ops.startup.prepare import migration_lock
from deployments import restored
from mms import changes

DISCONNECT_SECONDS = 5.0  # seconds to wait for other clients to disconnect
VENDOR_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class RestoreError(Exception):
    """Nothing was restored or changed. The message gives the reason and the fix."""


@dataclass(frozen=True)
class DatabaseInfo:
    """The metadata of the database in a backup."""

    vendor: str
    migrations: set[migrate.Migration]
    tables: list[Table]


def check_compatible(info: DatabaseInfo) -> None:
    """Raise RestoreError if the database of a backup can't be used here."""
    if info.vendor != connection.vendor:
        theirs, ours = (VENDOR_NAMES.get(vendor, vendor) for vendor in (info.vendor, connection.vendor))
        raise RestoreError(
            f"The backup contains a {theirs} database, but this site uses {ours}. Restore it to a site whose "
            f"DATABASE_URL names a {theirs} database."
        )
    if unknown := info.migrations - migrate.on_disk():
        raise RestoreError(
            f"The backup was made by a newer release (unknown here: {migrate.format_names(unknown)}). Install that "
            "release, then retry."
        )


def vendor() -> str:
    """Return the kind of the database of this site: "sqlite" or "postgresql"."""
    return connection.vendor


def has_data() -> bool:
    """Return True if the site has used the database."""
    if connection.vendor == "sqlite":
        return _file().exists() and _file().stat().st_size > 0
    return bool(migrate.applied())


def other_users() -> str:
    """Return a description of the other users of the database, or "" if no one else uses it."""
    if connection.vendor == "sqlite":
        return _other_users_of_file() if has_data() else ""
    until = time.monotonic() + DISCONNECT_SECONDS
    while (count := _other_connections()) and time.monotonic() < until:
        time.sleep(0.1)  # the server needs a moment to notice that a client was killed, such as a previous restore
    return f"{count} other connections" if count > 1 else "another connection" if count else ""


def _other_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        count: int = cursor.fetchone()[0]
    return count


def _other_users_of_file() -> str:
    """Return the other users of the file. Merge the -wal file into it, so that the database is a single file."""
    database = sqlite3.connect(_file(), timeout=1)
    try:
        database.execute("PRAGMA journal_mode=DELETE")  # fails while another process has the file open
    except sqlite3.OperationalError:
        return f"another process, which has {_file()} open"
    except sqlite3.DatabaseError:  # a damaged file is moved as it is
        pass
    finally:
        database.close()
    return ""


def _file() -> Path:
    return Path(connection.settings_dict["NAME"])


def upgrade_staged_file(staging: Path, made_at: datetime) -> int:
    """Migrate an unpacked SQLite database before it is moved. Return the number of operations marked as uncertain."""
    if connection.vendor != "sqlite":
        return 0
    with _connected_to(staging / SQLITE_MEMBER):
        return _upgrade(made_at)


def upgrade_loaded_tables(made_at: datetime) -> int:
    """Migrate the tables loaded into PostgreSQL. Return the number of operations marked as uncertain."""
    return _upgrade(made_at) if connection.vendor == "postgresql" else 0


@contextmanager
def _connected_to(path: Path) -> Iterator[None]:
    original = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = str(path)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = original
        path.with_name(f"{path.name}.migrate").unlink(missing_ok=True)


def _upgrade(made_at: datetime) -> int:
    with migration_lock():
        migrate.migrate()
    changes.expire_cursors()
    return restored.mark_queued_uncertain(made_at)


def replace_database(staging: Path, info: DatabaseInfo, move_away: Callable[[Path], None]) -> None:
    """Replace the database with the unpacked one. `move_away` is called with the files of the previous SQLite database.

    Raises RestoreError if PostgreSQL rejects the data. The database is then unchanged.
    """
    if connection.vendor == "sqlite":
        _replace_file(staging / SQLITE_MEMBER, move_away)
        return
    try:
        _load_tables(staging / TABLE_MEMBERS, info)
    except DatabaseError as error:
        reason = str(error).strip().splitlines()[0]
        raise RestoreError(
            f"PostgreSQL rejected the data: {reason}. The database is unchanged. The log of the server has details."
        ) from None


def _replace_file(staged: Path, move_away: Callable[[Path], None]) -> None:
    connection.close()
    file = _file()
    new = file.with_name(f"{file.name}.new")
    shutil.move(staged, new)  # copies if the database is on another disk
    for suffix in ("", "-wal", "-shm"):  # SQLite would apply the old -wal file to the new database
        move_away(file.with_name(f"{file.name}{suffix}"))
    new.replace(file)


@transaction.atomic
def _load_tables(directory: Path, info: DatabaseInfo) -> None:
    """Create the tables as they were at the time of the backup and load their rows."""
    names = [table.name for table in info.tables]
    with connection.cursor() as cursor:
        if old := our_tables(cursor):
            cursor.execute(f"DROP TABLE {', '.join(map(quoted, old))} CASCADE")
        migrate.migrate_to(info.migrations)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # pending checks would prevent truncating the tables
        if PRUNING_TABLE in names:  # otherwise a trigger rejects truncating the audit log
            cursor.execute(START_PRUNING, ["infinity"])
        cursor.execute(f"TRUNCATE {', '.join(map(quoted, names))}")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")  # tables are loaded in any order
        for table in info.tables:
            _copy_rows(cursor, table, directory / table.name)
        _reset_sequences(cursor, names)


def _copy_rows(cursor: Any, table: Table, path: Path) -> None:
    into = f"COPY {quoted(table.name)} ({column_list(table.columns)}) FROM STDIN"
    with path.open("rb") as file, cursor.copy(into) as copy:
        while part := file.read(BLOCK_BYTES):
            copy.write(part)


def _reset_sequences(cursor: Any, tables: list[str]) -> None:
    """Set the next ID of each table to the one after its highest."""
    for table in tables:
        with suppress(StopIteration):
            column = next(iter(connection.introspection.get_sequences(cursor, table)))["column"]
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence(%s, %s), GREATEST((SELECT max({quoted(column)}) "  # noqa: S608
                f"FROM {quoted(table)}), 1))",
                [quoted(table), column],
            )

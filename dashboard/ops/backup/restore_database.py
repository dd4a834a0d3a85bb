"""Putting the database of a backup in place of the one here, as a whole or not at all."""

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

from dashboard.ops.backup.archive import BLOCK
from dashboard.ops.backup.create import Failed
from dashboard.ops.backup.database import SQLITE_MEMBER, TABLE_MEMBERS, Table, column_list, our_tables, quoted
from dashboard.ops.startup import migrate
from dashboard.ops.startup.prepare import migration_lock
from deployments import restored

LEAVING = 5.0  # seconds that others have to leave the database
KIND = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True)
class Content:
    """What a backup says of the database in it."""

    vendor: str
    migrations: set[migrate.Migration]
    tables: list[Table]


def check(content: Content) -> None:
    """Raise Failed where the database of a backup cannot be used here."""
    if content.vendor != connection.vendor:
        here = KIND.get(connection.vendor, connection.vendor)
        raise Failed(
            f"The backup contains a {KIND.get(content.vendor, content.vendor)} database, but DATABASE_URL names a "
            f"{here} one. Restore a backup into the kind of database it was made from."
        )
    if unknown := content.migrations - migrate.on_disk():
        raise Failed(
            f"The backup was made by a newer release than this one ({migrate.names(unknown)} is unknown here). "
            "Install that release first."
        )


def vendor() -> str:
    return connection.vendor


def is_filled() -> bool:
    """Whether the database here has ever been used."""
    if connection.vendor == "sqlite":
        return _file().exists() and _file().stat().st_size > 0
    return bool(migrate.applied())


def others() -> str:
    """Who else uses the database just now; "" where nobody does."""
    if connection.vendor == "sqlite":
        return _other_users_of_file() if is_filled() else ""
    until = time.monotonic() + LEAVING
    while (count := _other_connections()) and time.monotonic() < until:
        time.sleep(0.1)  # the server takes a moment to notice that a process was killed, a restore say
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
    """Also takes what is in the -wal file into the database itself, so that it can be moved as one file."""
    database = sqlite3.connect(_file(), timeout=1)
    try:
        database.execute("PRAGMA journal_mode=DELETE")  # refused while anybody else has the file open
    except sqlite3.OperationalError:
        return f"another process that has {_file()} open"
    except sqlite3.DatabaseError:  # damaged: it is moved as it is
        pass
    finally:
        database.close()
    return ""


def _file() -> Path:
    return Path(connection.settings_dict["NAME"])


def prepare(folder: Path, made_at: datetime) -> int:
    """Bring an unpacked SQLite database up to date where it lies; returns how many operations are in doubt."""
    if connection.vendor != "sqlite":
        return 0
    with _connected_to(folder / SQLITE_MEMBER):
        return _bring_up_to_date(made_at)


def finish(made_at: datetime) -> int:
    """The same for what lies in PostgreSQL by now."""
    return _bring_up_to_date(made_at) if connection.vendor == "postgresql" else 0


@contextmanager
def _connected_to(path: Path) -> Iterator[None]:
    usual = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = str(path)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual
        path.with_name(f"{path.name}.migrate").unlink(missing_ok=True)


def _bring_up_to_date(made_at: datetime) -> int:
    with migration_lock():
        migrate.migrate()
    return restored.mark_queued_uncertain(made_at)


def place(folder: Path, content: Content, move_aside: Callable[[Path], None]) -> None:
    """Put the unpacked database in place. Raises Failed where PostgreSQL does not take it, and leaves all as it was."""
    if connection.vendor == "sqlite":
        return _place_file(folder / SQLITE_MEMBER, move_aside)
    try:
        _load(folder / TABLE_MEMBERS, content)
    except DatabaseError as error:
        reason = str(error).strip().splitlines()[0]
        raise Failed(f"PostgreSQL rejected the data: {reason}. The database wasn't changed.") from None


def _place_file(staged: Path, move_aside: Callable[[Path], None]) -> None:
    connection.close()
    file = _file()
    new = file.with_name(f"{file.name}.new")
    shutil.move(staged, new)  # a copy where the database lies on another disk
    for end in ("", "-wal", "-shm"):  # what belongs to the old database would be taken for a part of the new one
        move_aside(file.with_name(f"{file.name}{end}"))
    new.replace(file)


@transaction.atomic
def _load(folder: Path, content: Content) -> None:
    """Make the tables as they were, and fill them."""
    names = [table.name for table in content.tables]
    with connection.cursor() as cursor:
        if old := our_tables(cursor):
            cursor.execute(f"DROP TABLE {', '.join(map(quoted, old))} CASCADE")
        migrate.migrate_to(content.migrations)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # so that nothing hinders emptying the tables
        cursor.execute(f"TRUNCATE {', '.join(map(quoted, names))}")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")  # tables come in any order
        for table in content.tables:
            _fill(cursor, table, folder / table.name)
        _go_on_counting(cursor, names)


def _fill(cursor: Any, table: Table, path: Path) -> None:
    into = f"COPY {quoted(table.name)} ({column_list(table.columns)}) FROM STDIN"
    with path.open("rb") as file, cursor.copy(into) as copy:
        while part := file.read(BLOCK):
            copy.write(part)


def _go_on_counting(cursor: Any, tables: list[str]) -> None:
    """The next number of a table comes after the highest that is in it."""
    for table in tables:
        with suppress(StopIteration):
            column = next(iter(connection.introspection.get_sequences(cursor, table)))["column"]
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence(%s, %s), GREATEST((SELECT max({quoted(column)}) "  # noqa: S608
                f"FROM {quoted(table)}), 1))",
                [quoted(table), column],
            )

"""Consistent snapshots of the database while others write to it.

The snapshot of an SQLite database is one file, again a database. That of a PostgreSQL database is one file per table in
the text format of COPY, which every version can read. pg_dump isn't used because both backup and restore would require
an installed version that matches the server.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.apps import apps
from django.conf import settings
from django.db import connection, transaction

from dashboard.ops.startup import migrate

TEMP_PREFIX = "backup-"  # prefix of temporary files, which are in use while RUN_DIR/backup.lock is held
SQLITE_MEMBER = "database.sqlite3"
TABLE_MEMBERS = "database"  # the directory of the tables


@dataclass(frozen=True)
class Table:
    """A table in a snapshot."""

    name: str
    rows: int
    columns: list[str]


@dataclass(frozen=True)
class Snapshot:
    """The database at one moment. `members` creates its files one at a time."""

    vendor: str
    migrations: list[tuple[str, str]]
    tables: list[Table]
    members: Iterator[tuple[str, BinaryIO]] = field(repr=False)

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables)


def is_empty() -> bool:
    """Return True if the site has never run with this database. Checked without creating a missing SQLite file."""
    no_file = connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists()
    return no_file or not migrate.applied()


@contextmanager
def snapshot() -> Iterator[Snapshot]:
    """Return a snapshot of the database, valid within the context."""
    with _snapshot_sqlite() if connection.vendor == "sqlite" else _snapshot_postgresql() as current:
        yield current


@contextmanager
def _snapshot_sqlite() -> Iterator[Snapshot]:
    descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, suffix=".sqlite3", dir=settings.TMP_DIR)
    with os.fdopen(descriptor, "rb") as file:
        try:
            with connection.cursor() as cursor:
                cursor.execute("VACUUM INTO %s", [name])  # reads in one transaction and blocks no one
            tables, migrations = _describe_file(Path(name))
        finally:
            Path(name).unlink()  # stays readable while open; a process killed from here on leaves nothing behind
        yield Snapshot("sqlite", migrations, tables, iter([(SQLITE_MEMBER, cast(BinaryIO, file))]))


def _describe_file(path: Path) -> tuple[list[Table], list[tuple[str, str]]]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        cursor = database.cursor()
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        tables = [_table(cursor, name) for (name,) in cursor.fetchall()]
        return tables, _migrations(cursor)
    finally:
        database.close()


@contextmanager
def _snapshot_postgresql() -> Iterator[Snapshot]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = [_table(cursor, name) for name in our_tables(cursor)]
        yield Snapshot("postgresql", _migrations(cursor), tables, _copies(cursor, tables))


def our_tables(cursor: Any) -> list[str]:
    """Return the names of the tables of this site, including those of a newer release. The database may have others."""
    ours = ("django_", *(f"{app.label}_" for app in apps.get_app_configs()))
    return sorted(name for name in connection.introspection.table_names(cursor) if name.startswith(ours))


def _copies(cursor: Any, tables: list[Table]) -> Iterator[tuple[str, BinaryIO]]:
    for table in tables:
        with tempfile.TemporaryFile(dir=settings.TMP_DIR) as file:
            with cursor.copy(f"COPY {quoted(table.name)} ({column_list(table.columns)}) TO STDOUT") as copy:
                for part in copy:
                    file.write(part)
            file.seek(0)
            yield f"{TABLE_MEMBERS}/{table.name}", cast(BinaryIO, file)


def _table(cursor: Any, name: str) -> Table:
    cursor.execute(f"SELECT count(*) FROM {quoted(name)}")  # noqa: S608 - names of our own tables
    (rows,) = cursor.fetchone()
    cursor.execute(f"SELECT * FROM {quoted(name)} LIMIT 0")  # noqa: S608
    return Table(name, rows, [column[0] for column in cursor.description])


def _migrations(cursor: Any) -> list[tuple[str, str]]:
    cursor.execute("SELECT app, name FROM django_migrations ORDER BY app, name")
    return [(app, name) for app, name in cursor.fetchall()]


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return connection.ops.quote_name(name)


def column_list(columns: list[str]) -> str:
    """Return quoted column names, separated by commas."""
    return ", ".join(map(quoted, columns))

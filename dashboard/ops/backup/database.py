"""The database at one moment, while everybody goes on writing: as files, and what they hold.

SQLite gives one file that is a database again. PostgreSQL gives one file per table, in the text form of COPY, which
every version reads; pg_dump is not used, for it must be installed and fit the version of the server in both directions.
"""

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

PREFIX = "backup-"  # of temporary files: in use while somebody holds RUN_DIR/backup.lock
SQLITE_MEMBER = "database.sqlite3"
TABLE_MEMBERS = "database"  # the folder of tables


@dataclass(frozen=True)
class Table:
    name: str
    rows: int
    columns: list[str]


@dataclass(frozen=True)
class Snapshot:
    """The database at one moment. `members` makes its files as they are asked for."""

    vendor: str
    migrations: list[tuple[str, str]]
    tables: list[Table]
    members: Iterator[tuple[str, BinaryIO]] = field(repr=False)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


def is_empty() -> bool:
    """Whether the site has never run with this database. SQLite would make the file for who asks it."""
    no_file = connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists()
    return no_file or not migrate.applied()


@contextmanager
def snapshot() -> Iterator[Snapshot]:
    """The database as it is now; it stays so for the caller while others write."""
    with _sqlite() if connection.vendor == "sqlite" else _postgresql() as found:
        yield found


@contextmanager
def _sqlite() -> Iterator[Snapshot]:
    descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix=".sqlite3", dir=settings.TMP_DIR)
    with open(descriptor, "rb") as file:
        try:
            with connection.cursor() as cursor:
                cursor.execute("VACUUM INTO %s", [name])  # reads in one transaction, and holds up nobody
            tables, migrations = _facts_of_file(Path(name))
        finally:
            Path(name).unlink()  # it stays open here: who is killed from now on leaves nothing behind
        yield Snapshot("sqlite", migrations, tables, iter([(SQLITE_MEMBER, cast(BinaryIO, file))]))


def _facts_of_file(path: Path) -> tuple[list[Table], list[tuple[str, str]]]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        cursor = database.cursor()
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        tables = [_table(cursor, name) for (name,) in cursor.fetchall()]
        return tables, _migrations(cursor)
    finally:
        database.close()


@contextmanager
def _postgresql() -> Iterator[Snapshot]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = [_table(cursor, name) for name in our_tables(cursor)]
        yield Snapshot("postgresql", _migrations(cursor), tables, _copies(cursor, tables))


def our_tables(cursor: Any) -> list[str]:
    """The tables of this site in a database that may have others, also those that only a newer release knows."""
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
    return connection.ops.quote_name(name)


def column_list(columns: list[str]) -> str:
    return ", ".join(map(quoted, columns))

"""Interruptible migrations: if a process is killed at any moment, the next run can continue.

This is the only module that uses Django's undocumented migration executor. test_migrate.py fails if a release of
Django changes it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

Migration = tuple[str, str]  # app label, name


class Executor(MigrationExecutor):
    """An executor that records each migration in the transaction that applies it.

    Django writes the record after the transaction if a migration defers SQL, as every table with a foreign key does.
    If the process were killed in between, each later run would try to create the same tables, and fail.
    """

    def apply_migration(self, state: Any, migration: Any, fake: bool = False, fake_initial: bool = False) -> Any:
        """Apply one migration. See MigrationExecutor."""
        if not migration.atomic:
            return super().apply_migration(state, migration, fake, fake_initial)
        with _one_transaction():
            return super().apply_migration(state, migration, fake, fake_initial)


@contextmanager
def _one_transaction() -> Iterator[None]:
    # SQLite can disable the checks only outside a transaction, and alter tables only without them.
    connection.disable_constraint_checking()
    try:
        with transaction.atomic():
            yield
    finally:
        connection.enable_constraint_checking()


def migrate() -> None:
    """Apply every missing migration."""
    executor = Executor(connection)
    targets = executor.loader.graph.leaf_nodes()
    plan = executor.migration_plan(targets)
    emit_pre_migrate_signal(0, False, connection.alias, plan=plan)
    executor.migrate(targets, plan)
    emit_post_migrate_signal(0, False, connection.alias, plan=plan)


def migrate_to(migrations: Iterable[Migration]) -> None:
    """Create the tables of an empty database as they are after exactly these migrations."""
    executor = Executor(connection)
    targets, graph = set(migrations), executor.loader.graph
    leaves = [node for node in targets if not {child.key for child in graph.node_map[node].children} & targets]
    executor.migrate(leaves)


def applied() -> set[Migration]:
    """Return the migrations recorded in the database. Empty if it has no tables."""
    if "django_migrations" not in connection.introspection.table_names():
        return set()
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name FROM django_migrations")
        return set(cursor.fetchall())


def on_disk() -> set[Migration]:
    """Return the migrations of this release, without importing them."""
    return {
        (app.label, path.stem)
        for app in apps.get_app_configs()
        for path in Path(app.path, "migrations").glob("[!_]*.py")
    }


def unknown() -> set[Migration]:
    """Return recorded migrations that this release lacks, in apps that it has. A newer release applied them."""
    ours = {app.label for app in apps.get_app_configs()}
    return {(app, name) for app, name in applied() - on_disk() if app in ours}


def format_names(migrations: Iterable[Migration], limit: int = 3) -> str:
    """Format migrations for a message: "mms.0001_initial, mms.0002_tokens and 4 more"."""
    names = sorted(".".join(migration) for migration in migrations)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

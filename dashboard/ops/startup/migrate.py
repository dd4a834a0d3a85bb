"""Bringing the tables up to date, so that a process killed at any moment leaves something that can be gone on with."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

Migration = tuple[str, str]  # app, name


class Executor(MigrationExecutor):
    """Applies each migration in one transaction with the row that says so.

    Django writes that row after the transaction wherever a migration leaves something for its end (any table with a
    foreign key does). Killed in between, the next run would make the same tables again, and fail for ever.
    """

    def apply_migration(self, state: Any, migration: Any, fake: bool = False, fake_initial: bool = False) -> Any:
        if not migration.atomic:
            return super().apply_migration(state, migration, fake, fake_initial)
        with _one_transaction():
            return super().apply_migration(state, migration, fake, fake_initial)


@contextmanager
def _one_transaction() -> Iterator[None]:
    # SQLite can switch the checks off only outside a transaction, and its tables can be altered only without them.
    connection.disable_constraint_checking()
    try:
        with transaction.atomic():
            yield
    finally:
        connection.enable_constraint_checking()


def migrate() -> None:
    """Apply every migration that is missing."""
    executor = Executor(connection)
    targets = executor.loader.graph.leaf_nodes()
    plan = executor.migration_plan(targets)
    emit_pre_migrate_signal(0, False, connection.alias, plan=plan)
    executor.migrate(targets, plan)
    emit_post_migrate_signal(0, False, connection.alias, plan=plan)


def migrate_to(migrations: Iterable[Migration]) -> None:
    """Make the tables of a database without any as they were when just these migrations had been applied."""
    executor = Executor(connection)
    wanted, graph = set(migrations), executor.loader.graph
    executor.migrate([node for node in wanted if not {child.key for child in graph.node_map[node].children} & wanted])


def applied() -> set[Migration]:
    """The migrations that are recorded in the database; none where it has no tables yet."""
    if "django_migrations" not in connection.introspection.table_names():
        return set()
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name FROM django_migrations")
        return set(cursor.fetchall())


def on_disk() -> set[Migration]:
    """The migrations that this release has, without loading one of them."""
    return {
        (app.label, path.stem)
        for app in apps.get_app_configs()
        for path in Path(app.path, "migrations").glob("[!_]*.py")
    }


def unknown() -> set[Migration]:
    """Recorded migrations of apps of this release that it does not have: a newer one was here."""
    ours = {app.label for app in apps.get_app_configs()}
    return {(app, name) for app, name in applied() - on_disk() if app in ours}


def names(migrations: Iterable[Migration], most: int = 3) -> str:
    """Some migrations in words."""
    known = sorted(".".join(migration) for migration in migrations)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more

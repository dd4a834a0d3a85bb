"""Assumptions of migrate.py about Django's undocumented migration executor.

When one of these tests fails after an upgrade, compare migrate.py with the new release before you change the test.
"""

import inspect
from importlib.metadata import version

import pytest
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from dashboard.ops.startup import migrate
from tests.site import ROOT


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_the_installed_release_is_the_pinned_one() -> None:
    assert f"django=={version('django')}" in (ROOT / "requirements/base.txt").read_text().split()


def test_the_executor_applies_each_migration_by_the_overridden_method() -> None:
    assert parameters(MigrationExecutor.apply_migration) == ["self", "state", "migration", "fake", "fake_initial"]
    assert "self.apply_migration(" in inspect.getsource(MigrationExecutor)


def test_django_still_records_a_migration_outside_its_transaction() -> None:
    """This is why migrate.Executor exists. If the test fails, it may no longer be needed."""
    source = inspect.getsource(MigrationExecutor.apply_migration)
    body, _, rest = source.partition("with self.connection.schema_editor(")
    assert body
    assert "if not schema_editor.deferred_sql:" in rest
    assert rest.rstrip().endswith("return state")
    assert "if not migration_recorded:" in rest


def test_the_signals_are_emitted_with_the_arguments_that_are_passed() -> None:
    for emit in (emit_pre_migrate_signal, emit_post_migrate_signal):
        assert parameters(emit) == ["verbosity", "interactive", "db", "kwargs"]


@pytest.mark.django_db
def test_the_graph_knows_the_children_of_a_migration() -> None:
    graph = MigrationLoader(connection).graph
    first = graph.node_map["mms", "0001_initial"]
    assert first.key == ("mms", "0001_initial")
    assert any(child.key[0] == "mms" for child in first.children)
    assert set(graph.leaf_nodes()) <= set(graph.node_map)


@pytest.mark.django_db
def test_files_and_records_name_the_same_migrations_as_django() -> None:
    loader = MigrationLoader(connection)
    assert migrate.on_disk() == set(loader.disk_migrations)
    assert migrate.applied() == set(loader.applied_migrations)

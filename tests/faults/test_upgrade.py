"""Upgrades keep the data of every release since the first. One killed at any moment can be run again."""

import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.faults.installation import Installation, cpu_of, cpu_of_children, kill_after
from tests.faults.postgresql import PostgreSQL
from tests.twins import twins

pytestmark = pytest.mark.slow

# The tables of the first release with two rows in each. In the second row, every nullable column is null.
FIRST_RELEASE = """
    import uuid
    from django.db import connection, models
    from django.db.migrations.executor import MigrationExecutor
    from django.utils import timezone

    ORDER = (
        "auth.User dashboard.Membership deployments.HostingAccount deployments.RegistryInfo deployments.Cluster "
        "deployments.Asset deployments.RegisteredModel deployments.Manifest deployments.Image deployments.Service "
        "deployments.Operation mms.Account mms.Token mms.Model mms.Manifest mms.Image mms.Service mms.Revision "
        "mms.Operation"
    )
    ours = ["dashboard", "deployments", "mms"]
    executor = MigrationExecutor(connection)
    others = [leaf for leaf in executor.loader.graph.leaf_nodes() if leaf[0] not in ours]
    first = [(app, "0001_initial") for app in ours] + others
    executor.migrate(first)
    apps = executor.loader.project_state(first).apps
    made = {}

    def value_of(field, number):
        if field.null and (number or field.related_model is field.model):
            return None
        if field.is_relation:
            return made[field.related_model._meta.label][number]
        special = {
            models.JSONField: {"of": number},
            models.UUIDField: uuid.uuid4(),
            models.DateTimeField: timezone.now(),
            models.BooleanField: bool(number),
        }
        if type(field) in special:
            return special[type(field)]
        return number + 1 if isinstance(field, models.IntegerField) else f"{field.name} {number}"[: field.max_length]

    for label in ORDER.split():
        model = apps.get_model(label)
        fields = [field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]
        rows = ({field.name: value_of(field, number) for field in fields} for number in range(2))
        made[label] = [model.objects.create(**row) for row in rows]
    manifest = made["deployments.Manifest"][0]
    manifest.models.add(*made["deployments.RegisteredModel"])
    manifest.assets.add(*made["deployments.Asset"])
    many = ({"account": made["mms.Account"][0], "name": "big", "version": number, "url": "x"} for number in range(MANY))
    apps.get_model("mms.Model").objects.bulk_create((apps.get_model("mms.Model")(**row) for row in many), 2000)
"""
COUNT = """
    import json
    from django.db import connection
    counts = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            counts[table] = cursor.fetchone()[0]
    print(json.dumps(counts))
"""
PREPARE = "from dashboard.ops.startup import prepare; prepare.prepare(serves_pages=False)"
CHECK = """
    from django.core.management import call_command
    from django.db import connection
    call_command("migrate", check_unapplied=True, verbosity=0)
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
    connection.check_constraints()
"""


def counts(printed: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(printed.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, dict[str, int]]:
    """Return an installation of the first release with 30 000 models, and the number of rows in each table."""
    first = Installation(tmp_path_factory.mktemp("old") / "data")
    return first, counts(first.run(FIRST_RELEASE.replace("MANY", "30_000") + COUNT))


@pytest.fixture
def copy(old: tuple[Installation, dict[str, int]], tmp_path: Path) -> Installation:
    shutil.copytree(old[0].data, tmp_path / "data")
    return Installation(tmp_path / "data")


def assert_upgraded(place: Installation, before: dict[str, int]) -> None:
    """Assert that the tables are those of this release and no row is missing."""
    after = counts(place.run(CHECK + COUNT))
    grown = {"django_migrations", "auth_permission", "django_content_type", "encryption_keyfingerprint"}
    assert {name: after[name] for name in before.keys() - grown} == {
        name: before[name] for name in before.keys() - grown
    }
    ours = [name for name in before if name.startswith(("deployments_", "mms_", "dashboard_"))]
    assert len(ours) > 18
    assert all(before[name] for name in ours)


def test_the_site_works_after_an_upgrade_from_the_first_release(copy: Installation, old: Any) -> None:
    copy.start()
    try:
        assert copy.health()[0] == 200
    finally:
        copy.stop()
    after = counts(copy.run(CHECK + COUNT))
    assert after["mms_model"] == old[1]["mms_model"] >= 30_000


@twins("steps", 7, 20)
def test_an_upgrade_that_is_killed_repeatedly_completes(
    copy: Installation, old: Any, tmp_path: Path, steps: int
) -> None:
    shutil.copytree(copy.data, tmp_path / "other")
    begun = begin_upgrade(Installation(tmp_path / "other"))
    before = cpu_of_children() + cpu_of(begun)
    assert begun.wait(120) == 0
    step = (cpu_of_children() - before) / steps
    killed = 0
    while True:
        process = begin_upgrade(copy)
        kill_after(process, cpu_of(process) + step * killed)
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed > 3
    assert_upgraded(copy, old[1])


def begin_upgrade(place: Installation) -> "subprocess.Popen[str]":
    """Start an upgrade and wait until its process has imported Django."""
    process = place.start_code(f"print('begun', flush=True)\n{PREPARE}")
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


KILLED_AFTER_COMMIT = """
    import os, signal
    from django.db.backends.base.base import BaseDatabaseWrapper
    commit = BaseDatabaseWrapper._commit
    left = EVERY
    def committed(self):
        global left
        commit(self)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    BaseDatabaseWrapper._commit = committed
    from dashboard.ops.startup import prepare
    prepare.prepare(serves_pages=False)
"""


def killed_after_commits(place: Installation, every: int) -> int:
    """Upgrade with a process that is killed right after every `every`th commit and started again.

    Return the number of commits by killed processes.
    """
    for number in range(100):
        process = place.start_code(KILLED_AFTER_COMMIT.replace("EVERY", str(every)))
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            return number * every
        assert process.returncode == -signal.SIGKILL, errors
    raise AssertionError("the upgrade never completes")


def test_an_upgrade_killed_after_any_commit_continues(copy: Installation, old: Any) -> None:
    assert killed_after_commits(copy, 1) >= 3
    assert_upgraded(copy, old[1])


@twins("every", 5, 1)
def test_a_first_start_killed_after_any_commit_continues(tmp_path: Path, every: int) -> None:
    place = Installation(tmp_path / "data")
    assert killed_after_commits(place, every) > 20
    place.ready().assert_complete()


@twins("every", 2, 1)
def test_an_upgrade_of_postgresql_killed_after_any_commit_continues(
    postgresql: PostgreSQL, tmp_path: Path, every: int
) -> None:
    place = Installation(tmp_path / "data", DATABASE_URL=postgresql.create(f"upgraded_{every}"))
    before = counts(place.run(FIRST_RELEASE.replace("MANY", "100") + COUNT))
    assert killed_after_commits(place, every) >= 3
    assert_upgraded(place, before)


def test_two_processes_that_start_together_upgrade_once(copy: Installation, old: Any) -> None:
    both = [copy.start_code(PREPARE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_upgraded(copy, old[1])


def test_an_older_release_does_not_start_on_newer_tables(tmp_path: Path) -> None:
    place = Installation(tmp_path / "data").ready()
    with sqlite3.connect(place.data / "db.sqlite3") as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('mms', '9999_later', '2030-01-01')"
        )
    database.close()
    for words in (["up"], ["run", "worker"]):
        done = place.attempt(*words)
        assert done.returncode != 0
        assert "newer release" in done.stderr
        assert "mms.9999_later" in done.stderr

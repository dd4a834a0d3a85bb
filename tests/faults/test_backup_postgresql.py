"""Backups of PostgreSQL: a consistent snapshot that is restored completely or not at all."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.faults.installation import Installation
from tests.faults.postgresql import PostgreSQL
from tests.support.lifecycle import present
from tests.twins import twins

pytestmark = pytest.mark.slow

WRITE = """
    import itertools
    from django.contrib.auth import get_user_model
    from django.db import transaction
    from mms.models import Account, Token
    account = Account.objects.create(subscription="s", resource_group="g", name="busy")
    for number in itertools.count():
        with transaction.atomic():  # two rows that belong together
            token = Token.objects.create(account=account, name="pair", digest=f"{number}-a")
            Token.objects.create(account=account, name="pair", digest=f"{number}-b")
        if number == 50:
            print("writing", flush=True)
"""
PAIRS = "Counter(d[:-2] for d in Token.objects.filter(name='pair').values_list('digest', flat=True))"


@pytest.fixture(scope="module")
def first(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("first") / "a"
    return Installation(folder, DATABASE_URL=postgresql.create("first")).ready()


@pytest.fixture(scope="module")
def backup(first: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a backup during continuous writes."""
    path = tmp_path_factory.mktemp("backups") / "backup.tar"
    writer = first.start_code(WRITE)
    try:
        assert present(writer.stdout).readline() == "writing\n"
        first.manage("backup", str(path))
        assert writer.poll() is None, writer.communicate()[1]
    finally:
        writer.kill()
        writer.communicate()
    return path


def elsewhere(postgresql: PostgreSQL, folder: Path, name: str) -> Installation:
    return Installation(folder / "b", DATABASE_URL=postgresql.create(name))


def test_the_restored_database_is_consistent(postgresql: PostgreSQL, backup: Path, tmp_path: Path) -> None:
    place = elsewhere(postgresql, tmp_path, "second")
    place.manage("restore", str(backup))
    place.assert_complete()
    pairs = place.ask(PAIRS)
    assert len(pairs) >= 50
    assert set(pairs.values()) == {2}
    with tarfile.open(backup) as archive:
        about = json.load(present(archive.extractfile("about.json")))
    (tokens,) = (table for table in about["database"]["tables"] if table["name"] == "mms_token")
    assert tokens["rows"] == 2 * len(pairs)


AUDIT = """
    from django.db import DatabaseError, connection, transaction
    from dashboard.audit.record import record_entry
    from dashboard.audit.models import AuditEntry
    record_entry("sign_in", actor="ann")
    for statement in (
        "DELETE FROM dashboard_auditentry",
        "TRUNCATE dashboard_auditentry",
        "UPDATE dashboard_auditentry SET actor = 'bob'",
        "INSERT INTO dashboard_auditentry SELECT * FROM dashboard_auditentry "
        "ON CONFLICT (id) DO UPDATE SET actor = 'bob'",
    ):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(statement)
            print("accepted:", statement)
        except DatabaseError:
            pass
    assert AuditEntry.objects.filter(actor="ann").exists()
    from datetime import timedelta
    from django.utils import timezone
    AuditEntry.objects.create(actor="old", action="x", result="done", at=timezone.now() - timedelta(days=10**4))
    from dashboard.audit.record import prune_entries
    print("pruned", prune_entries())
"""


def test_the_database_rejects_changes_of_audit_entries(first: Installation) -> None:
    assert present(first.start_code(AUDIT).communicate(timeout=60)[0]).split("\n") == ["pruned 1", ""]


def test_the_restored_site_starts_and_continues_its_sequences(
    postgresql: PostgreSQL, backup: Path, tmp_path: Path
) -> None:
    place = elsewhere(postgresql, tmp_path, "third")
    place.manage("restore", str(backup))
    place.start()
    try:
        place.manage("create_token", "--account", "local")
        place.manage("create_user", "bob", "--role", "viewer", "--password-stdin", stdin="four other words\n")
        said = place.attempt("restore", str(backup), "--replace").stderr
        assert "The site is running" in said
    finally:
        place.stop()
    place.assert_complete()


def test_a_database_in_use_is_not_replaced(postgresql: PostgreSQL, first: Installation, backup: Path) -> None:
    user = first.start_code("from django.db import connection as c; c.cursor(); print('open', flush=True); input()")
    try:
        assert present(user.stdout).readline() == "open\n"
        done = first.attempt("restore", str(backup), "--replace")
        assert "in use by another connection" in done.stderr
    finally:
        user.kill()
        user.communicate()
    first.assert_complete()


def test_a_restore_waits_for_a_client_that_is_disconnecting(
    postgresql: PostgreSQL, backup: Path, tmp_path: Path
) -> None:
    """The server needs a moment to notice that a client was killed, such as a previous restore."""
    place = elsewhere(postgresql, tmp_path, "leaving")
    code = "from django.db import connection as c; c.cursor(); print('open', flush=True); import time; time.sleep(1.5)"
    other = place.start_code(code)
    assert other.stdout
    assert other.stdout.readline() == "open\n"
    place.manage("restore", str(backup))
    place.assert_complete()
    other.communicate()


def test_the_previous_database_is_saved(postgresql: PostgreSQL, backup: Path, tmp_path: Path) -> None:
    place = elsewhere(postgresql, tmp_path, "fourth").ready()
    place.manage("create_user", "old", "--role", "viewer", "--password-stdin", stdin="four other words\n")
    assert "--replace" in place.attempt("restore", str(backup)).stderr
    place.manage("restore", str(backup), "--replace")
    place.assert_complete()
    assert not place.ask("get_user_model().objects.filter(username='old').exists()")
    (aside,) = place.data.glob("replaced-*")
    before = Installation(tmp_path / "before", DATABASE_URL=postgresql.create("before"))
    before.manage("restore", str(aside / "database.tar"))
    assert before.ask("get_user_model().objects.filter(username='old').exists()")


def test_tables_of_a_newer_release_are_deleted(postgresql: PostgreSQL, backup: Path, tmp_path: Path) -> None:
    place = elsewhere(postgresql, tmp_path, "newer").ready()
    place.run(
        "from django.db import connection as c\n"
        "c.cursor().execute('CREATE TABLE mms_later (id int, token bigint REFERENCES mms_token)')\n"
        "c.cursor().execute('CREATE TABLE of_somebody_else (id int)')"
    )
    place.manage("restore", str(backup), "--replace")
    tables = place.ask("connection.introspection.table_names()")
    assert "mms_later" not in tables
    assert "of_somebody_else" in tables


def test_data_that_the_database_rejects_changes_nothing(postgresql: PostgreSQL, backup: Path, tmp_path: Path) -> None:
    place = elsewhere(postgresql, tmp_path, "fifth").ready()
    code = """
        from dashboard.ops.backup import restore_database
        true = restore_database._reset_sequences
        def fail(cursor, tables):
            true(cursor, tables)
            columns = "(user_id, account_id, role, source)"
            cursor.execute(f"INSERT INTO dashboard_membership {columns} VALUES (12345, 1, 'viewer', 'site')")
        restore_database._reset_sequences = fail
        from django.core.management import CommandError, call_command
        try:
            call_command("restore", BACKUP, replace=True)
        except CommandError as error:
            print(error)
    """
    before = place.ask("list(get_user_model().objects.values('id', 'password'))")
    said = place.run(code.replace("BACKUP", repr(str(backup))))
    assert "PostgreSQL rejected the data" in said
    assert place.ask("list(get_user_model().objects.values('id', 'password'))") == before
    place.assert_complete()
    assert not (place.data / "restore_unfinished").exists()


@twins("step", 29, 11)
def test_a_restore_killed_at_any_moment_can_be_run_again(
    postgresql: PostgreSQL, backup: Path, tmp_path: Path, step: int
) -> None:
    place, number = elsewhere(postgresql, tmp_path, f"sixth_{step}"), 0
    calls = (
        "dashboard.ops.startup.migrate.Executor.apply_migration dashboard.ops.backup.restore_database._copy_rows "
        "pathlib.Path.rename os.sync"
    )
    while place.killed_at(number, calls, "restore", str(backup)):
        number += step
    assert number > 30
    place.assert_complete()


def test_the_kind_of_database_must_be_the_same(backup: Path, tmp_path: Path) -> None:
    said = Installation(tmp_path / "c").attempt("restore", str(backup)).stderr
    assert "contains a PostgreSQL database, but this site uses SQLite" in said

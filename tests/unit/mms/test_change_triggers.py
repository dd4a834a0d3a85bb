"""Installation of the triggers of change feeds."""

import pytest
from django.core.management import call_command
from django.db import connection

from mms import changes

pytestmark = pytest.mark.django_db(transaction=True)


def test_triggers_are_never_missing_while_they_are_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_install_in_postgresql" if connection.vendor == "postgresql" else "_install_in_sqlite"
    install = getattr(changes, name)
    is_atomic = []

    def recorded(*arguments: object) -> None:
        is_atomic.append(connection.in_atomic_block)
        install(*arguments)

    monkeypatch.setattr(changes, name, recorded)
    changes.install_triggers(connection)
    assert is_atomic == [True] * 5


def test_a_reversed_migration_leaves_no_triggers() -> None:
    try:
        call_command("migrate", "mms", "0003", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM mms_model")
    finally:
        call_command("migrate", "mms", verbosity=0)

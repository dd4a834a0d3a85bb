"""The four settings without which several processes on one SQLite file fail: asked of the connections themselves."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction

from mms.models import Account

pytestmark = pytest.mark.django_db(transaction=True)
EXPECTED = {"journal_mode": "wal", "busy_timeout": 20_000, "synchronous": 1, "foreign_keys": 1}


def asked() -> dict[str, Any]:
    """What the connection of this thread says of itself."""
    try:
        with connection.cursor() as cursor:
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in EXPECTED}
    finally:
        if threading.current_thread() is not threading.main_thread():
            connection.close()


def test_a_command_has_the_settings() -> None:
    assert asked() == EXPECTED


def test_a_thread_of_a_worker_has_them() -> None:
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(asked).result() == EXPECTED


def test_a_thread_of_the_web_server_has_them() -> None:
    ask = async_to_sync(sync_to_async(asked, thread_sensitive=False))
    with ThreadPoolExecutor(1) as without_a_loop:  # a browser's tests leave one running in this thread
        assert without_a_loop.submit(ask).result() == EXPECTED


@pytest.fixture
def other() -> Any:
    """A connection of another program."""
    database = sqlite3.connect(connection.settings_dict["NAME"], timeout=0, check_same_thread=False)
    yield database
    database.close()


def test_a_transaction_takes_the_write_lock_when_it_begins(other: sqlite3.Connection) -> None:
    with transaction.atomic():
        assert Account.objects.count() == 0  # it only reads so far
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        Account.objects.create(subscription="s", resource_group="g", name="a")
    other.execute("BEGIN IMMEDIATE")
    other.rollback()


@pytest.mark.serial
def test_who_finds_the_database_locked_waits_and_readers_do_not(other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    releases = threading.Timer(0.5, other.rollback)
    releases.start()
    started = time.monotonic()
    assert Account.objects.count() == 0
    assert time.monotonic() - started < 0.4
    with transaction.atomic():
        Account.objects.create(subscription="s", resource_group="g", name="a")
    assert 0.3 < time.monotonic() - started < 15
    releases.join()

"""The four SQLite settings that several processes on one file need, read from the connections themselves."""

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


def read_settings() -> dict[str, Any]:
    """Return the settings of this thread's connection."""
    try:
        with connection.cursor() as cursor:
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in EXPECTED}
    finally:
        if threading.current_thread() is not threading.main_thread():
            connection.close()


def test_a_command_has_the_settings() -> None:
    assert read_settings() == EXPECTED


def test_a_thread_of_a_worker_has_them() -> None:
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(read_settings).result() == EXPECTED


def test_a_thread_of_the_web_server_has_them() -> None:
    ask = async_to_sync(sync_to_async(read_settings, thread_sensitive=False))
    with ThreadPoolExecutor(1) as without_a_loop:  # browser tests leave one running in this thread
        assert without_a_loop.submit(ask).result() == EXPECTED


@pytest.fixture
def other() -> Any:
    """Connect like another program."""
    database = sqlite3.connect(connection.settings_dict["NAME"], timeout=0, check_same_thread=False)
    yield database
    database.close()


def test_a_transaction_takes_the_write_lock_when_it_begins(other: sqlite3.Connection) -> None:
    with transaction.atomic():
        assert Account.objects.count() == 0  # has only read so far
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        Account.objects.create(subscription="s", resource_group="g", name="a")
    other.execute("BEGIN IMMEDIATE")
    other.rollback()


@pytest.mark.serial
def test_writers_wait_for_the_lock_and_readers_do_not(other: sqlite3.Connection) -> None:
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

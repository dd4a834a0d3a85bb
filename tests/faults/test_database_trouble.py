"""A locked, full or unavailable database: messages to users, and no record of a sent request is lost."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from django.conf import settings
from django.db import connection

from deployments.accounts.call_pool import CallPool
from deployments.live import transitions
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State
from deployments.operations import dispatch
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.faults.browserless import Visitor
from tests.site import Site, wait_until
from tests.support.html import compact
from tests.support.lifecycle import account_at, image_of, manifest_of, present, register, registry_of

MODELS = "/accounts/local/models/"


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the write lock of this SQLite file, as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def seconds(ask: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    answer = ask()
    return time.monotonic() - began, answer


# --- the site


@pytest.fixture(scope="module")
def ann(site: Site) -> Visitor:
    return Visitor(site, "ann", "scientist")


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    return site.manage("create_token", "--account", "local")


def register_over_api(site: Site, token: str) -> requests.Response:
    base = f"{site.url}/api/subscriptions/local/resourceGroups/local/hostingAccounts/local"
    body = {"name": "over-the-api", "url": "http://files.example/m"}
    url = f"{base}/models?api-version=2017-06-01-privatepreview"
    return requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@pytest.mark.slow
def test_while_the_database_is_locked_reads_work_and_writes_fail_soon(site: Site, ann: Visitor, token: str) -> None:
    ann.get(MODELS)
    with locked(site.data / "db.sqlite3"), ThreadPoolExecutor(8) as people:
        writing = [people.submit(seconds, lambda: ann.post_model("kept-waiting")) for _ in range(4)]
        calling = [people.submit(seconds, lambda: register_over_api(site, token)) for _ in range(4)]
        reading = [seconds(lambda: ann.get(MODELS)) for _ in range(20)]
        told = [future.result() for future in writing]
        answered = [future.result() for future in calling]
    assert {answer.status_code for _, answer in reading} == {200}
    assert max(took for took, _ in reading) < 2
    for took, answer in told:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert "Nothing was saved" in compact(answer.text)
        assert "Traceback" not in answer.text
        assert took < 10
    for took, answer in answered:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
        assert took < 15, "a client gives up after 20 s, and can't tell what happened"
    assert "kept-waiting" not in ann.get(MODELS).text
    again = ann.send_again(told[0][1])
    assert again.status_code == 302
    assert "kept-waiting" in ann.get(MODELS).text
    assert register_over_api(site, token).status_code == 201


@pytest.mark.slow
def test_the_page_for_a_locked_database_never_contains_a_password(site: Site) -> None:
    stranger = Visitor(site, "eve", "viewer", sign_in=False)
    with locked(site.data / "db.sqlite3"):
        answer = stranger.sign_in()
    assert answer.status_code == 503
    assert stranger.password not in answer.text
    assert "Go back and send the form again" in answer.text
    assert stranger.sign_in().status_code == 302


@pytest.mark.slow
def test_a_locked_database_logs_one_line_without_a_traceback(site: Site, ann: Visitor) -> None:
    with locked(site.data / "db.sqlite3"):
        ann.post_model("for-the-log")
    lines = (site.data / "log" / "web.log").read_text().splitlines()
    (line,) = [line for line in lines if "/models/new/" in line][-1:]
    assert line.endswith("(database is locked)")
    assert not any(line.startswith("Traceback") for line in lines)


# --- pages, without a site


@pytest.mark.django_db(transaction=True)
def test_a_page_reports_a_missing_database(live_redis: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Without a database, for example a stopped PostgreSQL server, even the session can't be read."""
    from django.test import Client

    client = Client(raise_request_exception=False)
    client.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
    with out_of_reach():
        answer = client.get("/")
        posted = client.post("/accounts/local/models/new/", {"name": "iris"})
    assert answer.status_code == posted.status_code == 503
    assert "The database is unreachable." in answer.content.decode()
    assert "most likely not saved" in compact(posted.content.decode())


@contextmanager
def out_of_reach() -> Iterator[None]:
    """Make the database file impossible to open."""
    connection.close()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = f"{settings.DATA_DIR}/nowhere/db.sqlite3"
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name


@pytest.mark.django_db(transaction=True)
def test_a_programming_error_is_not_reported_as_a_database_problem() -> None:
    from django.db import OperationalError

    from dashboard.http import db_errors

    with pytest.raises(OperationalError) as raised, connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")
    assert db_errors.user_message(raised.value) == ""


# --- workers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a worker's connections wait half a second for a lock, instead of 20. New threads open new connections."""
    monkeypatch.setattr(dispatch, "SEND_POOL", CallPool())
    monkeypatch.setattr(dispatch, "CALL_POOL", CallPool())
    options = connection.settings_dict["OPTIONS"]
    before = options["timeout"]
    options["timeout"] = 0.5
    yield
    options["timeout"] = before


def turns(operation: Operation) -> "Future[None] | None":
    """Run what a queue message starts: a thread of the worker with its own database connection."""
    return CallPool().submit(operation.account_id, dispatch.run_steps, [operation.pk])


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_response_is_stored_when_the_lock_is_released(account: HostingAccount, mms: MMS, impatient: None) -> None:
    """The database is locked between the request and its response, for longer than a write waits."""
    operation = operations_create_image(account)
    mms.plan("POST", "images", faults.effect_then_hang(0.5))
    future = turns(operation)
    wait_until(lambda: mms.effects["images"] == 1, 10, "the request")
    with locked(connection.settings_dict["NAME"]):
        time.sleep(2)
    present(future).result(20)
    operation.refresh_from_db()
    assert operation.state == State.NOT_STARTED
    assert operation.mms_operation_id in mms.operations
    assert len(mms.calls("POST")) == 1
    mms.end()
    wait_until(lambda: ended(operation), 20, "the end", every=0.3)
    assert operation.state == State.SUCCEEDED
    assert mms.effects["images"] == 1


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_that_could_not_be_stored_first(account: HostingAccount, mms: MMS, impatient: None) -> None:
    operation = register(account)
    with locked(connection.settings_dict["NAME"]):
        present(turns(operation)).result(10)
        assert mms.calls("POST") == []
    present(turns(operation)).result(10)
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    assert mms.effects["models"] == 1


@pytest.mark.django_db(transaction=True)
def test_if_the_lock_outlasts_all_retries_the_outcome_is_in_doubt_and_then_resolved(
    account: HostingAccount, mms: MMS, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.lifecycle import later, turn

    monkeypatch.setattr(transitions, "MAX_LOCK_WAIT_SECONDS", 0.5)
    operation = register(account)
    mms.plan("POST", "models", faults.effect_then_hang(0.5))
    future = turns(operation)
    wait_until(lambda: mms.effects["models"] == 1, 10, "the request")
    with locked(connection.settings_dict["NAME"]):
        present(future).result(20)
    operation.refresh_from_db()
    assert operation.state == State.SENDING
    later(operation, 100)
    dispatch.sweep()
    later(operation, 10)
    assert turn(operation).state == State.SUCCEEDED
    assert mms.effects["models"] == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_operations_end_correctly_while_the_database_is_locked_repeatedly(
    account: HostingAccount, mms: MMS, impatient: None
) -> None:
    """Locks of up to a second occur at any moment. Ticks fail, and the next ones find the due operations."""
    mms.auto = True
    image, name = image_of(account), connection.settings_dict["NAME"]
    wanted = [register(account, name=f"model-{number}") for number in range(6)]
    wanted += [operations_create_image(account, image.manifest) for _ in range(2)]
    done = threading.Event()

    def disturb() -> None:
        while not done.wait(0.15):
            with locked(name):
                time.sleep(0.7)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        wait_until(lambda: all(ended(operation) for operation in wanted), 90, "the end of all", every=0.3)
    finally:
        done.set()
        disturber.join()
    assert {operation.state for operation in wanted} == {State.SUCCEEDED}
    assert mms.effects == {"models": 6, "images": 2}


def ended(operation: Operation) -> bool:
    """Act as the scheduler until all operations end. A tick fails if it meets the lock, as in a worker."""
    from django.db import OperationalError

    try:
        dispatch.tick()
        operation.refresh_from_db()
    except OperationalError as error:
        logging.getLogger(__name__).info("a tick failed: %s", error)
        return False
    return not operation.is_open


def operations_create_image(account: HostingAccount, manifest: Any = None) -> Operation:
    from deployments.operations import submit

    registry = account.registries.first() or registry_of(account)
    return submit.create_image(account, "ann", manifest=manifest or manifest_of(account), registry=registry)


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_left_in_a_broken_transaction(impatient: None) -> None:
    from django.db import OperationalError, transaction

    with locked(connection.settings_dict["NAME"]), pytest.raises(OperationalError), transaction.atomic():
        HostingAccount.objects.update(name="never")
    assert not connection.in_atomic_block
    assert connection.get_autocommit()
    account_at("http://x", "after")
    assert HostingAccount.objects.filter(name="after").exists()

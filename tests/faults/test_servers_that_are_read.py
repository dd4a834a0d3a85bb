"""Reading from a faulty server: the last known lists, operations and logs remain visible, with the cause."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO

import pytest
import redis
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from deployments import timing
from deployments.accounts.availability import client_for, record_failure
from deployments.accounts.call_pool import CALL_POOL, MAX_CALLS_PER_ACCOUNT, SEND_POOL
from deployments.client import errors, transport
from deployments.live import events
from deployments.live.badges import badge_of
from deployments.mirror import follow_logs, refresh
from deployments.models import HostingAccount, Operation, Service
from deployments.models.operation import State
from deployments.operations import dispatch
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, Reply
from tests.faults.verbs import VERBS, furnished
from tests.site import wait_until
from tests.support.html import compact
from tests.support.lifecycle import account_at, age_lists, later, present, register, turn
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)
ELSEWHERE = MMS()


def nonsense(reply: Reply) -> Reply:
    return Reply(200, {"value": 7, "state": ["Running"], "id": {}})


def nested(connection: faults.Connection, effect: object) -> None:
    connection.reply(Reply(200, raw=b"[" * 900 + b"]" * 900))


def redirect(connection: faults.Connection, effect: object) -> None:
    connection.reply(Reply(302, headers={"Location": f"{ELSEWHERE.url}/api/x"}))


# The server's response to every GET, and the cause that users see.
READ: dict[str, tuple[faults.Fault, str]] = {
    "reset": (faults.drop, "no usable response"),
    "cut within the answer": (faults.truncate, "no usable response"),
    "invalid JSON": (faults.garbage, "isn't valid"),
    "wrong types": (faults.answer(nonsense), "isn't valid"),
    "nested 900 deep": (nested, "isn't valid"),
    "400": (faults.status(400), "status 400"),
    "401": (faults.status(401), "rejected this account's token"),
    "403": (faults.status(403), "status 403"),
    "404": (faults.status(404), "status 404"),
    "409": (faults.status(409), "status 409"),
    "429, in seconds": (faults.status(429, None, Retry_After="120"), "busy .status 429."),
    "500": (faults.status(500), "failed .status 500."),
    "502, a page of HTML": (faults.html(502), "failed .status 502."),
    "503": (faults.status(503), "failed .status 503."),
    "503 with Retry-After": (faults.status(503, None, Retry_After="120"), "busy .status 503."),
    "redirected elsewhere": (redirect, "redirects to another address"),
    "ten bytes a second": (faults.drip, "not complete"),
    "ten bytes a second, in the headers": (faults.drip_headers, "not complete"),
    "it hangs": (faults.hang_until_disconnect, "took too long"),
}
PAGES = ["", "models/", "manifests/", "images/", "services/", "operations/", "models/new/", "services/new/"]


@pytest.fixture
def mms() -> Iterator[MMS]:
    with MMS(extensions=True) as server:
        yield server


@pytest.fixture
def account(account: HostingAccount, mms: MMS) -> HostingAccount:
    return furnished(account, mms)


@pytest.fixture
def browser() -> Client:
    return sign_in_superuser()


@pytest.fixture(scope="module", autouse=True)
def elsewhere() -> Iterator[MMS]:
    with ELSEWHERE:
        yield ELSEWHERE
    assert not ELSEWHERE.requests, "neither a request nor a token followed a redirect"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(transport, "DEADLINE_SECONDS", 0.5)


def build(account: HostingAccount) -> Operation:
    """Create an image that is being built."""
    return turn(VERBS[2].ask(account))


def age(account: HostingAccount) -> None:
    """Make all data look as if it was read a minute ago."""
    past = timezone.now() - timedelta(minutes=1)
    age_lists(past, *refresh.LISTS)
    answered = timezone.now() - timedelta(seconds=25)  # less than run.NOT_FOUND_GRACE_SECONDS
    Operation.objects.update(sent_at=answered, accepted_at=answered, checked_at=answered)


def pages(browser: Client, operation: Operation) -> str:
    base = f"/accounts/{operation.account.name}/"
    one_by_one = [f"operations/{operation.pk}/", f"operations/{operation.pk}/log/"]
    one_by_one += [f"services/{row.pk}/" for row in Service.objects.all()[:1]]
    answers = [browser.get(base + path) for path in [*PAGES, *one_by_one]]
    assert {answer.status_code for answer in answers} == {200}
    return answers[-1].content.decode()


@pytest.mark.parametrize("name", READ)
def test_the_last_known_data_remains_with_its_age_and_the_cause(
    name: str,
    account: HostingAccount,
    mms: MMS,
    browser: Client,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault, cause = READ[name]
    operation = build(account)
    before = {noun: set(noun.objects.values_list("mms_id", "vanished_at")) for noun in refresh.LISTS}
    age(account)
    mms.plan("GET", "/", fault, times=100)
    operation = turn(operation)
    refresh.refresh(account.pk, refresh.LISTS)
    events.record_log_interest("operation", operation.pk)
    follow_logs.follow_logs()

    assert operation.state == State.NOT_STARTED
    assert {noun: set(noun.objects.values_list("mms_id", "vanished_at")) for noun in refresh.LISTS} == before
    account.refresh_from_db()
    assert re.search(cause, account.error)
    assert account.error.endswith(".")
    service = Service.objects.select_related("account").first()
    assert badge_of(present(service)).stale_since == present(service).seen_at
    assert re.search(cause, badge_of(present(service)).explanation)
    badge = badge_of(Operation.objects.select_related("account").get(pk=operation.pk))
    assert badge.stale_since == operation.checked_at, "an attempt isn't news"
    assert re.search(cause, badge.explanation)
    assert escape(account.error) in pages(browser, operation)

    mms.heal()
    monkeypatch.setattr(transport, "READ_TIMEOUT_SECONDS", 30.0)
    monkeypatch.setattr(transport, "DEADLINE_SECONDS", 30.0)
    account.replace_token(MMS.token)
    refresh.refresh(account.pk, refresh.LISTS)
    account.refresh_from_db()
    assert (account.error, badge_of(present(Service.objects.select_related("account").first())).stale_since) == (
        "",
        None,
    )
    operation = turn(operation)
    assert badge_of(Operation.objects.select_related("account").get(pk=operation.pk)).stale_since is None
    mms.end()
    assert turn(operation).state == State.SUCCEEDED
    assert not mms.repeated


HANGS = {"hangs": faults.hang_until_disconnect, "drips": faults.drip, "drips headers": faults.drip_headers}


@pytest.mark.slow
@pytest.mark.parametrize("how", HANGS)
def test_operations_of_another_account_are_not_delayed(
    how: str, account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "DEADLINE_SECONDS", 2.0)
    for method in ("GET", "POST"):
        mms.plan(method, "/", HANGS[how], times=200)
    for n in range(30):
        later(register(account, name=f"slow-{n}"), 10)
    HostingAccount.objects.update(services_seen_at=None)
    with MMS() as other:
        second = account_at(other.url, "second")
        held = dispatch.tick()
        wait_until(lambda: len(mms.calls("POST")) == MAX_CALLS_PER_ACCOUNT, 3, "calls that are held", every=0.01)
        begun = time.monotonic()
        quick = later(register(second), 10)
        dispatch.tick()
        refresh.refresh_due()
        wait_until(lambda: Operation.objects.get(pk=quick.pk).state == State.SUCCEEDED, 2, "the other", every=0.01)
        wait_until(lambda: HostingAccount.objects.get(pk=second.pk).services_seen_at, 2, "its lists", every=0.01)
        print(f"{how}: the other account's operation and lists took {time.monotonic() - begun:.2f} s")
        assert SEND_POOL.free_slots(account.pk) == 0, "the first server must still hold its calls"
        mms.heal()
        wait(held)
        wait_until(free, 10, "threads that are free again")


def free() -> bool:
    return not any(pool._busy.total() for pool in (CALL_POOL, SEND_POOL))


def test_a_failing_server_gets_one_thread_so_that_threads_remain_for_others(
    live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_SECONDS", 1.5)
    with MMS() as hanging, MMS() as other:
        hanging.plan("POST", "/", faults.hang_until_disconnect, times=200)
        for n in range(12):
            account = account_at(hanging.url, f"account-{n}")
            HostingAccount.objects.filter(pk=account.pk).update(error="It hung before.", error_at=timezone.now())
            for i in range(4):
                later(register(account, name=f"slow-{i}"), 10)
        held = dispatch.tick()
        assert len(held) == 12
        quick = later(register(account_at(other.url, "other")), 10)
        wait(dispatch.tick(), timeout=1)
        assert Operation.objects.get(pk=quick.pk).state == State.SUCCEEDED
        wait(held)
        wait_until(free, 10, "threads that are free again")


def test_a_pause_requested_in_one_thread_applies_to_all_threads(account: HostingAccount, mms: MMS) -> None:
    """Of eight operations the first gets a 429 while three are being answered and the others are queued."""
    asked = [later(register(account, name=f"model-{n}"), 10) for n in range(8)]

    def busy_once_all_are_sent(connection: faults.Connection, effect: Callable[[], Reply]) -> None:
        wait_until(lambda: len(mms.calls("POST")) == 4, 30, "four requests", every=0.01)
        faults.status(429, None, Retry_After="600")(connection, effect)

    def busy_meanwhile(connection: faults.Connection, effect: Callable[[], Reply]) -> None:
        wait_until(lambda: HostingAccount.objects.get(pk=account.pk).not_before, 30, "the pause", every=0.01)
        connection.reply(effect())

    mms.plan("POST", "/", busy_once_all_are_sent)
    mms.plan("POST", "/", busy_meanwhile, times=3)
    wait(dispatch.tick())
    account.refresh_from_db()
    assert account.error, "a response to an older call must not end the pause"
    assert (present(account.not_before) - timezone.now()).total_seconds() > 590
    assert len(mms.calls("POST")) == 4
    states = [row.state for row in Operation.objects.filter(pk__in=[operation.pk for operation in asked])]
    assert states.count(State.SUCCEEDED) == 3
    assert states.count(State.QUEUED) == 5


def test_a_pause_requested_in_another_worker_is_not_ended_by_an_older_call(account: HostingAccount, mms: MMS) -> None:
    def busy_meanwhile(connection: faults.Connection, effect: Callable[[], Reply]) -> None:
        other_worker = HostingAccount.objects.get(pk=account.pk)
        record_failure(other_worker, errors.BusyError("It is busy.", retry_after=600))
        connection.reply(effect())

    HostingAccount.objects.update(error="It was down.", error_at=timezone.now())
    mms.plan("GET", "/services", busy_meanwhile)
    refresh.refresh(account.pk, [Service])
    account.refresh_from_db()
    assert account.error == "It is busy."
    assert account.not_before


def test_of_two_pauses_the_longer_one_applies(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "/", faults.status(429, None, Retry_After="600"))
    refresh.refresh(account.pk, [Service])
    mms.plan("GET", "/", faults.drop)
    refresh.refresh(account.pk, [Service])
    account.refresh_from_db()
    assert (present(account.not_before) - timezone.now()).total_seconds() > 590


def date_in(seconds: float, *, clock_ahead: float) -> faults.Fault:
    """Return a fault: busy until a date, by the server's clock."""

    def fault(connection: faults.Connection, effect: object) -> None:
        now = datetime.now(UTC) + timedelta(seconds=clock_ahead)
        until = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
        connection.send_response_only(429)
        connection.send_header("Date", format_datetime(now, usegmt=True))
        connection.send_header("Retry-After", until)
        connection.send_header("Content-Length", "0")
        connection.end_headers()

    return fault


@pytest.mark.parametrize("clock_ahead", [-86400, 0, 86400])
def test_a_retry_after_date_refers_to_the_servers_clock(account: HostingAccount, mms: MMS, clock_ahead: float) -> None:
    mms.plan("GET", "/", date_in(300, clock_ahead=clock_ahead))
    refresh.refresh(account.pk, [Service])
    account.refresh_from_db()
    assert (present(account.not_before) - timezone.now()).total_seconds() == pytest.approx(300, abs=10)


@pytest.mark.parametrize("header", ["²", "-5", "soon", "1e9", "Mon, 32 Foo 99999 99:99:99 +9999", "9" * 5000, ""])
def test_an_invalid_retry_after_causes_the_default_pause(account: HostingAccount, mms: MMS, header: str) -> None:
    mms.plan("GET", "/", faults.status(429, None, Retry_After=header))
    refresh.refresh(account.pk, [Service])
    account.refresh_from_db()
    assert "busy" in account.error
    assert (present(account.not_before) - timezone.now()).total_seconds() <= (3600 if header.isdecimal() else 1)


def test_a_refused_token_stops_all_calls_until_it_is_replaced(
    account: HostingAccount, mms: MMS, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = build(account)
    events.record_log_interest("operation", operation.pk)
    account.replace_token("worn-out")
    turn(operation)
    mms.requests.clear()
    HostingAccount.objects.update(services_seen_at=None)
    later(operation, 3600)
    follow_logs.follow_logs()
    assert [*dispatch.tick(), *refresh.refresh_due()] == []
    assert not mms.requests
    page = browser.get(f"/accounts/{account.name}/services/").content.decode()
    assert "The server rejected this account’s token" in compact(page)
    assert "updates its credentials" in compact(page)

    monkeypatch.setattr("sys.stdin", StringIO(f"{MMS.token}\n"))
    call_command("replace_token", account.name, "--token-stdin", stdout=StringIO())
    wait([*dispatch.tick(), *refresh.refresh_due()])
    account.refresh_from_db()
    assert not account.token_refused
    assert HostingAccount.objects.get().services_seen_at
    assert "refuses" not in browser.get(f"/accounts/{account.name}/services/").content.decode()


def test_a_late_refusal_of_the_old_token_does_not_stop_the_new_one(account: HostingAccount, mms: MMS) -> None:
    def replaced_meanwhile(connection: faults.Connection, effect: object) -> None:
        HostingAccount.objects.get(pk=account.pk).replace_token("newer")
        connection.reply(Reply(401))

    mms.plan("GET", "/", replaced_meanwhile)
    refresh.refresh(account.pk, [Service])
    assert not HostingAccount.objects.get().token_refused


@pytest.mark.parametrize("token", ["two words", "a\nb", "“quoted”", "\ud800"])
def test_a_token_that_cannot_be_sent_is_refused_without_revealing_it(
    account: HostingAccount, mms: MMS, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    account.token = token
    with client_for(account) as client, pytest.raises(errors.TokenRefusedError) as refused:
        client.list_models()
    assert token not in str(refused.value) + caplog.text


def test_one_unreadable_list_does_not_block_the_others(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "/models", faults.html(500))
    mms.add_service("new")
    refresh.refresh(account.pk, refresh.LISTS)
    assert Service.objects.filter(name="new").exists()
    assert HostingAccount.objects.get().error.startswith("Couldn't read the list of models. ")


def test_an_unreadable_log_does_not_delay_anything_else(account: HostingAccount, mms: MMS) -> None:
    operation = build(account)
    mms.plan("GET", "/log", faults.status(500), times=100)
    mms.run()
    assert turn(operation).state == State.RUNNING
    events.record_log_interest("operation", operation.pk)
    for _ in range(3):
        follow_logs.follow_logs()
        wait_until(free, 5, "the log")
    assert len(mms.calls("GET", "/log")) == 1, "the log must be paused"
    assert not HostingAccount.objects.get().error


def test_logs_respect_retry_after_and_leave_threads_for_operations(
    account: HostingAccount, mms: MMS, impatient: None
) -> None:
    services = [Service.objects.create(account=account, name=f"s-{n}", mms_id=f"s-{n}") for n in range(6)]
    mms.plan("GET", "/logs", faults.hang_until_disconnect, times=100)
    for service in services:
        events.record_log_interest("service", service.pk)
    follow_logs.follow_logs()
    assert CALL_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT - follow_logs.MAX_LOG_THREADS
    wait_until(free, 5, "the logs")
    mms.heal()
    mms.plan("GET", "/logs", faults.status(429, None, Retry_After="600"))
    for name, asked in (("busy", 1), ("next", 0)):
        another = Service.objects.create(account=account, name=name, mms_id=name)
        events.record_log_interest("service", another.pk)
        mms.requests.clear()
        follow_logs.follow_logs()
        wait_until(free, 5, "the logs")
        assert len(mms.requests) == asked


def test_a_requested_refresh_survives_every_pause() -> None:
    assert timing.MAX_PAUSE_SECONDS < events.INTEREST_SECONDS - 3


def test_the_page_shows_when_a_requested_refresh_will_run(account: HostingAccount, browser: Client) -> None:
    def told() -> str:
        answer = browser.post(f"/accounts/{account.name}/refresh/", follow=True)
        return answer.content.decode()

    assert "The account is syncing." in told()
    until = timezone.now() + timedelta(minutes=5)
    HostingAccount.objects.update(not_before=until, error="It is busy.", error_at=timezone.now())
    page = told()
    assert "when the current wait is over" in compact(page)
    assert "Syncing won’t make it sooner" in compact(page)


def test_the_table_has_as_many_cases_as_the_documentation_says() -> None:
    assert len(READ) == 19

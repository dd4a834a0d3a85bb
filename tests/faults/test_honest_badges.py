"""Reads that fail while others succeed: a badge shows since when its status is unconfirmed, and why."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from dashboard.models import Role
from deployments.accounts.call_pool import CALL_POOL, MAX_CALLS_PER_ACCOUNT
from deployments.client import transport
from deployments.live import events
from deployments.live.badges import NOUN, Badge, badge_of
from deployments.mirror import follow_logs, refresh
from deployments.models import HostingAccount, Image, Operation, Service
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.faults.verbs import VERBS, furnished
from tests.site import wait_until
from tests.support.lifecycle import age_lists, later, turn
from tests.support.programs import Program, person, token_of
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)

UNREADABLE: dict[str, tuple[faults.Fault, str]] = {
    "500": (faults.status(500), "failed (status 500)"),
    "403": (faults.status(403, {"message": "Not yours."}), "Not yours."),
    "reset": (faults.drop, "no usable response"),
    "hangs": (faults.hang_until_disconnect, "took too long"),
    "invalid JSON": (faults.garbage, "isn't valid"),
}


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


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_SECONDS", 0.4)


def program(account: HostingAccount) -> Program:
    return Program(token_of(person("sam", account, Role.SCIENTIST)))


def now_badge(operation: Operation) -> Badge:
    return badge_of(Operation.objects.select_related("account").get(pk=operation.pk))


def last_events(live_redis: redis.Redis, after: str) -> list[events.LiveEvent]:
    found: Any = live_redis.xrange(events.STREAM, f"({after}")
    return [events.decode(fields) for _, fields in found]


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_operation_that_cannot_be_read_says_since_when_and_why_everywhere(
    name: str, account: HostingAccount, mms: MMS, browser: Client, live_redis: redis.Redis
) -> None:
    fault, cause = UNREADABLE[name]
    operation = turn(VERBS[2].ask(account))
    mms.run()
    operation = turn(operation)
    assert now_badge(operation).stale_since is None
    assert operation.checked_at
    known = timezone.now() - timedelta(minutes=2)
    Operation.objects.update(sent_at=known, accepted_at=known, checked_at=known)
    mms.plan("GET", "/operations/", fault, times=100)
    before = events.stream_position()
    operation = turn(later(operation, 0))
    refresh.refresh(account.pk, refresh.LISTS)

    account.refresh_from_db()
    assert account.reached_at, "the rest of the server works"
    badge = now_badge(operation)
    assert (badge.state, badge.stale_since) == (State.RUNNING, known)
    assert cause in badge.explanation
    reported = [event.badge for event in last_events(live_redis, before) if event.badge]
    assert [badge.stale_since for badge in reported if badge.key == f"operation-{operation.pk}"][-1] == known
    row = browser.get(f"/accounts/{account.name}/operations/").content.decode()
    assert "data-stale" in row
    assert "Couldn" in row or "report the progress" in row
    for path in (f"operations/{operation.pk}/", f"images/{operation.image_id}/"):
        assert "last updated" in browser.get(f"/accounts/{account.name}/{path}").content.decode()
    answer = program(account).get(f"/v1/accounts/{account.name}/operations/{operation.pk}/").json()
    assert answer["checked_at"] == known.isoformat()
    assert answer["badge"]["stale_since"] == known.isoformat()
    assert cause in answer["badge"]["reason"]

    mms.heal()
    before = events.stream_position()
    operation = turn(operation)
    assert now_badge(operation).stale_since is None
    assert (operation.check_error, operation.check_failed_at) == ("", None)
    reported = [event.badge for event in last_events(live_redis, before) if event.badge]
    assert reported[-1].stale_since is None, "an open page must be notified"


def test_the_reason_appears_once_the_last_answer_is_old(account: HostingAccount, mms: MMS) -> None:
    operation = turn(turn(VERBS[2].ask(account)))
    mms.plan("GET", "/operations/", faults.status(500), times=2)
    operation = turn(operation)
    badge = now_badge(operation)
    assert badge.stale_since is None, "the last answer is a second old"
    assert badge.until
    assert badge.until < timezone.now() + timedelta(seconds=16), "an open page looks again by then"


def test_the_time_of_the_first_failure_remains(account: HostingAccount, mms: MMS) -> None:
    operation = turn(turn(VERBS[2].ask(account)))
    mms.plan("GET", "/operations/", faults.status(500))
    first = turn(operation).check_failed_at
    assert first
    mms.plan("GET", "/operations/", faults.status(502))
    operation = turn(operation)
    assert operation.check_failed_at == first
    assert "status 502" in operation.check_error


def test_an_uncertain_operation_that_cannot_be_probed_says_since_when(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = False
    refresh.refresh(account.pk, [Service])
    mms.plan("POST", "/models", faults.lose_answer)
    operation = later(turn(VERBS[0].ask(account)), 120)
    sent = operation.sent_at
    mms.plan("GET", "/models", faults.status(500), times=3)
    operation = turn(operation)
    badge = now_badge(operation)
    assert (badge.state, badge.stale_since) == (State.UNCERTAIN, sent)
    assert "failed (status 500)" in badge.explanation
    assert "no usable response" in badge.explanation, "why it is uncertain remains"


def test_resuming_does_not_count_as_a_response(account: HostingAccount, mms: MMS) -> None:
    operation = later(turn(turn(VERBS[2].ask(account))), 24 * 3600 + 60)
    operation = turn(operation)
    assert operation.next_poll_at is None
    known = timezone.now() - timedelta(hours=1)
    Operation.objects.update(checked_at=known)
    accepted = operation.accepted_at
    operation = submit.resume(Operation.objects.get(), "ann")
    assert operation.accepted_at == accepted
    assert now_badge(operation).stale_since == known
    operation = turn(operation)
    assert operation.next_poll_at
    assert now_badge(operation).stale_since is None


@pytest.mark.parametrize("noun", refresh.LISTS, ids=lambda noun: NOUN[noun])
def test_a_list_that_cannot_be_read_makes_its_rows_stale_and_no_others(
    noun: type[Any], account: HostingAccount, mms: MMS, browser: Client
) -> None:
    past = timezone.now() - timedelta(seconds=30)
    age_lists(past, *refresh.LISTS)
    mms.plan("GET", f"/{NOUN[noun]}s", faults.status(500), times=5)
    refresh.refresh(account.pk, refresh.LISTS)
    HostingAccount.objects.update(error="", error_at=None, not_before=None)  # as if other reads had worked since
    for each in refresh.LISTS:
        badge = badge_of(each.objects.select_related("account")[0])
        if each is noun:
            assert badge.stale_since == past
            assert f"Couldn't read the list of {NOUN[noun]}s." in badge.explanation
        else:
            assert badge.stale_since is None
    page = browser.get(f"/accounts/{account.name}/{NOUN[noun]}s/").content.decode()
    assert "Stale, last synced" in page
    assert "data-stale" in page
    reported = program(account).get(f"/v1/accounts/{account.name}/").json()["list_errors"]
    assert [f"{NOUN[each]}s" for each in refresh.LISTS if reported[f"{NOUN[each]}s"]] == [f"{NOUN[noun]}s"]
    mms.heal()
    refresh.refresh(account.pk, [noun])
    assert badge_of(noun.objects.select_related("account")[0]).stale_since is None


def test_images_of_a_server_without_a_list_of_them_say_so(account: HostingAccount, mms: MMS, browser: Client) -> None:
    past = timezone.now() - timedelta(hours=1)
    age_lists(past, Image)
    mms.plan("GET", "/images", faults.status(404))
    refresh.refresh(account.pk, [Image])
    badge = badge_of(Image.objects.select_related("account")[0])
    assert badge.stale_since == past
    assert "no list of images" in badge.explanation
    assert "no list of images" in browser.get(f"/accounts/{account.name}/images/").content.decode()


def test_a_log_that_cannot_be_read_says_since_when_and_why(account: HostingAccount, mms: MMS, browser: Client) -> None:
    operation = turn(turn(VERBS[2].ask(account)))
    service = Service.objects.all()[0]
    for path, url in (
        ("/logs", f"services/{service.pk}/log/"),
        ("/log", f"operations/{operation.pk}/log/"),
    ):
        mms.plan("GET", path, faults.status(500))
        url = f"/accounts/{account.name}/{url}"
        browser.get(url)
        follow_logs.follow_logs()
        wait_until(lambda: CALL_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT, 30, "the log")
        page = browser.get(url)
        assert re.search(r"No new lines since\s+<time", page.content.decode())
        assert "failed (status 500)" in page.content.decode()
        assert "failed%20%28status%20500%29" in browser.get(f"{url}?after=0")["X-Log-Error"]

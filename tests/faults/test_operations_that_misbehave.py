"""Operations that a server loses, reports inconsistently, or ends with unusual states: each reaches an end state."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, cast

import pytest
import redis
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from deployments.live import events
from deployments.live.badges import badge_of
from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Operation, Service
from deployments.models.operation import State
from deployments.operations import dispatch, submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, PlainDialect, Reply
from tests.faults.verbs import VERBS, furnished
from tests.support.html import compact
from tests.support.lifecycle import account_at, later, present, register, turn
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)
ASYNCHRONOUS = [verb for verb in VERBS if verb.name in {"create_image", "create_service", "update_service"}]
DAY = 24 * 3600


@pytest.fixture
def account(account: HostingAccount, mms: MMS) -> HostingAccount:
    return furnished(account, mms)


@pytest.fixture
def browser() -> Client:
    return sign_in_superuser()


def ask(account: HostingAccount, verb: str = "create_image") -> Operation:
    """Create an operation that the server has accepted."""
    return turn(next(one for one in VERBS if one.name == verb).ask(account))


def say(mms: MMS, **status: Any) -> None:
    """Make the server return this for every operation from now on."""
    for operation in mms.operations.values():
        operation |= status


def page_of(browser: Client, operation: Operation) -> str:
    answer = browser.get(f"/accounts/{operation.account.name}/operations/{operation.pk}/")
    assert answer.status_code == 200
    assert browser.get(f"/accounts/{operation.account.name}/operations/").status_code == 200
    return answer.content.decode()


# --- endless operations -------------------------------------------------------------------------------------------


def test_an_endless_operation_is_polled_less_and_less_often_until_it_is_abandoned(
    account: HostingAccount, mms: MMS
) -> None:
    operation = ask(account)
    intervals: list[float] = []
    mms.run()
    while operation.next_poll_at is not None and len(intervals) < 50:
        operation = turn(later(operation, DAY / 20))
        if operation.next_poll_at:
            intervals.append((operation.next_poll_at - timezone.now()).total_seconds())
    assert len(intervals) in {19, 20}, "it ends after a day"
    assert 13 < min(intervals) <= max(intervals) < 17
    assert operation.state == State.RUNNING


def test_an_abandoned_operation_is_shown_as_such_and_can_be_resumed(
    account: HostingAccount, mms: MMS, browser: Client, live_redis: redis.Redis
) -> None:
    operation = turn(later(ask(account), DAY + 60))
    assert operation.next_poll_at is None
    later(operation, 3600)
    assert not dispatch.tick(), "polling must stop"
    assert "Not finished after 24 hours" in badge_of(operation).reason
    assert "Not finished after 24 hours" in page_of(browser, operation)
    told = [events.decode(cast(Any, fields)).badge for _, fields in present(live_redis.xrange(events.STREAM))]
    assert any(badge and "Not finished after 24 hours" in badge.reason for badge in told), (
        "an open page must be notified"
    )
    browser.post(f"/accounts/{account.name}/operations/{operation.pk}/resume/")
    mms.end()
    assert turn(Operation.objects.get(pk=operation.pk)).state == State.SUCCEEDED


# --- lost operations ----------------------------------------------------------------------------------------------


def test_an_operation_that_reappears_continues(account: HostingAccount, mms: MMS) -> None:
    """For example, the server was starting and didn't know the operation for a while."""
    operation = later(ask(account), 60)
    hidden, mms.operations = mms.operations, {}
    operation = turn(operation)
    assert operation.state == State.UNCERTAIN
    assert "no longer knows this operation" in operation.error_message
    mms.operations = hidden
    operation = turn(operation)
    assert (operation.state, operation.error_message) == (State.NOT_STARTED, "")
    mms.end("Failed", {"message": "no space"})
    operation = turn(operation)
    assert (operation.state, operation.error_message) == (State.FAILED, "no space")


@pytest.mark.parametrize("verb", ASYNCHRONOUS, ids=str)
def test_a_lost_operation_is_resolved_by_its_resource(verb: Any, account: HostingAccount, mms: MMS) -> None:
    operation = later(ask(account, verb.name), 60)
    mms.end()
    mms.operations.clear()
    states = [operation.state]
    for _ in range(8):
        operation = turn(later(operation, 35)) if operation.is_open else operation
        states.append(operation.state)
    assert operation.state == State.SUCCEEDED, states
    assert len(mms.calls(verb.method, verb.path)) == 1
    assert not mms.repeated


@pytest.mark.parametrize("verb", ASYNCHRONOUS, ids=str)
def test_an_operation_lost_with_its_resource_waits_for_a_users_decision(
    verb: Any, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    operation = later(ask(account, verb.name), 60)
    mms.operations.clear()
    for service in [row for row in mms.services.values() if row["name"] == "iris"]:
        del mms.services[service["id"]]
    for _ in range(15):
        operation = turn(later(operation, 40))
    assert submit.needs_decision(operation)
    page = page_of(browser, operation)
    assert "Send again" in page
    assert "Don’t send again" in compact(page)
    assert escape("no longer knows this operation") in page
    assert len(mms.calls(verb.method, verb.path)) == 1


def test_a_service_found_in_place_of_its_operation_is_found_again(account: HostingAccount, mms: MMS) -> None:
    """The operation is lost, so its service is polled instead, which also can't be read for a while."""
    operation = later(ask(account, "create_service"), 60)
    mms.operations.clear()
    operation = turn(turn(operation))
    assert (operation.state, operation.mms_operation_id) == (State.NOT_STARTED, "")
    hidden, mms.services = mms.services, {}
    operation = turn(later(operation, 60))
    assert operation.state == State.UNCERTAIN
    mms.services = hidden
    mms.services[present(present(operation.service).mms_id)]["state"] = "Succeeded"
    assert turn(turn(operation)).state == State.SUCCEEDED
    assert len(mms.calls("POST", "/services")) == 1


# --- inconsistent states ------------------------------------------------------------------------------------------


def test_an_operation_with_alternating_states_never_goes_back(account: HostingAccount, mms: MMS) -> None:
    operation, seen = ask(account), []
    for state in ["Running", "NotStarted", "Running", "Frobnicated", "Running", "Succeeded", "Running", "Failed"]:
        if state == "Succeeded":
            mms.end()
        say(mms, state=state)
        operation = turn(operation)
        seen.append((operation.state, operation.error_message))
    odd = "The server reports the unknown state “Frobnicated”."
    running, done = (State.RUNNING, ""), (State.SUCCEEDED, "")
    assert seen == [running, running, running, (State.RUNNING, odd), running, done, done, done]


def test_of_two_contradictory_end_states_the_first_remains(account: HostingAccount, mms: MMS) -> None:
    """Of two concurrent pollers, one receives "Failed" and the other, later, "Succeeded"."""
    operation = ask(account)
    mms.end()

    def failed_meanwhile(connection: faults.Connection, effect: Any) -> None:
        reply = effect()
        say(mms, state="Failed", error="no space")
        Operation.objects.update(next_poll_at=timezone.now())
        turn(operation)
        connection.reply(reply)

    mms.plan("GET", "/operations", failed_meanwhile)
    ended = turn(operation)
    assert (ended.state, ended.error_message) == (State.FAILED, "no space")
    assert Image.objects.get(pk=present(ended.image_id)).mms_id is None


# --- unusual states and errors ------------------------------------------------------------------------------------

WORDS: dict[Any, State] = {
    "Succeeded": State.SUCCEEDED,
    "succeeded": State.SUCCEEDED,
    " SUCCEEDED ": State.SUCCEEDED,
    "Failed": State.FAILED,
    "failed": State.FAILED,
    "Canceled": State.CANCELED,
    "Cancelled": State.CANCELED,
    "CANCELLED": State.CANCELED,
    "running": State.RUNNING,
    "Not Started": State.NOT_STARTED,
    "not_started": State.NOT_STARTED,
}
NO_WORDS = ["Done", "Deleting", "<script>", "x" * 10_000, 7, True, ["Succeeded"], {"state": "Succeeded"}, 1.5]


@pytest.mark.parametrize(("word", "state"), WORDS.items())
def test_a_state_is_recognized_in_any_spelling(
    word: Any, state: State, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    operation = ask(account)
    say(mms, state=word)
    operation = turn(operation)
    assert operation.state == state
    page_of(browser, operation)


@pytest.mark.parametrize("word", NO_WORDS, ids=repr)
def test_an_unknown_state_is_shown_and_polled_again(
    word: Any, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    operation = ask(account)
    say(mms, state=word)
    operation = turn(operation)
    assert operation.state == State.NOT_STARTED
    assert operation.next_poll_at
    assert f"The server reports the unknown state “{str(word).strip()[:20]}" in operation.error_message
    assert escape(operation.error_message) in page_of(browser, operation)
    say(mms, state="Succeeded")
    assert turn(operation).state == State.SUCCEEDED


@pytest.mark.parametrize("word", [None, "", []])
def test_a_response_without_a_state_is_invalid(word: Any, account: HostingAccount, mms: MMS) -> None:
    operation = ask(account)
    say(mms, state=word)
    assert turn(operation).state == State.NOT_STARTED


ERRORS: dict[str, tuple[Any, str]] = {
    "an object": ({"code": "Broken", "message": "no space"}, "no space"),
    "an object in an object": ({"error": {"error": {"message": "no space"}}}, "no space"),
    "in capitals": ({"Code": "Broken", "Message": "no space"}, "no space"),
    "a text": ("no space", "no space"),
    "a text with line breaks around it": ("\r\n no space\r\n\r\n", "no space"),
    "a text with escaped line breaks": ("no space\\r\\n\\n ", "no space"),
    "a message with line breaks": ({"message": "no\nspace\t\r\n"}, "no\nspace"),
    "a list of texts with line breaks": (["no space\r\n"], "['no space']"),
    "null": (None, "The server gave no reason."),
    "an empty text": ("", "The server gave no reason."),
    "an empty object": ({}, "The server gave no reason."),
    "an empty list": ([], "The server gave no reason."),
    "a list of texts": (["no space"], "['no space']"),
    "a list of objects": ([{"message": "no space"}], "[{'message': 'no space'}]"),
    "a number": (507, "507"),
    "true": (True, "True"),
    "details alone": ({"details": [{"message": "no space"}, "and no time", None, 7]}, "no space"),
    "details of no kind": ({"message": "no space", "details": {"a": 1}}, "no space"),
    "a megabyte": ("x" * 1_000_000, "x" * 4000),
    "a megabyte as code": ({"code": "x" * 1_000_000, "message": "no space"}, "no space"),
    "a megabyte in details": ({"message": "no space", "details": [{"message": "x" * 20_000}] * 50}, "no space"),
    "ten thousand details": ({"message": "no space", "details": [{"message": "again"}] * 10_000}, "no space"),
    "a message that is an object": ({"message": {"text": "no space"}}, "{'text': 'no space'}"),
    "markup and control characters": ("<b>no\0 space\ud800</b>", "<b>no space?</b>"),
    "objects 400 deep": (reduce(lambda inner, _: {"error": inner}, range(400), cast(Any, "deep")), "deep"),
}


@pytest.mark.parametrize("shape", ERRORS)
def test_every_form_of_error_is_shown_as_the_reason(
    shape: str, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    error, reason = ERRORS[shape]
    operation = ask(account)
    mms.end("Failed", error)
    operation = turn(operation)
    assert operation.state == State.FAILED
    assert operation.error_message == reason
    page = page_of(browser, operation)
    assert escape(reason) in page
    assert len(page) < 1_500_000


# --- ids and dates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b", "x" * 999, "two words", "../models", "?", "..", "\u00e9/"])
def test_an_accepted_request_without_a_usable_id_is_searched_for(name: str, account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "images", faults.answer(lambda reply: Reply(202, None, {"x-ms-request-id": name})))
    operation = ask(account)
    assert operation.state == State.UNCERTAIN
    assert "returned no operation" in operation.error_message
    mms.end()
    assert turn(operation).state == State.SUCCEEDED
    assert not mms.repeated


def test_an_accepted_request_without_headers_is_searched_for(live_redis: redis.Redis) -> None:
    with MMS(dialect=PlainDialect()) as mms:
        account = furnished(account_at(mms.url), mms)
        mms.plan("POST", "services", faults.answer(lambda reply: Reply(202)))
        operation = ask(account, "create_service")
        assert operation.state == State.UNCERTAIN
        mms.end()
        assert turn(turn(operation)).state == State.SUCCEEDED


@pytest.mark.parametrize("ahead", [-DAY, DAY, -400 * DAY, 400 * DAY])
def test_a_server_clock_that_is_a_day_off_changes_no_deadline(
    ahead: float, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    """Due and stale times depend only on the dashboard's clock."""
    date = (datetime.now(UTC) + timedelta(seconds=ahead)).isoformat()
    operation = ask(account, "create_service")
    say(mms, createdTime=date, endTime=date)
    for row in [*mms.services.values(), *mms.models.values(), *mms.images.values()]:
        row |= {"createdAt": date, "updatedAt": date}
    mms.run()
    operation = turn(operation)
    assert (present(operation.next_poll_at) - timezone.now()).total_seconds() <= 1
    mms.end()
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    refresh.refresh(account.pk, refresh.LISTS)
    service = Service.objects.select_related("account").get(name="iris")
    assert badge_of(service).stale_since is None
    for path in ["", "models/", "images/", "services/", f"services/{service.pk}/"]:
        assert browser.get(f"/accounts/{account.name}/{path}").status_code == 200


DATES = {
    "2017-08-01T10:00:00Z": "2017-08-01T10:00:00",
    "2017-08-01T10:00:00.1234567Z": "2017-08-01T10:00:00.123456",
    "2017-08-01T10:00:00,5Z": "2017-08-01T10:00:00.500000",
    "2017-08-01t10:00:00z": "2017-08-01T10:00:00",
    "2017-08-01 10:00:00Z": "2017-08-01T10:00:00",
    "2017-08-01T10:00:00": "2017-08-01T10:00:00",
    "2017-08-01T12:00:00+02:00": "2017-08-01T10:00:00",
    "2017-08-01T12:00:00+0200": "2017-08-01T10:00:00",
    "2017-08-01T12:00+02": "2017-08-01T10:00:00",
    "2017-08-01T04:30:00-05:30": "2017-08-01T10:00:00",
    "2017-08-01T10:00Z": "2017-08-01T10:00:00",
    "2017-08-01T10": "2017-08-01T10:00:00",
    "20170801T100000Z": "2017-08-01T10:00:00",
    "20170801T1000Z": "2017-08-01T10:00:00",
    "2017-08-01": "2017-08-01T00:00:00",
    "20170801": "2017-08-01T00:00:00",
    "2017-W31-2T10:00:00Z": "2017-08-01T10:00:00",
    "2017W312": "2017-08-01T00:00:00",
    "2017-213T10:00:00Z": "2017-08-01T10:00:00",
    "2017213": "2017-08-01T00:00:00",
    "2017-07-31T24:00:00Z": "2017-08-01T00:00:00",
    "2016-12-31T23:59:60Z": "2016-12-31T23:59:59",
}
NO_DATES: list[Any] = [
    "",
    None,
    7,
    [],
    {},
    True,
    "yesterday",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59.9999999Z",
    "2017-13-01",
]


def test_every_iso_date_is_parsed_and_invalid_dates_are_ignored(
    account: HostingAccount, mms: MMS, browser: Client
) -> None:
    for n, date in enumerate([*DATES, *NO_DATES]):
        mms.add_service(f"dated-{n:02}", createdAt=date, updatedAt=date)
    refresh.refresh(account.pk, [Service])
    rows = Service.objects.filter(name__startswith="dated").order_by("name")
    read = [row.created_at and row.created_at.replace(tzinfo=None).isoformat() for row in rows]
    assert read == [*DATES.values(), *[None] * len(NO_DATES)]
    assert browser.get(f"/accounts/{account.name}/services/").status_code == 200
    for row in rows:
        assert browser.get(f"/accounts/{account.name}/services/{row.pk}/").status_code == 200


# --- claims about sent requests -----------------------------------------------------------------------------------


def test_a_request_sent_once_is_never_reported_as_unsent(live_redis: redis.Redis) -> None:
    """The response was lost, the request is due to be sent again, and the server is unreachable for hours."""
    with MMS(extensions=True) as mms:
        account = account_at(mms.url)
        turn(register(account, name="first"))
        mms.plan("POST", "/models", faults.lose_answer)
        operation = turn(turn(register(account)))
        assert operation.state == State.QUEUED
        HostingAccount.objects.update(base_url="http://127.0.0.1:1", not_before=None)
        operation = later(turn(operation), 4000)
        HostingAccount.objects.update(error_at=operation.requested_at)
        dispatch.sweep()
        assert Operation.objects.get(pk=operation.pk).state == State.QUEUED, "its outcome can still be determined"
        operation = submit.cancel(Operation.objects.get(pk=operation.pk), "bob")
        assert "It is unknown whether it took effect the first time" in operation.error_message


def test_a_long_outage_requires_no_decision(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.lose_answer)
    operation = turn(register(account))
    mms.plan("GET", "/models", faults.drop, times=20)
    for _ in range(20):
        operation = turn(later(operation, 60))
        assert operation.state == State.UNCERTAIN
        assert not submit.needs_decision(operation)
    assert turn(operation).state == State.SUCCEEDED
    assert len(mms.calls("POST")) == 1


def test_a_sent_request_that_cannot_be_repeated_is_not_reported_as_without_effect(
    account: HostingAccount, mms: MMS
) -> None:
    mms.plan("POST", "/images", faults.lose_answer)
    operation = ask(account)
    account.registries.all().delete()
    operation = turn(operation)
    assert operation.state == State.FAILED
    assert "no longer exists" in operation.error_message
    assert "It is unknown whether it took effect when it was sent." in operation.error_message


def test_a_request_to_cancel_remains_while_the_server_is_busy(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    operation = submit.cancel(ask(account), "bob")
    mms.plan("DELETE", "/operations", faults.status(429, None, Retry_After="60"))
    mms.requests.clear()
    operation = turn(operation)
    assert operation.cancel_requested
    assert len(mms.requests) == 1, "a busy server must get no other requests"
    operation = turn(later(operation, 61))
    assert (operation.state, operation.error_message) == (State.CANCELED, "bob requested to cancel this.")


def test_one_unreadable_operation_does_not_mark_the_account_as_failing(
    account: HostingAccount, mms: MMS, browser: Client
) -> None:
    operation = ask(account)
    mms.plan("GET", "/operations", faults.status(403, {"error": {"message": "Not yours."}}))
    operation = turn(operation)
    assert escape("doesn't report the progress: Not yours.") in page_of(browser, operation)
    assert not HostingAccount.objects.get().error
    mms.run()
    assert turn(operation).error_message == ""

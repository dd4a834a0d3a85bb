"""Polls of many operations: few calls and writes, and none of them affects another operation."""

import time
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.accounts.availability import client_for, end_pause
from deployments.accounts.call_pool import CALL_POOL
from deployments.models import HostingAccount, Operation
from deployments.models.operation import NEEDS_DECISION, Kind, State
from deployments.operations import dispatch, poll, reconcile, run, submit
from deployments.timing import MAX_ATTEMPTS
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.support.lifecycle import later, manifest_of, present, register, registry_of, turn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    yield
    poll._batching_accounts.clear()
    poll._one_at_a_time_until.clear()


def accepted(account: HostingAccount, count: int, *, seconds: float = 5) -> list[Operation]:
    """Return builds that the server has accepted and that are due to be polled."""
    manifest = manifest_of(account, f"manifest-{time.monotonic_ns()}")
    registry = account.registries.first() or registry_of(account)
    asked = [submit.create_image(account, "ann", manifest=manifest, registry=registry) for _ in range(count)]
    return [later(turn(operation), seconds) for operation in asked]


def ids_of(operations: list[Operation]) -> list[Any]:
    return [operation.pk for operation in operations]


def states_of(operations: list[Operation]) -> list[str]:
    return [Operation.objects.get(pk=operation.pk).state for operation in operations]


def make_due(account: HostingAccount) -> None:
    Operation.objects.filter(account=account).exclude(next_poll_at=None).update(next_poll_at=timezone.now())


def status_calls(mms: MMS) -> list[str]:
    """Return the requests to the operations' paths, and clear them."""
    found = [request.path + ("?ids" if request.query.get("ids") else "") for request in mms.calls("GET", "/operations")]
    mms.requests.clear()
    return found


# --- cost ---------------------------------------------------------------------------------------------------------


def test_a_server_with_operation_ids_gets_one_request_for_all_states(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    operations = accepted(account, 5)
    mms.run()
    dispatch.run_polls(account.pk, ids_of(operations))
    assert states_of(operations) == [State.RUNNING] * 5
    assert [call.endswith("?ids") for call in status_calls(mms)] == [False, True], "the first response offers it"
    make_due(account)
    mms.end()
    wait(dispatch.tick())
    assert states_of(operations) == [State.SUCCEEDED] * 5
    assert status_calls(mms)[0].endswith("?ids")


def test_a_server_without_operation_ids_gets_one_request_per_operation(account: HostingAccount, mms: MMS) -> None:
    operations = accepted(account, 5)
    mms.end()
    dispatch.run_polls(account.pk, ids_of(operations))
    assert states_of(operations) == [State.SUCCEEDED] * 5
    assert not [call for call in status_calls(mms) if call.endswith("?ids")]


@pytest.mark.parametrize("extensions", [False, True])
def test_unchanged_operations_take_few_queries_however_many_they_are(
    account: HostingAccount, mms: MMS, extensions: bool
) -> None:
    mms.extensions = extensions

    def queries(count: int) -> list[str]:
        operations = accepted(account, count)
        dispatch.run_polls(account.pk, ids_of(operations))  # now the extensions are known
        make_due(account)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            dispatch.run_polls(account.pk, ids_of(operations))
        return [query["sql"] for query in captured if "is_callable" not in query["sql"]]

    few, many = queries(3), queries(18)
    updates = [sql for sql in many if sql.startswith("UPDATE")]
    assert len([sql for sql in many if "deployments_operation" in sql]) == len(
        [sql for sql in few if "deployments_operation" in sql]
    )
    assert len(updates) <= 4, updates
    with_secrets = [sql for sql in many if any(word in sql for word in ("registryinfo", "cluster", "scoring_key"))]
    assert len(with_secrets) == 1, "no request is rebuilt; the secrets to redact are looked up once per connection"


def test_a_check_counts_only_if_the_server_answered(account: HostingAccount, mms: MMS) -> None:
    [first, second] = accepted(account, 2)
    mms.plan("GET", first.mms_operation_id, faults.status(500))
    before = timezone.now()
    dispatch.run_polls(account.pk, ids_of([first, second]))
    first.refresh_from_db()
    second.refresh_from_db()
    assert first.checked_at is None or first.checked_at < before
    assert present(second.checked_at) > before


def test_operations_that_a_turn_did_not_reach_stay_due(account: HostingAccount, mms: MMS) -> None:
    operations = accepted(account, 4)
    over = iter([False, False, True, True, True, True])
    with client_for(account) as client:
        poll.poll_batch(account, ids_of(operations), client, lambda: next(over))
    due = Operation.objects.filter(next_poll_at__lte=timezone.now()).count()
    assert due == 4 - len(status_calls(mms)) > 0


def test_two_workers_claim_each_operation_once(account: HostingAccount, mms: MMS) -> None:
    operations = accepted(account, 3)
    first = poll._claim(account, ids_of(operations))
    assert {operation.pk for operation in first} == set(ids_of(operations))
    assert poll._claim(account, ids_of(operations)) == []


def test_new_operations_are_polled_first_and_old_ones_are_not_starved(
    account: HostingAccount, monkeypatch: pytest.MonkeyPatch, mms: MMS
) -> None:
    monkeypatch.setattr(dispatch, "MAX_POLLS", 4)
    monkeypatch.setattr(dispatch, "MAX_YOUNG_POLLS", 4)
    monkeypatch.setattr(dispatch, "MIN_OLD_POLLS", 1)
    old = accepted(account, 3, seconds=600)
    young = accepted(account, 6)
    due = Operation.objects.filter(account=account).order_by("next_poll_at")
    chosen = dispatch._next_to_poll(account, due)
    assert len(chosen) == 4
    assert len(set(chosen) & set(ids_of(young))) == 3
    assert set(chosen) & set(ids_of(old))


# --- several states in one request, at a server that fails intermittently
# --------------------------------------------------


def test_if_the_states_cannot_be_read_together_each_is_read_alone_for_a_while(
    account: HostingAccount, mms: MMS
) -> None:
    mms.extensions = True
    operations = accepted(account, 3)
    dispatch.run_polls(account.pk, ids_of(operations))
    assert poll.returns_several_states(account.pk)
    make_due(account)
    mms.run()
    status_calls(mms)
    mms.plan("GET", "/operations", faults.status(500))
    dispatch.run_polls(account.pk, ids_of(operations))
    assert states_of(operations) == [State.RUNNING] * 3
    assert [call.endswith("?ids") for call in status_calls(mms)] == [True, False, False, False]
    make_due(account)
    dispatch.run_polls(account.pk, ids_of(operations))
    assert not [call for call in status_calls(mms) if call.endswith("?ids")]
    assert not HostingAccount.objects.get().error


def test_an_operation_that_is_missing_among_several_is_requested_separately(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    operations = accepted(account, 3, seconds=60)
    dispatch.run_polls(account.pk, ids_of(operations))
    make_due(account)
    status_calls(mms)
    del mms.operations[operations[1].mms_operation_id]
    dispatch.run_polls(account.pk, ids_of(operations))
    assert states_of(operations) == [State.NOT_STARTED, State.UNCERTAIN, State.NOT_STARTED]
    assert len(status_calls(mms)) == 2


# --- one operation that can't be read -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.status(500), faults.drop, faults.garbage, faults.status(403)])
def test_an_operation_that_cannot_be_read_waits_alone_and_says_why(
    account: HostingAccount, mms: MMS, fault: faults.Fault
) -> None:
    [culprit, other] = accepted(account, 2)
    intervals = []
    mms.plan("GET", culprit.mms_operation_id, fault, times=4)
    for _ in range(4):
        culprit = turn(later(culprit, 1))
        intervals.append((present(culprit.next_poll_at) - timezone.now()).total_seconds())
        assert "Couldn't check this operation" in culprit.check_error or "doesn't report" in culprit.check_error
        assert HostingAccount.objects.get().next_attempt_at is None
        assert turn(later(other, 1)).state == State.NOT_STARTED
    assert intervals == sorted(intervals)
    assert intervals[-1] > 10
    assert turn(register(account)).state == State.SUCCEEDED, "other requests aren't delayed"
    mms.run()
    culprit = turn(culprit)
    assert (culprit.state, culprit.error_message, culprit.check_error) == (State.RUNNING, "", "")
    assert culprit.failures == 0


def test_the_server_is_paused_once_several_different_operations_cannot_be_read(
    account: HostingAccount, mms: MMS
) -> None:
    operations = accepted(account, 4)
    mms.plan("GET", "/operations", faults.status(500), times=100)
    for operation in operations[:2]:
        turn(operation)
        assert HostingAccount.objects.get().next_attempt_at is None
    turn(operations[2])
    paused = HostingAccount.objects.get()
    assert paused.next_attempt_at
    assert "failed (status 500)" in paused.error
    mms.requests.clear()
    dispatch.run_polls(account.pk, ids_of(operations))
    assert not mms.requests


def test_a_server_that_cannot_be_reached_is_paused_at_the_first_attempt(account: HostingAccount, mms: MMS) -> None:
    [operation] = accepted(account, 1)
    HostingAccount.objects.update(base_url="http://127.0.0.1:1")
    operation = turn(operation)
    assert HostingAccount.objects.get().next_attempt_at
    assert (operation.error_message, operation.failures) == ("", 0), "it isn't the operation's fault"


# --- unexpected exceptions ----------------------------------------------------------------------------------------


def test_an_unexpected_exception_is_recorded_on_its_operation_and_ends_no_batch(
    account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = accepted(account, 3)
    culprit = operations[1]
    mms.run()
    advance = poll._advance

    def broken(operation: Operation, *args: Any) -> None:
        if operation.pk == culprit.pk:
            raise KeyError("secret-9917")
        advance(operation, *args)

    monkeypatch.setattr(poll, "_advance", broken)
    dispatch.run_polls(account.pk, ids_of(operations))
    assert states_of(operations) == [State.RUNNING, State.NOT_STARTED, State.RUNNING]
    culprit.refresh_from_db()
    assert "unexpected error (KeyError)" in culprit.error_message
    assert "9917" not in culprit.error_message
    assert (present(culprit.next_poll_at) - timezone.now()).total_seconds() > 1
    monkeypatch.undo()
    culprit = turn(culprit)
    assert (culprit.state, culprit.error_message) == (State.RUNNING, "")


def test_a_request_that_cannot_be_built_is_retried_then_failed_and_ends_no_batch(
    account: HostingAccount, mms: MMS
) -> None:
    operations = [later(register(account, name=f"m-{number}"), 10) for number in range(3)]
    culprit = operations[0]
    Operation.objects.filter(pk=culprit.pk).update(body={"nonsense": 1})
    wait(dispatch.tick())
    assert states_of(operations) == [State.QUEUED, State.SUCCEEDED, State.SUCCEEDED]
    culprit.refresh_from_db()
    assert "unexpected error (TypeError)" in culprit.error_message
    assert culprit.attempts == 0
    waits: list[float] = []
    while culprit.state == State.QUEUED and len(waits) < 20:
        waits.append((present(culprit.next_poll_at) - timezone.now()).total_seconds())
        culprit = turn(culprit)
    assert (culprit.state, culprit.error_code) == (State.FAILED, run.UNEXPECTED_ERROR)
    assert len(waits) == 4
    assert waits == sorted(waits)
    assert len(mms.calls("POST")) == 2


def test_an_unexpected_exception_after_sending_leaves_the_outcome_uncertain(
    account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = run.SEND[Kind.REGISTER_MODEL]

    def broken(*args: Any) -> Any:
        send(*args)
        raise RuntimeError

    monkeypatch.setitem(run.SEND, Kind.REGISTER_MODEL, broken)
    operation = turn(register(account))
    assert operation.state == State.UNCERTAIN
    assert "unexpected error" in operation.error_message
    assert turn(operation).state == State.SUCCEEDED, "its effect is found"
    assert not mms.repeated


def test_a_search_that_always_fails_unexpectedly_asks_a_user(
    account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    mms.plan("POST", "/models", faults.lose_answer)
    operation = turn(register(account))

    def broken(*args: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(reconcile, "_probe", broken)
    for _ in range(MAX_ATTEMPTS):
        operation = turn(later(operation, 100))
    assert operation.error_code == NEEDS_DECISION


# --- refused credentials ------------------------------------------------------------------------------------------


def refused(account: HostingAccount, mms: MMS) -> Operation:
    """Return an operation that waits, because the server rejected the token once."""
    mms.plan("POST", "/models", faults.status(401))
    operation = turn(register(account))
    account.refresh_from_db()
    assert account.token_refused
    mms.requests.clear()
    return operation


def let_pass(account: HostingAccount, seconds: float) -> None:
    """Move the account's times into the past."""
    account.refresh_from_db()
    past = timedelta(seconds=seconds)
    times = {name: getattr(account, name) for name in ("error_at", "refusal_retry_at", "not_before")}
    HostingAccount.objects.update(**{name: value - past for name, value in times.items() if value})


def until_retry(account: HostingAccount) -> float:
    account.refresh_from_db()
    return (present(account.refusal_retry_at) - timezone.now()).total_seconds()


def test_rejected_credentials_are_retried_after_a_minute_with_one_small_read(account: HostingAccount, mms: MMS) -> None:
    operation = later(refused(account, mms), 10)
    assert 55 < until_retry(account) <= 60
    assert not dispatch.tick()
    let_pass(account, 61)
    wait(dispatch.tick())
    assert [(request.method, request.path.split("/")[1]) for request in mms.requests] == [("GET", "operations")]
    account.refresh_from_db()
    assert not account.has_trouble
    wait(dispatch.tick())
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED


def test_rejected_credentials_are_retried_less_often_but_at_least_hourly(account: HostingAccount, mms: MMS) -> None:
    refused(account, mms)
    mms.plan("GET", "/", faults.status(401), times=100)
    pauses = []
    for _ in range(10):
        let_pass(account, until_retry(account) + 1)
        wait(dispatch.tick())
        pauses.append(round(until_retry(account)))
    assert pauses == sorted(pauses)
    assert pauses[0] < 130
    assert pauses[-1] == 3600
    assert len(mms.requests) == 10, "one call each"


def test_a_server_that_is_down_does_not_count_as_accepting_the_credentials(account: HostingAccount, mms: MMS) -> None:
    refused(account, mms)
    let_pass(account, 61)
    mms.plan("GET", "/", faults.status(500))
    wait(dispatch.tick())
    account.refresh_from_db()
    assert account.token_refused
    assert account.next_attempt_at


def test_two_workers_retry_rejected_credentials_once(account: HostingAccount, mms: MMS) -> None:
    refused(account, mms)
    let_pass(account, 61)

    def second_worker(connection: faults.Connection, effect: Any) -> None:
        wait(dispatch.tick())
        connection.reply(effect())

    mms.plan("GET", "/", second_worker)
    wait(dispatch.tick())
    assert len(mms.requests) == 1


def test_new_credentials_end_the_pause_immediately(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.status(429, None, Retry_After="600"))
    operation = turn(register(account))
    HostingAccount.objects.get().replace_token(MMS.token)
    wait(dispatch.tick())
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED


# --- pauses that an operator ends ---------------------------------------------------------------------------------


def test_an_operator_can_end_a_pause_of_a_year(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.status(429, None, Retry_After=str(365 * 86400)))
    operation = turn(register(account))
    account.refresh_from_db()
    assert (present(account.next_attempt_at) - timezone.now()).total_seconds() > 3500
    assert end_pause(account)
    wait(dispatch.tick())
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    assert not HostingAccount.objects.get().has_trouble


def test_ending_the_pause_of_refused_credentials_tries_them_again(account: HostingAccount, mms: MMS) -> None:
    refused(account, mms)
    assert end_pause(HostingAccount.objects.get())
    wait(dispatch.tick())
    assert not HostingAccount.objects.get().token_refused


def test_without_a_pause_there_is_nothing_to_end(account: HostingAccount) -> None:
    assert not end_pause(account)


def test_a_single_free_thread_is_shared_by_all_kinds_of_checks(
    account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    [uncertain, failing, *_] = accepted(account, 6)
    Operation.objects.filter(pk=uncertain.pk).update(state=State.UNCERTAIN)
    Operation.objects.filter(pk=failing.pk).update(failures=1)
    due = Operation.objects.filter(account=account)
    firsts: set[str] = set()
    started: list[str] = []

    def submit_work(_: int, work: Any, part: list[Any], limit: int) -> None:
        started.append("uncertain" if uncertain.pk in part else "failing" if failing.pk in part else "others")

    monkeypatch.setattr(CALL_POOL, "submit", submit_work)
    for _ in range(100):
        started.clear()
        dispatch._start_polls(account, due)
        firsts.add(started[0])
    assert firsts == {"uncertain", "failing", "others"}

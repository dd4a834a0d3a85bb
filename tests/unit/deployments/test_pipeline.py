"""Operations from the request to a terminal state, with a server on loopback and a real Redis."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection
from django.utils import timezone

from deployments.accounts import availability
from deployments.accounts.availability import client_for
from deployments.accounts.call_pool import CALL_POOL, MAX_CALLS_PER_ACCOUNT, SEND_POOL
from deployments.live import events
from deployments.live.transitions import transition
from deployments.mirror import follow_logs
from deployments.models import HostingAccount, Image, Operation, Service
from deployments.models.operation import State
from deployments.operations import dispatch, poll, run, submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, OldDialect, Reply
from tests.site import wait_until
from tests.support.lifecycle import (
    KUBE_CONFIG,
    KUBE_TOKEN,
    PASSWORD,
    account_at,
    asset_of,
    cluster_of,
    image_of,
    later,
    manifest_of,
    present,
    register,
    registry_of,
    turn,
)

pytestmark = pytest.mark.django_db(transaction=True)


def build(account: HostingAccount) -> Operation:
    return submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))


def deploy(account: HostingAccount, name: str = "iris") -> Operation:
    return submit.create_service(account, "ann", name=name, image=image_of(account), cluster=cluster_of(account))


def test_a_registered_model_gets_its_id_and_version(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("iris")
    operation = turn(register(account, tags=["flowers"], description="three kinds"))
    assert operation.state == State.SUCCEEDED
    assert present(operation.model).version == 2
    assert present(operation.model).mms_id in mms.models
    [sent] = mms.calls("POST")
    assert sent.path == "/models"
    assert sent.body == {
        "name": "iris",
        "url": "http://files.example/iris.pkl",
        "tags": ["flowers"],
        "description": "three kinds",
        "mimeType": "",
        "unpack": False,
    }
    assert sent.query["api-version"] == ["2017-06-01-privatepreview"]
    assert sent.headers["x-ms-client-request-id"] == str(operation.pk)


def test_a_manifest_names_its_models_by_id_and_its_driver_by_asset(account: HostingAccount, mms: MMS) -> None:
    model = present(turn(register(account)).model)
    asked = submit.create_manifest(
        account,
        "ann",
        models=[model],
        assets=[],
        driver=asset_of(account),
        runtime_type="ScikitPython",
        pip_requirements="scikit-learn==1.5",
    )
    operation = turn(asked)
    assert operation.state == State.SUCCEEDED
    body = mms.calls("POST", "manifests")[0].body
    assert body["modelIds"] == [model.mms_id]
    assert body["driverProgram"] == "score"
    assert [asset["id"] for asset in body["assets"]] == ["score"]
    assert body["targetRuntime"]["properties"] == {"pipRequirements": "scikit-learn==1.5"}
    assert list(present(operation.manifest).models.all()) == [model]


def test_an_image_is_followed_until_it_is_built(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    assert operation.state == State.NOT_STARTED
    mms.run()
    assert turn(operation).state == State.RUNNING
    mms.end()
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert present(operation.image).mms_id in mms.images
    assert operation.finished_at


@pytest.mark.parametrize("extensions", [False, True])
def test_a_service_is_created_updated_and_deleted(account: HostingAccount, mms: MMS, extensions: bool) -> None:
    mms.auto, mms.extensions = True, extensions
    service = present(turn(turn(deploy(account))).service)
    assert service.mms_id in mms.services
    assert service.state == "Succeeded"
    assert service.health == ("healthy" if extensions else "")
    assert service.scoring_key == (f"key-of-{service.mms_id}" if extensions else None)

    other = image_of(account, "image-2")
    updated = turn(turn(submit.update_service(account, "bob", service=service, image=other)))
    assert updated.state == State.SUCCEEDED
    assert present(updated.service).image == other
    body = mms.calls("PUT")[0].body
    assert body == {"manifestId": present(other.manifest).mms_id, "imageId": "image-2", "acrImagePullSecret": "puller"}

    deleted = turn(submit.delete_service(account, "bob", service=Service.objects.get()))
    assert deleted.state == State.SUCCEEDED
    assert present(deleted.service).vanished_at
    assert not mms.services


def test_the_spellings_of_2017_are_understood(live_redis: redis.Redis) -> None:
    with MMS(dialect=OldDialect(), extensions=True) as mms:
        operation = turn(build(account_at(mms.url)))
        assert operation.state == State.NOT_STARTED
        submit.cancel(operation, "ann")
        operation = turn(operation)
    assert operation.state == State.CANCELED


def test_a_task_delivered_twice_sends_once(account: HostingAccount, mms: MMS) -> None:
    operation = register(account)
    twice = [Operation.objects.select_related("account", "model").get(pk=operation.pk) for _ in range(2)]
    with client_for(account) as client:
        for delivered in twice:
            run.send(delivered, client)
    assert mms.effects["models"] == 1


def test_ten_concurrent_workers_send_once(account: HostingAccount, mms: MMS) -> None:
    operation = register(account)
    mms.plan("POST", "models", faults.hang(0.3))
    threads = [threading.Thread(target=dispatch.run_steps, args=(account.pk, [operation.pk])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mms.calls("POST")) == 1
    assert Operation.objects.get(pk=operation.pk).state == State.SUCCEEDED


def test_two_pollers_at_once_ask_and_advance_once(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end()
    both = [Operation.objects.select_related("account", "image").get(pk=operation.pk) for _ in range(2)]
    with client_for(account) as client:
        for poller in both:
            poll.poll(poller, client)
    assert len(mms.calls("GET", f"operations/{operation.mms_operation_id}")) == len(mms.calls("GET", "/log")) + 1
    assert Operation.objects.get(pk=operation.pk).state == State.SUCCEEDED


def test_a_terminal_state_never_goes_back(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end("Failed", {"code": "Broken", "message": "no space"})
    late = Operation.objects.select_related("account", "image").get(pk=operation.pk)
    operation = turn(operation)
    assert operation.state == State.FAILED
    with client_for(account) as client:
        assert not transition(late, State.RUNNING)
        run.succeed(late, None, "image-9")
        dispatch.step(operation.pk, client, account)
    operation.refresh_from_db()
    assert operation.state == State.FAILED
    assert Image.objects.get(pk=present(operation.image_id)).mms_id is None


def test_a_state_that_flaps_back_is_ignored(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.run()
    operation = turn(operation)
    for remote in mms.operations.values():
        remote["state"] = "NotStarted"
    assert turn(operation).state == State.RUNNING


def test_an_unknown_state_is_shown_and_polled_again(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end("Frobnicated")
    operation = turn(operation)
    assert operation.state == State.NOT_STARTED
    assert "Frobnicated" in operation.error_message
    assert operation.next_poll_at


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "Broken", "message": "no space", "details": [{"message": "line 1"}]}, "no space"),
        ({"error": {"code": "Broken", "message": "no space"}}, "no space"),
        ("no space", "no space"),
        (None, "The server gave no reason."),
        (["no space"], "['no space']"),
        ({"message": "x" * 1_000_000}, "x" * 4000),
    ],
)
def test_every_form_of_error_becomes_a_reason(account: HostingAccount, mms: MMS, error: object, reason: str) -> None:
    operation = turn(build(account))
    mms.end("Failed", error)
    operation = turn(operation)
    assert operation.state == State.FAILED
    assert operation.error_message == reason


def test_a_finished_operation_stays_finished_if_reading_its_resource_fails(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end()
    mms.plan("GET", "/images/", faults.html(502))
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert present(operation.image).mms_id in mms.images


def test_a_rejected_request_fails_with_the_servers_reason(account: HostingAccount, mms: MMS) -> None:
    error = {"error": {"code": "BadName", "message": "No such name.", "details": [{"target": "name"}]}}
    mms.plan("POST", "models", faults.status(400, error))
    operation = turn(register(account))
    assert (operation.state, operation.error_code) == (State.FAILED, "BadName")
    assert operation.error_message == "No such name."
    assert operation.error_details == [{"code": "", "message": "", "target": "name"}]


def test_a_busy_server_is_called_again_after_retry_after(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "models", faults.status(429, None, Retry_After="120"))
    operation = turn(register(account))
    assert (operation.state, operation.attempts) == (State.QUEUED, 0)
    wait_for = (present(operation.next_poll_at) - timezone.now()).total_seconds()
    assert 110 < wait_for < 121
    later(operation, 121)
    assert not dispatch.tick(), "the account as a whole is left alone"
    HostingAccount.objects.update(not_before=timezone.now())
    wait(dispatch.tick())
    assert Operation.objects.get().state == State.SUCCEEDED


def test_a_server_that_cannot_be_reached_gets_the_request_once_it_is_back(account: HostingAccount, mms: MMS) -> None:
    HostingAccount.objects.update(base_url="http://127.0.0.1:1")
    operation = turn(register(account))
    assert operation.state == State.QUEUED
    assert "Couldn't reach" in operation.error_message
    HostingAccount.objects.update(base_url=mms.url, not_before=None)
    operation = turn(operation)
    assert (operation.state, operation.error_message) == (State.SUCCEEDED, "")
    assert not HostingAccount.objects.get().error


def test_a_refused_token_stops_all_calls_until_it_is_replaced(account: HostingAccount, mms: MMS) -> None:
    account.replace_token("old")
    operation = turn(register(account))
    assert operation.state == State.QUEUED
    assert "token" in operation.error_message
    account.refresh_from_db()
    assert account.token_refused
    later(operation, 3600)
    HostingAccount.objects.update(not_before=None)
    assert not dispatch.tick()
    assert len(mms.requests) == 1
    account.replace_token(MMS.token)
    wait(dispatch.tick())
    assert Operation.objects.get().state == State.SUCCEEDED


def test_a_redirect_gets_neither_the_token_nor_the_request(account: HostingAccount, mms: MMS) -> None:
    with MMS() as other:
        elsewhere = Reply(307, headers={"Location": f"{other.url}/api/x"})
        mms.plan("POST", "models", lambda connection, effect: connection.reply(elsewhere))
        operation = turn(register(account))
        assert not other.requests
    assert operation.state == State.FAILED
    assert "base URL" in operation.error_message


def test_a_lost_queue_message_costs_seconds_only(account: HostingAccount, mms: MMS) -> None:
    operation = register(account)
    assert not dispatch.tick(), "the queue message has its chance first"
    later(operation, 5)
    wait(dispatch.tick())
    assert Operation.objects.get().state == State.SUCCEEDED


def test_the_operation_of_a_dead_worker_is_reconciled(account: HostingAccount) -> None:
    operation = register(account)
    Operation.objects.update(state=State.SENDING, sent_at=timezone.now(), claimed_until=timezone.now(), attempts=1)
    dispatch.sweep()
    operation.refresh_from_db()
    assert operation.state == State.UNCERTAIN
    assert operation.next_poll_at


def test_an_operation_that_could_not_be_sent_for_an_hour_fails(account: HostingAccount) -> None:
    HostingAccount.objects.update(base_url="http://127.0.0.1:1")
    operation = later(turn(register(account)), 3700)
    HostingAccount.objects.update(error_at=operation.requested_at)
    dispatch.sweep()
    operation.refresh_from_db()
    assert operation.state == State.FAILED
    assert "Nothing was sent" in operation.error_message


def test_polling_slows_stops_after_a_day_and_can_be_resumed(account: HostingAccount, mms: MMS) -> None:
    operation = later(turn(build(account)), 30 * 60)
    operation = turn(operation)
    assert 13 < (present(operation.next_poll_at) - timezone.now()).total_seconds() < 17
    operation = turn(later(operation, 24 * 3600))
    assert operation.next_poll_at is None
    assert "resume" in operation.error_message
    operation = turn(submit.resume(operation, "ann"))
    assert operation.next_poll_at
    mms.end()
    assert turn(operation).state == State.SUCCEEDED


@pytest.mark.slow
def test_a_server_that_hangs_does_not_block_others(account: HostingAccount, mms: MMS) -> None:
    with MMS() as other:
        second = account_at(other.url, "other")
        mms.plan("POST", "models", faults.hang(1.5), times=30)
        for n in range(30):
            later(register(account, name=f"slow-{n}"), 10)
        slow = dispatch.tick()
        quick = later(register(second), 10)
        wait(dispatch.tick(), timeout=1)
        quick.refresh_from_db()
        assert quick.state == State.SUCCEEDED
        assert 0 < len(mms.calls("POST")) <= MAX_CALLS_PER_ACCOUNT
        mms._plans.clear()
        wait(slow)


def test_queue_messages_for_a_server_that_hangs_take_no_more_threads(account: HostingAccount, mms: MMS) -> None:
    released = threading.Event()
    mms.plan("POST", "models", held_until(released), times=20)
    for n in range(20):
        dispatch.start(str(register(account, name=f"slow-{n}").pk))
    assert SEND_POOL.free_slots(account.pk) == 0
    wait_until(lambda: len(mms.calls("POST")) == MAX_CALLS_PER_ACCOUNT, 30, "calls that are held")
    assert CALL_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT, "polls have threads of their own"
    released.set()
    wait_until(lambda: SEND_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT, 30, "free threads")
    assert Operation.objects.filter(state=State.SUCCEEDED).count() == 20, "those that waited follow without a tick"


def test_a_request_is_sent_while_polls_occupy_all_their_threads(account: HostingAccount, mms: MMS) -> None:
    released = threading.Event()
    accepted(account, 8)
    mms.plan("GET", "/operations", held_until(released), times=100)
    held = [*dispatch.tick(), *(CALL_POOL.submit(account.pk, wait_for(released)) for _ in range(4))]
    assert CALL_POOL.free_slots(account.pk) == 0
    operation = register(account)
    dispatch.start(str(operation.pk))
    wait_until(lambda: Operation.objects.get(pk=operation.pk).state == State.SUCCEEDED, 30, "the request")
    second = later(register(account, name="second"), 10)
    wait(dispatch.tick())
    second.refresh_from_db()
    assert second.state == State.SUCCEEDED
    mms.heal()
    released.set()
    wait([future for future in held if future])


def held_until(released: threading.Event) -> faults.Fault:
    """Return a fault: the effect and the response wait for the event."""

    def fault(connection: faults.Connection, effect: Callable[[], Reply]) -> None:
        released.wait(30)
        connection.reply(effect())

    return fault


def wait_for(released: threading.Event) -> Callable[[int], None]:
    def work(account_id: int) -> None:
        released.wait(30)

    return work


def accepted(account: HostingAccount, count: int) -> list[Operation]:
    """Return builds that the server has accepted and that are due to be polled."""
    manifest, registry = manifest_of(account), registry_of(account)
    asked = [submit.create_image(account, "ann", manifest=manifest, registry=registry) for _ in range(count)]
    return [later(turn(operation), 5) for operation in asked]


def test_cancel_before_sending_sends_nothing(account: HostingAccount, mms: MMS) -> None:
    operation = submit.cancel(register(account), "bob")
    assert operation.state == State.CANCELED
    assert turn(operation).state == State.CANCELED
    assert not mms.requests


def test_the_canceling_user_is_named_if_the_server_gives_no_reason(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    submit.cancel(operation := turn(build(account)), "bob")
    ended = turn(turn(operation))
    assert (ended.state, ended.error_message) == (State.CANCELED, "bob requested to cancel this.")


def test_a_server_that_cannot_cancel_leaves_the_operation_running(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    submit.cancel(operation, "ann")
    operation = turn(operation)
    assert operation.state == State.NOT_STARTED
    assert "It continues" in operation.error_message
    assert not operation.cancel_requested


def test_a_cancel_request_is_repeated_until_the_server_responds(account: HostingAccount, mms: MMS) -> None:
    """The worker that forwards it may be killed."""
    mms.extensions = True
    operation, there = submit.cancel(turn(build(account)), "ann"), []

    def look(connection: faults.Connection, effect: Callable[[], Reply]) -> None:
        there.append(Operation.objects.get().cancel_requested)
        connection.reply(effect())

    mms.plan("DELETE", "operations", look)
    operation = turn(operation)
    assert there == [True]
    assert operation.state == State.CANCELED
    assert not operation.cancel_requested


def test_a_late_cancel_does_not_change_the_result(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end("Failed", "no space")
    asked = []

    def end_before_the_second(execute: Any, sql: str, *more: Any) -> Any:
        """End the operation before the second UPDATE. The first is for operations that haven't been sent."""
        if sql.startswith("UPDATE"):
            asked.append(sql)
            if len(asked) == 2:
                turn(operation)
        return execute(sql, *more)

    late = Operation.objects.get()
    with connection.execute_wrapper(end_before_the_second), pytest.raises(submit.RequestRefusedError, match="failed"):
        submit.cancel(late, "bob")
    ended = Operation.objects.get()
    assert (ended.state, ended.error_message, ended.cancel_requested) == (State.FAILED, "no space", False)
    assert ended.next_poll_at is None


def test_a_result_that_could_not_be_stored_is_polled_again_immediately(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end()

    def full(execute: Any, sql: str, *more: Any) -> Any:
        if sql.startswith('UPDATE "deployments_image"'):
            raise OperationalError("database or disk is full")
        return execute(sql, *more)

    with connection.execute_wrapper(full), pytest.raises(OperationalError):
        turn(operation)
    operation.refresh_from_db()
    assert operation.state == State.NOT_STARTED
    assert present(operation.next_poll_at) <= timezone.now(), "not only once the lease has run out"
    assert turn(operation).state == State.SUCCEEDED


def test_a_log_is_followed_while_a_user_views_it_and_completed_when_the_operation_ends(
    account: HostingAccount, mms: MMS
) -> None:
    mms.extensions = True
    operation = turn(build(account))
    mms.logs[operation.mms_operation_id] = b"step 1\nstep 2\nste"
    turn(operation)
    assert not mms.calls("GET", "/log"), "nobody is looking"
    events.record_log_interest("operation", operation.pk)
    follow_logs.follow_logs()
    wait_until(lambda: CALL_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT, 30, "the log")
    part = events.read_log(events.operation_log_key(operation))
    assert part.lines == ["step 1", "step 2"]
    mms.logs[operation.mms_operation_id] += f"p 3 {PASSWORD}\nthe end".encode()
    mms.end()
    turn(operation)
    assert events.read_log(events.operation_log_key(operation), part.position).lines == ["step 3 …", "the end"]


def test_a_server_without_logs_is_called_once(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    events.record_log_interest("operation", operation.pk)
    for _ in range(3):
        follow_logs.follow_logs()
        wait_until(lambda: CALL_POOL.free_slots(account.pk) == MAX_CALLS_PER_ACCOUNT, 30, "the log")
    mms.end()
    turn(operation)
    assert len(mms.calls("GET", "/log")) == 1
    assert events.read_log(events.operation_log_key(operation)).reported is False


def test_no_secret_is_in_redis_or_in_an_operation(account: HostingAccount, mms: MMS, live_redis: redis.Redis) -> None:
    echo = {"code": "Denied", "message": f"login puller:{PASSWORD} failed"}
    turn(build(account))
    mms.end("Failed", echo)
    turn(Operation.objects.get())
    mms.plan("POST", "services", faults.status(400, {"error": {"message": f"bad kubeconfig {KUBE_CONFIG}"}}))
    turn(deploy(account))
    told = json.dumps(list(Operation.objects.values()), default=str)
    for key in live_redis.scan_iter():
        told += str(key) + str(live_redis.dump(key))
    queued = live_redis.lrange("celery", 0, -1)
    assert queued, "the queue messages are in there"
    told += str(queued)
    for secret in (PASSWORD, KUBE_TOKEN, MMS.token):
        assert secret not in told
    assert Operation.objects.filter(state=State.FAILED, error_message__contains="…").count() == 2


def test_nothing_is_sent_while_the_secrets_to_redact_cannot_be_read(
    account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = register(account)

    def unavailable(_: HostingAccount) -> None:
        raise OperationalError("the database is unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(availability, "known_secrets", unavailable)
        operation = turn(operation)
    assert not mms.calls("POST", "/models"), "the response couldn't have been read"
    assert (operation.state, operation.attempts) == (State.QUEUED, 0)
    assert turn(operation).state == State.SUCCEEDED

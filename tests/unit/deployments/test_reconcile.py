"""Lost responses: the outcome is determined before anything is sent again."""

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone

from deployments.accounts import idempotency
from deployments.accounts.availability import client_for
from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Operation, RegisteredModel, Service
from deployments.models.operation import Kind, State
from deployments.operations import dispatch, run, submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, PlainDialect
from tests.support.lifecycle import (
    account_at,
    asset_of,
    cluster_of,
    image_of,
    later,
    manifest_of,
    present,
    register,
    registry_of,
)
from tests.support.lifecycle import turn as once

pytestmark = pytest.mark.django_db(transaction=True)


def turn(operation: Operation) -> Operation:
    """Take a worker's turn in spite of any pause of the server."""
    HostingAccount.objects.update(not_before=None)
    return once(operation)


LOST = [faults.lose_answer, faults.garbage, faults.truncate]


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_answer_to_register_model_is_found_not_sent_again(
    account: HostingAccount, mms: MMS, fault: faults.Fault
) -> None:
    refresh.refresh(account.pk, [RegisteredModel])
    mms.plan("POST", "models", fault)
    operation = turn(register(account))
    assert operation.state == State.UNCERTAIN
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert present(operation.model).mms_id in mms.models
    assert len(mms.calls("POST")) == 1


def test_a_request_that_never_arrived_is_sent_again_after_the_grace_period(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "models", faults.drop)
    operation = turn(turn(register(account)))
    assert operation.state == State.UNCERTAIN, "its effect might still show"
    operation = turn(later(operation, 70))
    assert operation.state == State.QUEUED
    assert turn(operation).state == State.SUCCEEDED
    assert mms.effects["models"] == 1


@pytest.mark.parametrize("fault", [faults.html(502), faults.status(500), faults.status(503)])
def test_a_server_error_is_reconciled(account: HostingAccount, mms: MMS, fault: faults.Fault) -> None:
    mms.plan("POST", "models", fault)
    operation = turn(register(account))
    assert operation.state == State.UNCERTAIN
    assert "failed (status 50" in operation.error_message


def test_an_operation_fails_after_the_maximum_number_of_attempts(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "models", faults.html(500), times=9)
    operation = register(account)
    for _ in range(20):
        operation = turn(later(operation, 70))
    assert operation.state == State.FAILED
    assert "Tried 5 times" in operation.error_message


def test_an_identical_model_of_another_user_is_not_adopted(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("iris", url="http://files.example/iris.pkl")
    refresh.refresh(account.pk, [RegisteredModel])
    mms.plan("POST", "models", faults.drop)
    operation = turn(turn(register(account)))
    assert operation.state == State.UNCERTAIN
    assert RegisteredModel.objects.count() == 2


def test_two_equal_requests_with_lost_answers_find_one_model_each(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "models", faults.lose_answer, times=2)
    both = [turn(register(account)) for _ in range(2)]
    both = [turn(operation) for operation in both]
    assert [operation.state for operation in both] == [State.SUCCEEDED] * 2
    assert {present(operation.model).mms_id for operation in both} == set(mms.models)
    assert mms.effects["models"] == 2


def test_a_lost_answer_to_create_manifest_is_found(account: HostingAccount, mms: MMS) -> None:
    model = present(turn(register(account)).model)
    mms.plan("POST", "manifests", faults.lose_answer)
    chosen: dict[str, Any] = {"models": [model], "assets": [], "driver": asset_of(account)}
    chosen["runtime_type"] = "ScikitPython"
    operation = turn(turn(submit.create_manifest(account, "ann", **chosen)))
    assert operation.state == State.SUCCEEDED
    assert present(operation.manifest).mms_id in mms.manifests
    assert mms.effects["manifests"] == 1


def test_a_lost_answer_to_create_image_is_found_once_the_image_is_built(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "images", faults.lose_answer)
    asked = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))
    operation = turn(later(turn(asked), 100))
    assert operation.state == State.UNCERTAIN
    mms.end()
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert present(operation.image).mms_id in mms.images
    assert mms.effects["images"] == 1


@pytest.mark.parametrize("send_again", [True, False])
def test_a_user_decides_if_the_server_reports_too_little(live_redis: redis.Redis, send_again: bool) -> None:
    with MMS(dialect=PlainDialect()) as mms:
        account = account_at(mms.url)
        mms.plan("POST", "images", faults.lose_answer)
        asked = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))
        operation = turn(later(turn(asked), 400))
        assert submit.needs_decision(operation)
        assert "Send it again" in operation.error_message
        assert len(mms.calls("POST")) == 1
        operation = submit.resolve(operation, "ann", send_again=send_again)
        if send_again:
            assert turn(operation).state == State.NOT_STARTED
        else:
            assert operation.state == State.FAILED
        with pytest.raises(submit.RequestRefusedError):
            submit.resolve(operation, "ann", send_again=True)


@pytest.mark.parametrize("has_list", [True, False])
def test_the_choice_says_what_is_true_for_this_server(live_redis: redis.Redis, has_list: bool) -> None:
    with MMS(dialect=PlainDialect()) as mms:
        account = account_at(mms.url)
        mms.plan("POST", "images", faults.lose_answer)
        if not has_list:
            mms.plan("GET", "/images", faults.status(404), times=99)
        operation = turn(later(turn(build(account)), 400))
        promise = "the lists show it as created outside the dashboard"
        absence = "never appears here, because this server has no list of images"
        assert submit.needs_decision(operation)
        assert (promise in operation.error_message, absence in operation.error_message) == (has_list, not has_list)
        operation = submit.resolve(operation, "ann", send_again=False)
        assert (promise in operation.error_message, absence in operation.error_message) == (has_list, not has_list)
        mms.end()
        refresh.refresh(account.pk, refresh.LISTS)
        assert Image.objects.filter(mms_id__in=mms.images).exists() == has_list, "the promise must come true"


@pytest.mark.parametrize("fault", [faults.lose_answer, faults.anonymous])
def test_a_service_whose_answer_was_lost_is_found_by_name_and_followed(
    account: HostingAccount, mms: MMS, fault: faults.Fault
) -> None:
    mms.plan("POST", "services", fault)
    asked = submit.create_service(account, "ann", name="iris", image=image_of(account), cluster=cluster_of(account))
    operation = turn(turn(asked))
    assert operation.state == State.NOT_STARTED
    assert present(operation.service).mms_id in mms.services
    mms.end()
    assert turn(operation).state == State.SUCCEEDED
    assert mms.effects["services"] == 1


def service_of(account: HostingAccount, mms: MMS) -> Service:
    image = image_of(account)
    mms.add_service("iris", image.mms_id or "")
    refresh.refresh(account.pk, [Service])
    service = Service.objects.get()
    service.cluster = cluster_of(account)
    service.save()
    return service


def test_a_lost_answer_to_update_service_is_seen_in_the_services_image(account: HostingAccount, mms: MMS) -> None:
    service = service_of(account, mms)
    mms.plan("PUT", "services", faults.lose_answer)
    image = image_of(account, "image-2")
    operation = turn(submit.update_service(account, "ann", service=service, image=image))
    assert operation.state == State.UNCERTAIN
    mms.end()
    operation = turn(turn(operation))
    assert operation.state == State.SUCCEEDED
    assert present(operation.service).image == image
    assert len(mms.calls("PUT")) == 1


def test_a_lost_answer_to_delete_service_is_seen_in_the_list(account: HostingAccount, mms: MMS) -> None:
    service = service_of(account, mms)
    mms.plan("DELETE", "services", faults.lose_answer)
    operation = turn(turn(submit.delete_service(account, "ann", service=service)))
    assert operation.state == State.SUCCEEDED
    assert present(operation.service).vanished_at
    assert len(mms.calls("DELETE")) == 1


def test_deleting_a_missing_service_succeeds(account: HostingAccount, mms: MMS) -> None:
    service = service_of(account, mms)
    mms.services.clear()
    operation = turn(turn(submit.delete_service(account, "ann", service=service)))
    assert operation.state == State.SUCCEEDED


def test_a_server_that_honours_request_ids_gets_the_same_request_again(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    chosen: dict[str, Any] = {"manifest": manifest_of(account), "registry": registry_of(account)}
    turn(submit.create_image(account, "ann", **chosen))
    mms.plan("POST", "images", faults.lose_answer)
    operation = turn(turn(turn(submit.create_image(account, "ann", **chosen))))
    assert operation.state == State.NOT_STARTED
    assert len(mms.calls("POST", "images")) == 3
    assert mms.effects["images"] == 2
    mms.end()
    assert turn(operation).state == State.SUCCEEDED


def lose_a_model(account: HostingAccount, mms: MMS) -> Operation:
    """Lose the response to a request, and return the operation after its next turn."""
    mms.plan("POST", "models", faults.lose_answer)
    return turn(turn(register(account)))


def test_idempotency_declared_for_reads_only_does_not_count(account: HostingAccount, mms: MMS) -> None:
    """During a rolling upgrade, reads reach a new release and writes an old one."""
    mms.extensions, mms.old_writes = True, {"POST"}
    refresh.refresh(account.pk, [RegisteredModel, Service])
    assert lose_a_model(account, mms).state == State.SUCCEEDED
    assert len(mms.calls("POST")) == mms.effects["models"] == 1


def test_idempotency_declared_for_another_kind_of_request_does_not_count(account: HostingAccount, mms: MMS) -> None:
    mms.extensions = True
    turn(build(account))
    assert lose_a_model(account, mms).state == State.SUCCEEDED
    assert len(mms.calls("POST", "models")) == mms.effects["models"] == 1


@pytest.mark.parametrize("change", ["a day later", "at another server", "no longer declared"])
def test_declared_idempotency_expires_and_applies_to_one_server(account: HostingAccount, mms: MMS, change: str) -> None:
    mms.extensions = True
    turn(register(account, name="first"))
    account.refresh_from_db()
    assert idempotency.is_believed(account, Kind.REGISTER_MODEL)
    if change == "a day later":
        evidence = account.idempotent_kinds[Kind.REGISTER_MODEL]
        evidence["until"] = (timezone.now() - timedelta(days=1)).isoformat()
        account.save()
    elif change == "at another server":
        account.base_url = mms.url.replace("127.0.0.1", "localhost")
        account.save()
    else:
        mms.extensions = False
        turn(register(account, name="second"))
    assert lose_a_model(account, mms).state == State.SUCCEEDED
    assert len(mms.calls("POST", "models")) == mms.effects["models"]


@pytest.mark.parametrize("extensions", [False, True])
def test_an_operation_the_server_forgot_is_not_sent_again(account: HostingAccount, mms: MMS, extensions: bool) -> None:
    mms.extensions = extensions
    asked = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))
    operation = turn(asked)
    mms.operations.clear()
    assert turn(operation).state == State.NOT_STARTED, "it may only be late"
    operation = turn(later(operation, 60))
    assert operation.state == State.UNCERTAIN
    for _ in range(3):
        operation = turn(later(operation, 200))
    assert submit.needs_decision(operation)
    assert len(mms.calls("POST")) == 1


def test_a_name_used_by_our_own_lost_request_is_not_a_failure(account: HostingAccount, mms: MMS) -> None:
    asked = submit.create_service(account, "ann", name="iris", image=image_of(account), cluster=cluster_of(account))
    Operation.objects.filter(pk=asked.pk).update(attempts=1, sent_at=timezone.now())
    mms.add_service("iris")
    mms.plan("POST", "services", faults.status(409, {"error": {"message": "taken"}}))
    operation = turn(asked)
    assert operation.state == State.UNCERTAIN
    assert turn(operation).state == State.NOT_STARTED


def test_a_late_response_is_still_used(account: HostingAccount, mms: MMS) -> None:
    """The sweep marks the operation of a slow worker as uncertain before the response arrives."""
    assert late(register(account), mms).state == State.SUCCEEDED


def late(operation: Operation, mms: MMS, status: int | None = None) -> Operation:
    """Send from a worker that is presumed dead when the response arrives: the real one, or only this status."""

    def sweep_meanwhile(connection: faults.Connection, effect: object) -> None:
        Operation.objects.update(claimed_until=timezone.now())
        dispatch.sweep()
        reply = effect()  # type: ignore[operator]
        connection.reply(reply if status is None else faults.Reply(status))

    mms.plan("POST", "", sweep_meanwhile)
    operation = Operation.objects.select_related("account", "model", "image").get(pk=operation.pk)
    with client_for(operation.account) as client:
        run.send(operation, client)
    return Operation.objects.get(pk=operation.pk)


def build(account: HostingAccount) -> Operation:
    return submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))


def test_a_late_acceptance_is_recorded(account: HostingAccount, mms: MMS) -> None:
    """It names no operation, but means that the request must not be sent again."""
    mms.extensions = True
    refresh.refresh(account.pk, [RegisteredModel])
    operation = late(build(account), mms, 202)
    assert operation.state == State.UNCERTAIN
    assert operation.accepted_at
    assert "returned no operation" in operation.error_message
    assert turn(operation).state == State.UNCERTAIN
    assert len(mms.calls("POST")) == 1


def test_a_resumed_operation_does_not_show_that_its_worker_died(account: HostingAccount, mms: MMS) -> None:
    operation = late(build(account), mms)
    assert (operation.state, operation.error_message) == (State.NOT_STARTED, "")
    mms.run()
    operation = turn(operation)
    assert (operation.state, operation.error_message) == (State.RUNNING, "")


def test_a_user_decides_if_every_probe_fails(account: HostingAccount, mms: MMS) -> None:
    """One list fails permanently, so its contents stay unknown."""
    mms.plan("POST", "models", faults.lose_answer)
    operation = turn(register(account))
    mms.plan("GET", "models", faults.html(500), times=3)
    operation = turn(later(operation, 100))
    assert not submit.needs_decision(operation), "it may be over soon"
    for _ in range(2):
        operation = turn(later(operation, 250))
    assert submit.needs_decision(operation)
    assert "Send it again" in operation.error_message
    assert not HostingAccount.objects.get().next_attempt_at, "other operations of the account continue"
    assert turn(operation).state == State.SUCCEEDED, "it must be searched for anyway"
    assert len(mms.calls("POST")) == 1


def test_a_model_whose_id_changed_case_is_not_adopted(account: HostingAccount, mms: MMS) -> None:
    earlier = mms.add_model("iris", url="http://files.example/iris.pkl")
    refresh.refresh(account.pk, [RegisteredModel])
    earlier["id"] = earlier["id"].upper()
    mms.plan("POST", "models", faults.drop)
    operation = turn(turn(register(account)))
    assert operation.state == State.UNCERTAIN
    assert RegisteredModel.objects.count() == 2

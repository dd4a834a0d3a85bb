"""Servers that confuse IDs, or clients that create equal resources: nothing is assigned to the wrong request."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from deployments.live.badges import badge_of
from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, PlainDialect, Reply
from tests.faults.verbs import VERBS, furnished
from tests.support.lifecycle import account_at, later, present, register, registry_of, turn
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def account(account: HostingAccount, mms: MMS) -> HostingAccount:
    return furnished(account, mms)


@pytest.fixture
def browser() -> Client:
    return sign_in_superuser()


def build(account: HostingAccount, by: str = "ann", description: str = "") -> Operation:
    registry = account.registries.first() or registry_of(account)
    manifest = Manifest.objects.get(account=account, mms_id="manifest-1")
    return submit.create_image(account, by, manifest=manifest, registry=registry, description=description)


def say(mms: MMS, operation: Operation, **status: Any) -> None:
    mms.operations[operation.mms_operation_id] |= status


def named(operation_id: str) -> faults.Fault:
    """Accept the request, but name this operation."""
    return faults.answer(lambda reply: Reply(202, None, {"x-ms-request-id": operation_id}))


# --- ids of operations ---------------------------------------------------------------------------------------------


def test_an_operation_id_of_another_request_does_not_count(account: HostingAccount, mms: MMS, browser: Client) -> None:
    first = turn(build(account, "ann", "first"))
    mms.plan("POST", "/images", named(first.mms_operation_id))
    second = turn(build(account, "bob", "second"))
    assert (second.state, second.mms_operation_id) == (State.UNCERTAIN, "")
    assert "can't be followed" in second.error_message
    assert second.accepted_at, "it must not be sent again"
    page = browser.get(f"/accounts/{account.name}/operations/{second.pk}/").content.decode()
    assert "belongs to another request" in page

    say(mms, first, state="Succeeded")
    mms.operations[first.mms_operation_id]["done"]()
    first = turn(first)
    assert first.state == State.SUCCEEDED
    refresh.refresh(account.pk, refresh.LISTS)
    assert turn(second).state == State.UNCERTAIN, "its build still runs"
    assert Image.objects.get(pk=present(first.image_id)).mms_id in mms.images

    mms.end()
    second = turn(second)
    assert second.state == State.SUCCEEDED
    images = {row.description: row.mms_id for row in Image.objects.filter(created_by__in=["ann", "bob"])}
    assert {name: mms.images[present(mms_id)]["description"] for name, mms_id in images.items()} == {
        "first": "first",
        "second": "second",
    }
    assert mms.effects["images"] == 2


def test_a_retried_request_may_get_its_own_operation_id_again(live_redis: redis.Redis) -> None:
    with MMS(extensions=True) as mms:
        account = furnished(account_at(mms.url), mms)
        operation = turn(build(account))
        Operation.objects.update(state=State.QUEUED, attempts=1)
        again = turn(Operation.objects.get())
        assert (again.state, again.mms_operation_id) == (State.NOT_STARTED, operation.mms_operation_id)


@pytest.mark.parametrize("given", ["another", 7, ["id"], {"id": 1}])
def test_a_status_of_another_operation_is_ignored(given: Any, account: HostingAccount, mms: MMS) -> None:
    operation = turn(turn(build(account)))
    known = operation.checked_at
    mms.operations[operation.mms_operation_id] |= {"id": given, "state": "Succeeded"}
    operation = turn(operation)
    assert operation.state == State.NOT_STARTED
    assert operation.checked_at == known, "that wasn't an answer about it"
    assert "not about" in operation.check_error
    assert Image.objects.filter(mms_id=None).count() == 1


def test_a_status_without_an_id_is_accepted(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end()
    del mms.operations[operation.mms_operation_id]["id"]
    assert turn(operation).state == State.SUCCEEDED


# --- ids of results ------------------------------------------------------------------------------------------------


def test_a_result_that_belongs_to_another_person_stays_theirs(
    account: HostingAccount, mms: MMS, browser: Client
) -> None:
    first = turn(build(account, "ann"))
    mms.end()
    first = turn(first)
    second = turn(build(account, "bob"))
    location = mms.operations[first.mms_operation_id]["resourceLocation"]
    say(mms, second, state="Succeeded", resourceLocation=location)
    second = turn(second)
    assert second.state == State.SUCCEEDED
    assert "belongs to something else" in second.error_message
    assert present(Image.objects.get(pk=present(first.image_id))).created_by == "ann"
    mine = Image.objects.select_related("account").get(pk=present(second.image_id))
    assert (mine.mms_id, mine.created_by) == (None, "bob")
    assert "belongs to something else" in badge_of(mine).explanation
    assert "belongs to something else" in browser.get(f"/accounts/{account.name}/images/{mine.pk}/").content.decode()


def test_a_result_that_was_there_before_is_not_taken_over(account: HostingAccount, mms: MMS) -> None:
    """Another client's image has a row since before the request."""
    theirs = Image.objects.get(mms_id="image-1")
    operation = turn(build(account))
    location = f"{mms.url}{mms.account}images/image-1"
    say(mms, operation, state="Succeeded", resourceLocation=location)
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert Image.objects.get(pk=theirs.pk).created_by == ""
    assert Image.objects.get(pk=present(operation.image_id)).mms_id is None


def test_a_copy_made_by_a_refresh_is_merged(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.end()
    location = mms.operations[operation.mms_operation_id]["resourceLocation"]
    mms_id = location.rpartition("/")[2]
    Image.objects.create(account=account, mms_id=mms_id, seen_at=timezone.now())
    operation = turn(operation)
    assert Image.objects.get(mms_id=mms_id).pk == operation.image_id


def test_an_update_never_changes_which_service_it_is(account: HostingAccount, mms: MMS) -> None:
    operation = turn(VERBS[4].ask(account))
    service = present(operation.service)
    other = Service.objects.exclude(pk=service.pk)[0]
    mms.end()
    say(mms, operation, resourceLocation=f"{mms.url}{mms.account}services/{other.mms_id}")
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert set(Service.objects.values_list("pk", "mms_id")) >= {(service.pk, service.mms_id), (other.pk, other.mms_id)}


LOCATIONS = {
    "a script": "javascript:alert(1)",
    "a script with a path": "javascript:/images/abc",
    "data": "data:text/html,/images/abc",
    "another noun": "https://mms.example/api/services/abc",
    "the collection": "https://mms.example/api/images/",
    "a blank": "https://mms.example/api/images/two words",
    "markup": "https://mms.example/api/images/<b>",
    "parentheses": "https://mms.example/api/images/alert(1)",
    "endless": f"https://mms.example/api/images/{'x' * 201}",
    "a direction mark": "https://mms.example/api/images/a\u202eb",
    "not ASCII": "https://mms.example/api/images/bild-é",
    "dots": "https://mms.example/api/images/..",
    "something unknown": "https://mms.example/api/images/never-made",
    "a number": 7.5,
    "a list": ["images", "abc"],
    "null": None,
}


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_malformed_result_id_is_ignored(name: str, account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    mms.operations[operation.mms_operation_id]["done"]()
    say(mms, operation, state="Succeeded", resourceLocation=LOCATIONS[name])
    operation = turn(operation)
    assert (operation.state, operation.error_code) == (State.SUCCEEDED, "ResultNotNamed")
    assert "didn't name the result" in operation.error_message
    row = Image.objects.select_related("account").get(pk=present(operation.image_id))
    assert row.mms_id is None
    badge = badge_of(row)
    assert badge.label != "Built"
    assert "didn't name the result" in badge.explanation

    refresh.refresh(account.pk, refresh.LISTS)
    row.refresh_from_db()
    assert row.mms_id in mms.images, "the list names it"
    assert Operation.objects.get(pk=operation.pk).error_message == ""
    assert Image.objects.count() == 3


def test_an_unnamed_result_is_not_guessed(live_redis: redis.Redis) -> None:
    """The list doesn't say from which manifest an image was built."""
    with MMS(dialect=PlainDialect()) as mms:
        account = furnished(account_at(mms.url), mms)
        operation = turn(build(account))
        say(mms, operation, state="Succeeded", resourceLocation=None)
        operation = turn(operation)
        mms._add(mms.images, {"registryInfo": {}}, "of-another")
        refresh.refresh(account.pk, refresh.LISTS)
        assert Image.objects.get(pk=present(operation.image_id)).mms_id is None
        assert Image.objects.get(mms_id="of-another").created_by == ""


def test_an_unnamed_result_is_not_linked_to_what_appears_much_later(account: HostingAccount, mms: MMS) -> None:
    operation = turn(build(account))
    say(mms, operation, state="Succeeded", resourceLocation=None)
    operation = turn(operation)
    Operation.objects.filter(pk=operation.pk).update(finished_at=timezone.now() - timedelta(hours=1))
    mms._add(mms.images, {"manifestId": "manifest-1", "description": ""}, "of-another")
    refresh.refresh(account.pk, refresh.LISTS)
    assert Image.objects.get(pk=present(operation.image_id)).mms_id is None


# --- equal resources of other clients ------------------------------------------------------------------------------


def equal(mms: MMS, version: int, **more: Any) -> Any:
    return mms.add_model("iris", version, url="http://files.example/iris.pkl", **more)


@pytest.mark.parametrize("order", ["before", "after"])
def test_of_two_equal_models_none_is_claimed_and_a_user_decides(
    order: str, account: HostingAccount, mms: MMS, browser: Client
) -> None:
    def both(connection: faults.Connection, effect: Any) -> None:
        if order == "before":
            equal(mms, 1)
        effect()
        if order == "after":
            equal(mms, 2)
        connection.hang_up()

    mms.plan("POST", "/models", both)
    operation = turn(turn(register(account)))
    assert submit.needs_decision(operation)
    assert "2 equal resources" in operation.error_message
    assert {detail["target"] for detail in operation.error_details} == {
        model["id"] for model in mms.models.values() if model["name"] == "iris"
    }
    page = browser.get(f"/accounts/{account.name}/operations/{operation.pk}/").content.decode()
    assert "iris v1, created" in page
    assert "iris v2, created" in page
    refresh.refresh(account.pk, refresh.LISTS)
    assert RegisteredModel.objects.filter(name="iris", created_by="").count() == 2, "pages must show both"
    for _ in range(3):
        operation = turn(later(operation, 400))
        assert submit.needs_decision(operation)
    assert len(mms.calls("POST")) == 1, "it must not be sent again automatically"


def test_an_older_equal_model_is_not_ours(live_redis: redis.Redis) -> None:
    """Its list was never read before."""
    with MMS() as mms:
        account = account_at(mms.url)
        old = datetime.now(UTC) - timedelta(hours=1)
        equal(mms, 1, createdAt=old.isoformat())
        mms.plan("POST", "/models", faults.drop)
        operation = turn(turn(register(account)))
        assert operation.state == State.UNCERTAIN
        operation = turn(later(operation, 70))
        assert operation.state == State.UNCERTAIN, "the server's dates may be wrong, so it isn't sent again either"
        mms.plan("POST", "/models", faults.lose_answer)
        second = turn(turn(register(account)))
        assert present(second.model).mms_id != next(iter(mms.models)), "the newer one is ours"


def test_a_resource_of_a_request_that_is_under_way_is_not_claimed(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.drop)
    lost = turn(register(account))
    other = register(account)
    Operation.objects.filter(pk=other.pk).update(state=State.SENDING, sent_at=timezone.now(), attempts=1)
    equal(mms, 1)
    assert turn(lost).state == State.UNCERTAIN

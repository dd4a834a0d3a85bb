"""Long, temporarily incomplete, and changing lists: rows follow them, and operations draw no wrong conclusions."""

import resource
import time

import pytest
from django.test import Client

from deployments.live.badges import badge_of
from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, Json
from tests.faults.verbs import VERBS, furnished
from tests.support.lifecycle import image_of, later, present, register, turn
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def account(account: HostingAccount, mms: MMS) -> HostingAccount:
    return furnished(account, mms)


@pytest.fixture
def browser() -> Client:
    return sign_in_superuser()


def refresh_lists(account: HostingAccount) -> None:
    refresh.refresh(account.pk, refresh.LISTS)


def ask(account: HostingAccount, verb: str) -> Operation:
    return next(one for one in VERBS if one.name == verb).ask(account)


def again(operation: Operation) -> Operation:
    """Take a turn even if calls to the server are paused."""
    HostingAccount.objects.update(not_before=None)
    return turn(operation)


def present_names() -> set[str]:
    return set(RegisteredModel.objects.filter(vanished_at=None).values_list("name", flat=True))


@pytest.mark.slow
def test_ten_thousand_models_take_seconds_and_little_memory(account: HostingAccount, mms: MMS, browser: Client) -> None:
    for n in range(10_000):
        mms.add_model(f"model-{n % 500}", n // 500 + 1, tags=["a", "b"], description="one of many " * 10)
    begun, before = time.monotonic(), most_memory()
    refresh_lists(account)
    took, grown = time.monotonic() - begun, most_memory() - before
    assert RegisteredModel.objects.count() == 10_001
    begun = time.monotonic()
    assert browser.get(f"/accounts/{account.name}/models/").status_code == 200
    page = time.monotonic() - begun
    print(f"10 000 models: {took:.1f} s, {grown:.0f} MB more memory; the page {page * 1000:.0f} ms")
    assert took < 60
    assert page < 3
    assert grown < 250


def most_memory() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("kept", [0, 10])
def test_items_missing_from_one_list_are_removed_and_restored_by_the_next(
    account: HostingAccount, mms: MMS, browser: Client, kept: int
) -> None:
    for n in range(20):
        mms.add_model(f"model-{n}")
    refresh_lists(account)
    rows = set(RegisteredModel.objects.values_list("pk", "mms_id"))
    whole, mms.models = mms.models, dict(list(mms.models.items())[:kept])
    refresh_lists(account)
    assert len(present_names()) == kept
    gone = RegisteredModel.objects.select_related("account").exclude(vanished_at=None)[0]
    assert (badge_of(gone).state, badge_of(gone).reason) == ("gone", "The server no longer lists it.")
    assert browser.get(f"/accounts/{account.name}/models/{gone.pk}/").status_code == 200
    mms.models = whole
    refresh_lists(account)
    assert len(present_names()) == 21
    assert set(RegisteredModel.objects.values_list("pk", "mms_id")) == rows


# --- while an operation is in doubt -------------------------------------------------------------------------------


def test_an_empty_list_does_not_cause_a_lost_request_to_be_sent_again(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.lose_answer)
    operation = turn(register(account))
    whole, mms.models = mms.models, {}
    for _ in range(3):
        operation = again(later(operation, 61))
        assert operation.state == State.UNCERTAIN
    mms.models = whole
    assert again(operation).state == State.SUCCEEDED
    assert len(mms.calls("POST")) == 1


def test_a_list_with_an_invalid_item_does_not_prove_absence(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/models", faults.lose_answer)
    operation = turn(register(account))
    made = next(model for model in mms.models.values() if model["name"] == "iris")
    right, made["id"] = made["id"], None
    operation = again(later(operation, 61))
    assert operation.state == State.UNCERTAIN
    made["id"] = right
    assert again(operation).state == State.SUCCEEDED
    assert len(mms.calls("POST")) == 1


def test_an_empty_list_is_no_proof_that_a_service_was_deleted(account: HostingAccount, mms: MMS) -> None:
    mms.plan("DELETE", "/services", faults.drop)
    operation = turn(ask(account, "delete_service"))
    mms.plan("GET", "/services", faults.status(200, []))
    operation = again(operation)
    assert operation.state == State.UNCERTAIN
    operation = again(again(later(operation, 61)))
    assert operation.state == State.SUCCEEDED
    assert present(operation.service).mms_id not in mms.services
    assert mms.effects["deletions"] == 1


def test_a_service_of_another_client_with_the_same_name_is_not_adopted(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "/services", faults.drop)
    operation = turn(ask(account, "create_service"))
    mms.add_service("iris", "image-1")
    assert again(operation).state == State.UNCERTAIN
    refresh_lists(account)
    assert Service.objects.filter(name="iris", mms_id__isnull=False, created_by="").count() == 1


# --- changes made outside the dashboard ---------------------------------------------------------------------------


def test_a_service_deleted_during_its_update_is_shown_as_gone_after_it(account: HostingAccount, mms: MMS) -> None:
    operation = turn(ask(account, "update_service"))
    del mms.services[present(present(operation.service).mms_id)]
    refresh_lists(account)
    service = Service.objects.select_related("account").get(pk=present(operation.service_id))
    assert badge_of(service).state == State.NOT_STARTED, "the operation's state counts while it runs"
    mms.end("Failed", {"message": "There is no such service."})
    assert turn(operation).error_message == "There is no such service."
    assert badge_of(service).state == "gone"


def test_an_image_deleted_before_use_is_named_as_the_reason(account: HostingAccount, mms: MMS) -> None:
    operation = ask(account, "create_service")
    del mms.images["image-2"]
    refresh_lists(account)
    mms.plan("POST", "/services", faults.status(404, {"error": {"message": "There is no image image-2."}}))
    operation = turn(operation)
    assert (operation.state, operation.error_message) == (State.FAILED, "There is no image image-2.")


def test_a_service_recreated_under_its_name_is_a_different_service(account: HostingAccount, mms: MMS) -> None:
    old = Service.objects.get(name="to update")
    mms.services.pop(present(old.mms_id))
    new = mms.add_service("to update", "image-2")
    refresh_lists(account)
    old.refresh_from_db()
    assert old.vanished_at
    assert Service.objects.get(name="to update", vanished_at=None).mms_id == new["id"]
    with pytest.raises(submit.RequestRefusedError, match="no longer exists"):
        submit.update_service(account, "ann", service=old, image=Image.objects.get(mms_id="image-2"))


def test_a_service_recreated_while_its_deletion_was_in_doubt_remains(account: HostingAccount, mms: MMS) -> None:
    mms.plan("DELETE", "/services", faults.lose_answer)
    operation = turn(ask(account, "delete_service"))
    new = mms.add_service("to delete", "image-2")
    assert again(operation).state == State.SUCCEEDED
    refresh_lists(account)
    assert Service.objects.get(name="to delete", vanished_at=None).mms_id == new["id"]
    assert new["id"] in mms.services


# --- ids ----------------------------------------------------------------------------------------------------------


def spelled(of: dict[str, Json], spell: object) -> dict[str, Json]:
    return {spell(mms_id): item | {"id": spell(mms_id)} for mms_id, item in of.items()}  # type: ignore[operator]


def test_ids_that_change_case_identify_the_same_resources(account: HostingAccount, mms: MMS) -> None:
    before = set(Service.objects.values_list("pk", "name"))
    for spell in (str.upper, str.lower, str.title):
        mms.services, mms.images = spelled(mms.services, spell), spelled(mms.images, spell)
        refresh_lists(account)
        assert set(Service.objects.values_list("pk", "name")) == before
        assert not Service.objects.exclude(vanished_at=None).exists()
        assert set(Service.objects.values_list("mms_id", flat=True)) == set(mms.services)
        assert Image.objects.count() == 2
    assert Service.objects.exclude(image=None).count() == 2


def test_ids_that_differ_only_in_case_identify_two_resources(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("one", id="aB1")
    mms.add_model("other", id="Ab1")
    for _ in range(2):
        refresh_lists(account)
    assert {"one", "other"} <= present_names()


def test_an_update_is_found_by_an_image_id_in_different_case(account: HostingAccount, mms: MMS) -> None:
    mms.plan("PUT", "/services", faults.lose_answer)
    operation = turn(ask(account, "update_service"))
    mms.end()
    mms.services[present(present(operation.service).mms_id)]["imageId"] = "IMAGE-2"
    assert again(again(operation)).state == State.SUCCEEDED
    assert len(mms.calls("PUT")) == 1


def test_an_id_that_is_listed_twice_has_one_row(account: HostingAccount, mms: MMS) -> None:
    model = mms.add_model("twin")
    mms.models |= {f"again-{n}": model | {"description": f"copy {n}"} for n in range(3)}
    for _ in range(2):
        refresh_lists(account)
    assert RegisteredModel.objects.filter(name="twin").count() == 1
    assert "twin" in present_names()


def test_a_response_with_the_id_of_another_model_loses_neither_row(account: HostingAccount, mms: MMS) -> None:
    """Mixed-up responses of a server are accepted, and the next list corrects them."""
    known = RegisteredModel.objects.get(name="roses")
    mms.plan("POST", "/models", faults.answer(lambda reply: faults.Reply(201, mms.models[present(known.mms_id)])))
    turn(register(account))
    refresh_lists(account)
    assert present_names() == {"roses", "iris"}


def test_a_resource_without_a_name_is_shown_by_its_id(account: HostingAccount, mms: MMS, browser: Client) -> None:
    mms.add_model("", id="nameless-1")
    mms.add_service("", id="nameless-2")
    refresh_lists(account)
    assert "nameless-1" in browser.get(f"/accounts/{account.name}/models/").content.decode()
    assert "nameless-2" in browser.get(f"/accounts/{account.name}/services/").content.decode()


def test_a_row_that_the_server_lacks_is_marked_as_deleted(account: HostingAccount, mms: MMS) -> None:
    image = image_of(account, "never-there")
    refresh.refresh(account.pk, refresh.LISTS, whole=True)
    image.refresh_from_db()
    assert image.vanished_at

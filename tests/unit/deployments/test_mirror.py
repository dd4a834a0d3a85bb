"""The mirror: rows match the server's lists, with the time they were last seen."""

import time
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from deployments.accounts import failures
from deployments.live import events, redis
from deployments.live.badges import badges_of
from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, OldDialect, PlainDialect
from tests.support.lifecycle import (
    account_at,
    age_lists,
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
EVERYTHING = list(refresh.LISTS)
NOUNS = {"models", "manifests", "images", "services"}


@pytest.fixture
def without_redis(settings: Any) -> Iterator[None]:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    redis.connection.cache_clear()
    yield
    redis.connection.cache_clear()
    redis.reset_outage()


def refresh_lists(account: HostingAccount, *nouns: type) -> None:
    refresh.refresh(account.pk, nouns or EVERYTHING)


def test_resources_created_elsewhere_appear_change_and_vanish(account: HostingAccount, mms: MMS) -> None:
    listed = mms.add_model("iris", 3, tags=["flowers"])
    refresh_lists(account)
    model = RegisteredModel.objects.get()
    assert (model.name, model.version, model.tags, model.created_by) == ("iris", 3, ["flowers"], "")
    assert model.seen_at
    assert not model.vanished_at

    listed["description"] = "three kinds"
    refresh_lists(account)
    model.refresh_from_db()
    assert model.description == "three kinds"

    mms.models.clear()
    refresh_lists(account)
    model.refresh_from_db()
    assert model.vanished_at
    assert badges_of([model])[0].state == "gone"

    mms.models[listed["id"]] = listed
    refresh_lists(account)
    model.refresh_from_db()
    assert not model.vanished_at


def test_rows_are_linked_whatever_the_order_and_the_spelling(live_redis: Redis) -> None:
    with MMS(dialect=OldDialect()) as mms:
        account = account_at(mms.url)
        old = mms.add_model("iris", 1, createdAt="2017-08-01T10:00:00.1234567Z")
        mms.add_model("iris", 2, createdAt="2017-08-03T10:00:00+02:00")
        other = mms.add_model("roses")
        runtime = {"runtimeType": "parkPython", "properties": {"pipRequirements": "numpy"}}
        manifest = {"createdTime": "2017-08-02T10:00:00", "modelIds": ["iris", other["id"]], "targetRuntime": runtime}
        asset = {
            "id": "score.py",
            "url": "http://files.example/score.py",
            "mimeType": "text/x-python",
            "unpack": "true",
        }
        mms._add(mms.manifests, manifest | {"driverProgram": "score.py", "assets": [asset]}, "m1")
        mms._add(mms.images, {"manifestId": "m1", "registryInfo": {"password": "echoed"}}, "i1")
        mms.add_service("flowers", image={"id": "i1"}, imageId=None)
        refresh_lists(account)
    service = Service.objects.get()
    manifest_row = present(present(service.image).manifest)
    assert (manifest_row.runtime_type, manifest_row.properties) == ("SparkPython", {"pip_requirements": "numpy"})
    assert manifest_row.asset_list[0]["unpack"] is True
    assert {model.mms_id for model in manifest_row.models.all()} == {old["id"], other["id"]}, "version 2 is younger"
    assert "echoed" not in str(list(Image.objects.values()))


@pytest.mark.slow
def test_ten_thousand_models_are_mirrored_in_bulk(account: HostingAccount, mms: MMS) -> None:
    for n in range(10_000):
        mms.add_model(f"model-{n % 500}", n // 500 + 1, tags=["a", "b"], description="one of many")
    took, queries = {}, {}
    for what in ("first", "unchanged"):
        started = time.perf_counter()
        with CaptureQueriesContext(connection) as counted:
            refresh_lists(account, RegisteredModel)
        took[what], queries[what] = time.perf_counter() - started, len(counted)
    assert RegisteredModel.objects.count() == 10_000
    assert RegisteredModel.objects.values_list("version", flat=True)[0] == 20, "the list begins with what was made last"
    assert queries["unchanged"] < 15
    print(f"10 000 models: first {took['first'] * 1000:.0f} ms, unchanged {took['unchanged'] * 1000:.0f} ms {queries}")


def test_one_change_among_many_costs_no_query_per_row(account: HostingAccount, mms: MMS) -> None:
    def changed_among(rows: int) -> int:
        for n in range(rows):
            mms.add_model(f"model-{len(mms.models) + n}")
        refresh_lists(account, RegisteredModel)
        next(iter(mms.models.values()))["description"] = f"changed among {rows}"
        with CaptureQueriesContext(connection) as counted:
            refresh_lists(account, RegisteredModel)
        return len(counted)

    assert changed_among(10) == changed_among(300)


def test_a_resource_that_an_operation_is_creating_gets_no_second_row(account: HostingAccount, mms: MMS) -> None:
    seen_while_sending = []

    def look(connection: faults.Connection, effect: object) -> None:
        reply = effect()  # type: ignore[operator]
        refresh_lists(account)
        seen_while_sending.append(RegisteredModel.objects.exclude(mms_id=None).count())
        connection.reply(reply)

    mms.plan("POST", "models", look)
    operation = turn(register(account))
    refresh_lists(account)
    assert seen_while_sending == [0]
    assert operation.model == RegisteredModel.objects.get()


@pytest.mark.parametrize("plain", [False, True])
def test_an_image_being_built_gets_no_second_row(live_redis: Redis, plain: bool) -> None:
    with MMS(dialect=PlainDialect() if plain else None) as mms:
        account = account_at(mms.url)
        asked = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))
        operation = turn(asked)
        mms.end()
        refresh_lists(account)
        assert Image.objects.count() == 1
        assert turn(operation).state == State.SUCCEEDED
        refresh_lists(account)
        assert Image.objects.get().mms_id in mms.images
        assert Image.objects.get().manifest == present(operation.image).manifest


def test_a_row_mirrored_too_early_is_merged(account: HostingAccount, mms: MMS) -> None:
    operation = register(account)
    early = mms.add_model("iris", url="http://files.example/iris.pkl")
    refresh_lists(account)
    twin = RegisteredModel.objects.get(mms_id=early["id"])
    manifest = manifest_of(account)
    manifest.models.add(twin)
    mms.plan("POST", "models", lambda connection, effect: connection.reply(faults.Reply(201, early)))
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert list(manifest.models.all()) == [operation.model]
    assert RegisteredModel.objects.count() == 1


def test_a_success_without_location_is_filled_in_by_the_mirror(account: HostingAccount, mms: MMS) -> None:
    asked = submit.create_service(account, "ann", name="iris", image=image_of(account), cluster=cluster_of(account))
    operation = turn(asked)
    for remote in mms.operations.values():
        remote["resourceLocation"] = None
    mms.end()
    assert turn(operation).state == State.SUCCEEDED
    refresh_lists(account)
    assert Service.objects.get().mms_id in mms.services


@pytest.mark.parametrize(
    "fault",
    [
        faults.html(502),
        faults.drop,
        faults.truncate,
        faults.status(401),
        faults.status(403),
        faults.status(404),
        faults.status(429, None, Retry_After="7"),
        faults.status(200, {"value": 7}),
        faults.status(200, "text"),
        faults.status(302, None, Location="http://elsewhere.example/"),
    ],
)
def test_bad_answers_leave_the_last_good_data_with_its_age(
    account: HostingAccount, mms: MMS, fault: faults.Fault
) -> None:
    mms.add_service("iris")
    refresh_lists(account)
    before = Service.objects.get()
    age_lists(timezone.now() - timedelta(minutes=1), Service)
    mms.plan("GET", "services", fault)
    refresh_lists(account, Service)
    service = Service.objects.select_related("account").get()
    assert service.vanished_at is None
    assert service.account.has_trouble
    badge = badges_of([service])[0]
    assert badge.stale_since == service.seen_at
    assert service.account.error.startswith("Couldn't read the list of services. "), "the message must name the list"
    HostingAccount.objects.update(not_before=None)
    refresh_lists(account, Service)
    service = Service.objects.select_related("account").get()
    assert not service.account.error
    assert badges_of([service])[0].stale_since is None
    assert service.pk == before.pk


def test_malformed_items_neither_appear_nor_let_others_vanish(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("good")
    kept = mms.add_model("hidden")
    refresh_lists(account)
    del mms.models[kept["id"]]
    nonsense = [{"id": None}, {"id": ""}, {"id": "../services/1"}, {"id": ["x"]}, {"name": "no id"}, {"id": "x" * 999}]
    mms.models |= {f"bad-{n}": item for n, item in enumerate(nonsense)}
    refresh_lists(account)
    assert set(RegisteredModel.objects.filter(vanished_at=None).values_list("name", flat=True)) == {"good", "hidden"}


def test_values_that_a_database_rejects_are_cleaned(account: HostingAccount, mms: MMS) -> None:
    text: dict[str, Any] = {"version": "7"}
    mms.add_model("nul\0 and half \ud800", **text, description="x" * 5000, tags=None, createdAt="yesterday")
    refresh_lists(account)
    model = RegisteredModel.objects.get()
    assert (model.name, model.version, model.tags, model.created_at) == ("nul and half ?", 7, [], None)
    assert len(model.description) == 512


def test_a_server_without_a_list_of_images_has_the_rest_mirrored(account: HostingAccount, mms: MMS) -> None:
    image_of(account)
    mms.plan("GET", "images", faults.status(405))
    mms.add_service("iris")
    Manifest.objects.update(mms_id=None)
    refresh_lists(account)
    assert Service.objects.get().name == "iris"
    assert Image.objects.get().vanished_at is None


def test_a_next_page_elsewhere_does_not_get_the_token(account: HostingAccount, mms: MMS) -> None:
    with MMS() as other:
        mms.plan("GET", "models", faults.status(200, {"value": [], "nextLink": f"{other.url}/more"}))
        refresh_lists(account, RegisteredModel)
        assert not other.requests
    assert "another server" in HostingAccount.objects.get().error


def test_lists_are_read_while_viewed_and_after_operations(account: HostingAccount, mms: MMS) -> None:
    def read() -> set[str]:
        mms.requests.clear()
        wait(refresh.refresh_due())
        return {request.path.strip("/") for request in mms.calls("GET")}

    def age(seconds: float) -> None:
        moment = timezone.now() - timedelta(seconds=seconds)
        HostingAccount.objects.update(
            **{f"{noun}s_seen_at": moment for noun in ("model", "manifest", "image", "service")}
        )

    assert read() == NOUNS
    assert read() == set()
    age(40)
    assert read() == set(), "no page shows the account"
    refresh.record_interest(account.pk)
    assert read() == NOUNS
    age(10)
    assert read() == {"services"}
    events.clear_interest(f"account:{account.pk}")
    age(10)
    turn(register(account))
    assert read() == NOUNS, "an operation has ended"
    refresh.request_refresh(account)
    assert read() == NOUNS
    assert read() == set()


def test_a_refresh_on_demand_tries_a_server_that_refused_the_token(account: HostingAccount, mms: MMS) -> None:
    HostingAccount.objects.update(token_refused=True, error="refused")
    assert not refresh.refresh_due()
    refresh.request_refresh(account)
    wait(refresh.refresh_due())
    assert not HostingAccount.objects.get().token_refused


def test_a_refresh_on_demand_respects_retry_after(account: HostingAccount, mms: MMS) -> None:
    HostingAccount.objects.update(not_before=timezone.now() + timedelta(seconds=20))
    refresh.request_refresh(account)
    assert not refresh.refresh_due()
    assert not mms.requests
    HostingAccount.objects.update(not_before=timezone.now())
    wait(refresh.refresh_due())
    assert {request.path.strip("/") for request in mms.calls("GET")} == NOUNS, "the request must remain"


def test_a_refresh_on_demand_outlives_the_longest_pause(
    account: HostingAccount, mms: MMS, live_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page promised a refresh when the pause ends."""
    account.not_before = timezone.now() + timedelta(minutes=59)
    account.save()
    refresh.request_refresh(account)
    refresh.record_interest(account.pk)
    assert live_redis.ttl("interest") > 59 * 60, "viewing the account must not shorten the pause"
    now = time.time() + 59 * 60 + 20
    monkeypatch.setattr(events, "_now", lambda: now)
    refresh.record_interest(account.pk)
    HostingAccount.objects.update(not_before=timezone.now(), services_seen_at=timezone.now())
    wait(refresh.refresh_due())
    assert {request.path.strip("/") for request in mms.calls("GET")} == NOUNS


def badges_told(live_redis: Redis) -> list[str]:
    """Return the keys of the rows whose badges were published since the last call."""
    entries: Any = live_redis.xrange(events.STREAM)
    told = [events.decode(fields) for _, fields in entries]
    live_redis.delete(events.STREAM)
    return [event.badge.key for event in told if event.badge]


def test_a_list_that_always_fails_is_one_continuous_failure(
    account: HostingAccount, mms: MMS, live_redis: Redis
) -> None:
    mms.add_service("iris")
    refresh_lists(account)
    badges_told(live_redis)
    mms.plan("GET", "images", faults.status(500), times=3)
    refresh_lists(account)
    since, seen = timezone.now() - timedelta(minutes=1), []

    def look(connection: faults.Connection, effect: Any) -> None:
        seen.append(HostingAccount.objects.get().error)
        connection.reply(effect())

    mms.plan("GET", "services", look, times=2)
    for _ in range(2):
        HostingAccount.objects.update(error_at=since, not_before=None)
        refresh_lists(account)
        account.refresh_from_db()
        assert seen.pop() == account.error, "it is not over in between"
        assert (account.error_at, account.failed_request) == (since, "list of images")
        assert account.next_attempt_at is None, "everything else goes on"
        assert failures.is_paused(account, "list of images")
    assert badges_told(live_redis) == []
    refresh_lists(account)
    account.refresh_from_db()
    assert not account.has_trouble


def test_a_list_that_fails_is_read_less_often_and_last(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "/models", faults.status(500))
    wait(refresh.refresh_due())
    assert HostingAccount.objects.get().services_seen_at, "the others are read"
    mms.requests.clear()
    wait(refresh.refresh_due())
    assert not mms.calls("GET", "/models"), "not again at once"
    refresh.request_refresh(HostingAccount.objects.get())
    wait(refresh.refresh_due())
    assert [request.path for request in mms.calls("GET")][-1] == "/models"
    assert not HostingAccount.objects.get().error


def test_a_forbidden_list_is_read_again_after_a_minute_or_with_new_credentials(
    account: HostingAccount, mms: MMS
) -> None:
    mms.plan("GET", "/models", faults.status(403))
    refresh_lists(account)
    account.refresh_from_db()
    assert (account.failed_request, account.next_attempt_at) == ("list of models", None)
    assert failures.is_paused(account, "list of models")
    account.replace_token("a-new-one")
    assert not failures.is_paused(account, "list of models")


def test_a_server_that_fails_for_several_lists_is_paused(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "/", faults.status(500), times=3)
    refresh_lists(account)
    account.refresh_from_db()
    assert account.is_failing
    assert account.next_attempt_at
    assert len(mms.requests) == 3
    HostingAccount.objects.update(not_before=None)
    mms.plan("GET", "/models", faults.status(500))
    refresh_lists(account)
    account.refresh_from_db()
    assert account.failed_request == "list of models"
    assert not HostingAccount.objects.get().next_attempt_at, "the others could be read"


def test_changes_during_a_failure_are_published_when_it_is_over(
    account: HostingAccount, mms: MMS, live_redis: Redis
) -> None:
    mms.add_service("iris")
    refresh_lists(account)
    long_ago = timezone.now() - timedelta(minutes=1)
    HostingAccount.objects.update(error="It is out of reach.", error_at=long_ago, services_seen_at=long_ago)
    mms.add_model("roses")
    badges_told(live_redis)
    refresh_lists(account)
    keys = {f"model-{RegisteredModel.objects.get().pk}", f"service-{Service.objects.get().pk}"}
    assert set(badges_told(live_redis)) == keys


def test_refreshed_services_are_published_as_fresh_though_another_list_fails(
    account: HostingAccount, mms: MMS, live_redis: Redis
) -> None:
    mms.add_service("iris")
    refresh_lists(account)
    long_ago = timezone.now() - timedelta(seconds=25)
    HostingAccount.objects.update(error="A list fails.", error_at=long_ago, services_seen_at=long_ago)
    badges_told(live_redis)
    mms.plan("GET", "images", faults.status(500))
    refresh_lists(account)
    assert badges_told(live_redis) == [f"service-{Service.objects.get().pk}"]


def test_keys_are_read_after_the_lists_and_all_of_them_in_the_end(
    account: HostingAccount, mms: MMS, live_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    mms.extensions = True
    for n in range(3):
        mms.add_service(f"iris-{n}", scoringUri=f"{mms.url}/score/{n}")
    claimed = []

    def look(connection: faults.Connection, effect: Any) -> None:
        claimed.append(live_redis.exists(f"claim:mirror:{account.pk}:service"))
        connection.reply(effect())

    mms.plan("GET", "/keys", look)
    monkeypatch.setattr(refresh, "TURN_SECONDS", 0.0)
    for _ in range(3):
        refresh_lists(account)
    assert claimed == [0], "the list is anybody's by then"
    assert not Service.objects.filter(scoring_key=None).exists(), "one at a time, for each takes the whole turn"


def test_pages_work_without_redis_and_nothing_is_lost(mms: MMS, without_redis: None) -> None:
    account = account_at(mms.url)
    refresh.record_interest(account.pk)
    refresh.request_refresh(account)
    assert events.stream_position() == "0"
    operation = later(register(account), 5)
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    refresh_lists(account)
    assert RegisteredModel.objects.get().version == 1
    assert Operation.objects.count() == 1

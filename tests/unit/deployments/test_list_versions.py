"""Unchanged lists aren't read again: change feeds, entity tags, and identical responses."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.live.badges import badge_of, seen_at
from deployments.mirror import refresh, upsert, versions
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import State
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, Connection, Reply, Request
from tests.support.lifecycle import account_at, later, present, register

pytestmark = pytest.mark.django_db(transaction=True)
Effect = Callable[[], Reply]


@pytest.fixture
def mms() -> Any:
    with MMS() as server:
        yield server


@pytest.fixture
def account(mms: MMS, live_redis: redis.Redis) -> HostingAccount:
    return account_at(mms.url)


class Feed:
    """A server's lists with change feeds. Changes are recorded by the test."""

    def __init__(self) -> None:
        self.epoch = 1
        self.changes: list[tuple[str, dict[str, Any] | None]] = []  # id, and the item unless removed
        self.page = 1000
        self.asked: list[str] = []

    @property
    def cursor(self) -> str:
        return f"{self.epoch}:{len(self.changes)}"

    def __call__(self, connection: Connection, effect: Effect) -> None:
        headers = {"x-mms-extensions": "change-feed"}
        query = connection.path.partition("?")[2]
        since = query.partition("changedSince=")[2].partition("&")[0].replace("%3A", ":")
        self.asked.append(since or "whole")
        if not since:
            reply = effect()
            connection.reply(Reply(reply.status, reply.body, headers | {"x-mms-cursor": self.cursor}))
            return
        epoch, _, at = since.partition(":")
        if int(epoch) != self.epoch:
            connection.reply(Reply(410, {"error": {"code": "CursorExpired", "message": "Read it again."}}, headers))
            return
        to = min(len(self.changes), int(at) + self.page)
        part = self.changes[int(at) : to]
        body = {
            "changed": [item for _, item in part if item],
            "removed": [id for id, item in part if item is None],
            "cursor": f"{self.epoch}:{to}",
            "hasMore": to < len(self.changes),
        }
        connection.reply(Reply(200, body, headers))


def tagged(connection: Connection, effect: Effect) -> None:
    """Answer as a server with entity tags."""
    reply = effect()
    tag = f'"{hash(json.dumps(reply.body))}"'
    if connection.headers.get("If-None-Match") == tag:
        connection.reply(Reply(304, headers={"ETag": tag}))
    else:
        connection.reply(Reply(200, reply.body, {"ETag": tag}))


def read(account: HostingAccount, noun: type[Any] = RegisteredModel, whole: bool = False) -> int:
    """Refresh the list. Return the number of rows that were compared."""
    compared = 0
    values = upsert._Rows.values

    def count(rows: Any, item: Any) -> Any:
        nonlocal compared
        compared += 1
        return values(rows, item)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(upsert._Rows, "values", count)
        refresh.refresh(account.pk, [noun], whole)
    account.refresh_from_db()
    assert not account.error
    return compared


def names() -> set[str]:
    return set(RegisteredModel.objects.filter(vanished_at=None).values_list("name", flat=True))


def test_a_response_with_the_same_bytes_is_not_compared(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("a")
    assert [read(account), read(account), read(account)] == [1, 0, 0]
    mms.add_model("b")
    assert [read(account), read(account)] == [2, 0]
    assert names() == {"a", "b"}


def test_an_entity_tag_saves_the_response(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "/models", tagged, times=9)
    mms.add_model("a")
    assert [read(account), read(account)] == [1, 0]
    assert "if-none-match" in mms.calls("GET", "/models")[-1].headers
    mms.add_model("b")
    assert [read(account), read(account)] == [2, 0]
    assert names() == {"a", "b"}


def test_a_change_feed_sends_only_what_changed(account: HostingAccount, mms: MMS) -> None:
    feed = Feed()
    mms.plan("GET", "/models", feed, times=9)
    kept = mms.add_model("kept")
    removed = mms.add_model("removed")
    assert [read(account), read(account)] == [2, 0]
    feed.changes += [(removed["id"], None), ("new", kept | {"id": "new", "name": "new"})]
    feed.changes += [(kept["id"], kept | {"description": "Changed."})]
    feed.page = 2
    assert [read(account), read(account)] == [2, 0]
    assert names() == {"kept", "new"}
    assert RegisteredModel.objects.get(name="kept").description == "Changed."
    assert RegisteredModel.objects.get(name="removed").vanished_at
    assert feed.asked == ["whole", "1:0", "1:0", "1:2", "1:3"]


def test_an_expired_cursor_reads_the_whole_list(account: HostingAccount, mms: MMS) -> None:
    feed = Feed()
    mms.plan("GET", "/models", feed, times=9)
    mms.add_model("a")
    read(account)
    feed.epoch = 2
    mms.add_model("b")
    assert read(account) == 2
    assert feed.asked == ["whole", "1:0", "whole"]
    assert read(account) == 0
    assert feed.asked[-1] == "2:0"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"changed": [{"name": "without an id"}], "removed": [], "cursor": "1:1", "hasMore": False},
    ],
)
def test_unusable_changes_read_the_whole_list(account: HostingAccount, mms: MMS, body: Any) -> None:
    feed = Feed()
    mms.plan("GET", "/models", feed)
    mms.add_model("a")
    read(account)
    mms.plan("GET", "/models", lambda connection, _: connection.reply(Reply(200, body)))
    mms.add_model("b")
    assert read(account) == 2
    assert names() == {"a", "b"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"changed": [], "removed": [], "cursor": "", "hasMore": False},
        {"changed": [], "removed": [7.5], "cursor": "1:1", "hasMore": False},
        {"changed": {}, "removed": [], "cursor": "1:1", "hasMore": False},
        {"changed": [], "removed": [], "cursor": "1:0", "hasMore": True},
    ],
)
def test_invalid_changes_leave_the_rows_and_say_why(account: HostingAccount, mms: MMS, body: Any) -> None:
    mms.plan("GET", "/models", Feed())
    mms.add_model("a")
    read(account)
    mms.plan("GET", "/models", lambda connection, _: connection.reply(Reply(200, body)), times=2)
    refresh.refresh(account.pk, [RegisteredModel])
    account.refresh_from_db()
    assert account.models_error.startswith("Couldn't read the list of models.")
    assert names() == {"a"}


@pytest.mark.parametrize("how", ["bytes", "tag", "feed"])
def test_an_unchanged_list_confirms_all_rows_and_writes_none(how: str, account: HostingAccount, mms: MMS) -> None:
    answers: dict[str, faults.Fault] = {"tag": tagged, "feed": Feed()}
    if answer := answers.get(how):
        mms.plan("GET", "/services", answer, times=9)
    mms.add_service("iris")
    read(account, Service)
    row = Service.objects.get()
    Service.objects.update(seen_at=timezone.now() - timedelta(minutes=30))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        read(account, Service)
    assert not [query for query in queries if 'UPDATE "deployments_service"' in query["sql"]]
    row = Service.objects.select_related("account").get()
    assert timezone.now() - present(seen_at(row)) < timedelta(seconds=30)
    assert badge_of(row).stale_since is None


def test_a_user_who_refreshes_gets_the_whole_list(account: HostingAccount, mms: MMS) -> None:
    feed = Feed()
    mms.plan("GET", "/models", feed, times=9)
    mms.add_model("a")
    assert [read(account), read(account, whole=True)] == [1, 1]
    assert feed.asked == ["whole", "whole"]


def test_the_whole_list_is_read_every_hour(account: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch) -> None:
    mms.add_model("a")
    read(account)
    monkeypatch.setattr(versions, "WHOLE_LIST", timedelta(0))
    assert read(account) == 1


def test_another_server_is_read_completely(account: HostingAccount, mms: MMS) -> None:
    mms.add_model("a")
    read(account)
    with MMS() as other:
        other.add_model("b")
        other.models = dict(mms.models)  # even if it answers with the same bytes
        HostingAccount.objects.filter(pk=account.pk).update(base_url=other.url)
        account.refresh_from_db()
        assert read(account) == 1


def test_the_same_bytes_are_compared_after_an_operation_of_ours(account: HostingAccount, mms: MMS) -> None:
    """A row that was marked as vanished returns if the server still lists it."""
    mms.add_model("a")
    read(account)
    operation = later(register(account), 10)
    Operation.objects.filter(pk=operation.pk).update(state=State.FAILED, finished_at=timezone.now())
    RegisteredModel.objects.update(vanished_at=timezone.now())
    assert read(account) == 1
    assert names() == {"a"}


def test_items_that_our_operation_may_have_created_are_read_again(account: HostingAccount, mms: MMS) -> None:
    feed = Feed()
    mms.plan("GET", "/models", feed, times=9)
    read(account)
    operation = register(account, name="iris")
    Operation.objects.filter(pk=operation.pk).update(state=State.UNCERTAIN, sent_at=timezone.now())
    item = mms.add_model("iris", url="http://files.example/iris.pkl")
    feed.changes.append((item["id"], item))
    read(account)
    assert not RegisteredModel.objects.filter(mms_id=item["id"]).exists()
    Operation.objects.filter(pk=operation.pk).update(state=State.FAILED, finished_at=timezone.now())
    read(account)
    assert RegisteredModel.objects.filter(mms_id=item["id"]).exists()
    assert feed.asked == ["whole", "1:0", "1:0"]


def test_an_image_whose_manifest_is_not_known_yet_is_read_again(account: HostingAccount, mms: MMS) -> None:
    item = {"id": "image-1", "imageType": "Docker", "manifestId": "manifest-1", "createdAt": timezone.now().isoformat()}
    mms.images["image-1"] = item
    assert [read(account, Image), read(account, Image)] == [1, 1]
    mms.images["image-1"] = item | {"createdAt": (timezone.now() - upsert.LINK_GRACE).isoformat()}
    assert [read(account, Image), read(account, Image)] == [1, 0], "its manifest no longer exists"


def test_an_unchanged_manifest_is_linked_to_a_model_that_appears_later(account: HostingAccount, mms: MMS) -> None:
    model = mms.add_model("iris")
    mms.manifests["m"] = {"id": "m", "modelIds": [model["id"]], "targetRuntime": {"runtimeType": "Python"}}
    read(account, Manifest)
    assert not Manifest.objects.get().models.exists()
    read(account, RegisteredModel)
    read(account, Manifest)
    assert Manifest.objects.get().models.get().name == "iris"


@pytest.mark.parametrize("tag", ["", "x" * 301, "a b", "ä", MMS.token])
def test_an_unusable_entity_tag_is_not_sent_back(account: HostingAccount, mms: MMS, tag: str) -> None:
    sent = tag.encode().decode("latin-1")
    mms.plan("GET", "/models", lambda connection, effect: connection.reply(Reply(200, effect().body, {"ETag": sent})))
    read(account)
    read(account)
    request: Request = mms.calls("GET", "/models")[-1]
    assert "if-none-match" not in request.headers
    assert MMS.token not in str(account.list_versions)

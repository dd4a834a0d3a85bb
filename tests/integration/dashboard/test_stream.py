"""The live stream with real sockets and a real Redis: delivery, access and connection handling."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from dashboard import live as stream
from dashboard.models import Membership, Role
from deployments.live.events import STREAM, publish_operation, stream_position
from deployments.models import HostingAccount, Operation, RegisteredModel
from deployments.models.operation import Kind, State
from tests.asgi_server import Server
from tests.ports import free_port
from tests.site import wait_until
from tests.support.clock import quiet_seconds

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(live_redis: redis.Redis) -> Iterator[Server]:
    with Server(stream.Stream()) as server:
        yield server


@pytest.fixture
def team() -> HostingAccount:
    return make_account("team")


def make_account(name: str) -> HostingAccount:
    return HostingAccount.objects.create(
        name=name,
        base_url="http://x",
        subscription="s",
        resource_group="r",
        hosting_account=name,
        reached_at=timezone.now(),
    )


def sign_in(name: str, *accounts: HostingAccount) -> str:
    """Return the session cookie of a viewer of `accounts`."""
    user = get_user_model().objects.create_user(name)
    for account in accounts:
        Membership.objects.create(user=user, account_id=account.pk, role=Role.VIEWER)
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@pytest.fixture
def viewer(team: HostingAccount) -> str:
    return sign_in("vera", team)


def publish(account: HostingAccount, state: State = State.RUNNING) -> str:
    """Publish a change as a worker does. Return the key of the badge."""
    model = RegisteredModel.objects.create(account=account, name="iris", url="http://x/m")
    operation = Operation.objects.create(account=account, kind=Kind.REGISTER_MODEL, state=state, model=model)
    publish_operation(operation)
    return f"operation-{operation.pk}"


class Reader:
    """One open stream, read event by event."""

    def __init__(self, server: Server | int, cookie: str, position: str = "", last_event_id: str = "") -> None:
        port = server if isinstance(server, int) else server.port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        headers = {"Cookie": cookie} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        self._connection.request("GET", f"/stream?position={position}", headers=headers)
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def wait_longer(self, seconds: float) -> None:
        """Wait up to `seconds` for each line instead of five seconds."""
        buffer: Any = self.response.fp
        buffer.raw._sock.settimeout(seconds)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.sock and self._connection.sock.close()
        self.response.close()

    def next(self) -> dict[str, Any]:
        """Return the next event with id, event and data, or {} at the end. Heartbeats are events named "alive"."""
        event: dict[str, Any] = {}
        while line := self.response.readline().decode():
            line = line.rstrip("\n")
            if not line and "event" in event:
                return event
            if line and not line.startswith("retry"):
                name, _, value = line.partition(": ")
                event[name] = json.loads(value) if name == "data" else value
        return {}

    def until_live(self) -> list[dict[str, Any]]:
        """Return the events before the event `live`, which ends the replay."""
        events = []
        while (event := self.next())["event"] != "live":
            events.append(event)
        return events


@pytest.mark.serial
def first_fields(connection: Any) -> dict[Any, Any]:
    """Return the fields of the first entry in the stream."""
    fields: dict[Any, Any] = connection.xrange(STREAM, count=1)[0][1]
    return fields


def test_a_change_arrives_as_the_badge_the_page_would_render(server: Server, team: HostingAccount, viewer: str) -> None:
    with Reader(server, viewer, stream_position()) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["x-accel-buffering"] == "no"
        assert reader.until_live() == []
        began = time.monotonic()
        key = publish(team)
        event = reader.next()
        assert quiet_seconds(time.monotonic() - began) < 0.5
    assert event["event"] == "badge"
    assert event["data"]["key"] == key
    assert f'data-badge="{key}"' in event["data"]["html"]
    assert 'data-state="running"' in event["data"]["html"]
    assert key in event["data"]["refresh"]
    assert event["id"] == stream_position()


def test_events_between_the_page_and_the_stream_are_sent_first(
    server: Server, team: HostingAccount, viewer: str
) -> None:
    publish(team)
    position = stream_position()
    keys = [publish(team) for _ in range(3)]
    with Reader(server, viewer, position) as reader:
        assert [event["data"]["key"] for event in reader.until_live()] == keys
        later = publish(team)
        assert reader.next()["data"]["key"] == later


def test_a_page_rendered_before_the_first_event_misses_nothing(
    server: Server, team: HostingAccount, viewer: str
) -> None:
    position = stream_position()
    key = publish(team)
    with Reader(server, viewer, position) as reader:
        assert [event["data"]["key"] for event in reader.until_live()] == [key]


def test_a_reconnect_continues_after_the_last_event(server: Server, team: HostingAccount, viewer: str) -> None:
    position = stream_position()
    with Reader(server, viewer, position) as reader:
        reader.until_live()
        publish(team)
        last = reader.next()["id"]
    missed = publish(team)
    with Reader(server, viewer, position, last_event_id=last) as reader:
        assert [event["data"]["key"] for event in reader.until_live()] == [missed]


@pytest.mark.parametrize("position", ["", "0", "nonsense", "1-1", "99999999999999-0"])
def test_an_unavailable_position_causes_a_resync(
    server: Server, team: HostingAccount, viewer: str, position: str
) -> None:
    publish(team)
    with Reader(server, viewer, position) as reader:
        (event,) = reader.until_live()
        assert (event["event"], event["id"]) == ("resync", stream_position())


def test_flushing_redis_causes_a_resync(
    server: Server, team: HostingAccount, viewer: str, live_redis: redis.Redis
) -> None:
    publish(team)
    position = stream_position()
    live_redis.flushall()
    with Reader(server, viewer, position) as reader:
        assert [event["event"] for event in reader.until_live()] == ["resync"]
    publish(team)
    with Reader(server, viewer, position) as reader:
        assert [event["event"] for event in reader.until_live()] == ["resync"]


def test_too_many_missed_events_cause_a_resync(
    server: Server, team: HostingAccount, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_REPLAYED_EVENTS", 3)
    publish(team)
    position = stream_position()
    for _ in range(4):
        publish(team)
    with Reader(server, viewer, position) as reader:
        assert [event["event"] for event in reader.until_live()] == ["resync"]


def test_lost_events_of_a_worker_cause_a_resync_for_everyone(
    server: Server, viewer: str, live_redis: redis.Redis
) -> None:
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        live_redis.xadd(STREAM, {"account": "0"})
        assert reader.next()["event"] == "resync"


def test_users_get_events_of_their_own_accounts_only(server: Server, team: HostingAccount, viewer: str) -> None:
    other = make_account("other")
    position = stream_position()
    publish(other)
    mine = publish(team)
    with Reader(server, viewer, position) as reader:
        assert [event["data"]["key"] for event in reader.until_live()] == [mine]
        publish(other)
        mine = publish(team)
        assert reader.next()["data"]["key"] == mine


def test_administrators_see_all_accounts(server: Server, team: HostingAccount) -> None:
    get_user_model().objects.create_superuser("root")
    client = Client()
    client.force_login(get_user_model().objects.get())
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    with Reader(server, cookie, stream_position()) as reader:
        reader.until_live()
        assert publish(team) == reader.next()["data"]["key"]


def test_losing_a_role_ends_the_events_of_that_account(
    server: Server, team: HostingAccount, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RECHECK_SECONDS", 0.2)
    other = make_account("other")
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        Membership.objects.update(account_id=other.pk)
        time.sleep(0.6)
        publish(team)
        key = publish(other)
        assert reader.next()["data"]["key"] == key


@pytest.mark.parametrize("how", ["signed out", "no longer active"])
def test_signing_out_ends_the_stream(server: Server, viewer: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(stream, "RECHECK_SECONDS", 0.2)
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        if how == "signed out":
            from dashboard.models import OpenSession

            OpenSession.objects.all().delete()
        else:
            get_user_model().objects.update(is_active=False)
        assert reader.next() == {}
    assert Reader(server, viewer).status == 401


def test_signed_out_users_and_unknown_hosts_are_rejected(server: Server, viewer: str) -> None:
    assert Reader(server, "").status == 401
    assert requests.get(f"{server.url}/stream", headers={"Cookie": viewer, "Host": "evil.example"}).status_code == 400
    assert requests.post(f"{server.url}/stream", headers={"Cookie": viewer}).status_code == 400


def test_no_database_connection_is_held_by_an_open_stream(server: Server, viewer: str) -> None:
    """The only connection a stream uses is the one of Django's own thread, and it is not inside a transaction."""
    from django.db import connections

    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        assert not connections["default"].in_atomic_block
        get_user_model().objects.create_user("written while the stream is open")


def test_a_stream_without_events_sends_heartbeats(server: Server, viewer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stream.HEARTBEAT_SECONDS <= 15
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        assert reader.next()["event"] == "alive"
        assert reader.next()["event"] == "alive"


def test_the_number_of_streams_per_user_is_limited(
    server: Server, team: HostingAccount, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_CONNECTIONS_PER_USER", 2)
    readers = [Reader(server, viewer, stream_position()) for _ in range(2)]
    assert [reader.status for reader in readers] == [200, 200]
    assert Reader(server, viewer).status == 429
    with Reader(server, sign_in("otto", team)) as other:
        assert other.status == 200
    for reader in readers:
        reader.__exit__()
    time.sleep(0.3)
    with Reader(server, viewer, stream_position()) as again:
        assert again.status == 200


def test_a_slow_client_is_disconnected_and_the_others_continue(
    server: Server, team: HostingAccount, viewer: str, live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_QUEUED_EVENTS", 20)
    slow = Reader(server, viewer, stream_position())
    slow.until_live()
    publish(team)
    fields = first_fields(live_redis) | {b"label": b"x" * 200_000}
    with Reader(server, sign_in("otto", team), stream_position()) as good:
        good.until_live()
        for _ in range(120):
            live_redis.xadd(STREAM, fields)
            assert good.next()["event"] == "badge"
    received = 0
    while slow.next():
        received += 1
    assert received < 120


def test_streams_end_when_redis_goes_down_and_resume_when_it_is_back(
    server: Server, team: HostingAccount, viewer: str, live_redis: redis.Redis
) -> None:
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        live_redis.client_kill_filter(skipme=True, _type="normal")
        assert reader.next() == {}
    with Reader(server, viewer, stream_position()) as reader:
        reader.until_live()
        key = publish(team)
        assert reader.next()["data"]["key"] == key


def test_without_redis_the_status_is_503(settings: Any, viewer: str) -> None:
    settings.REDIS_URL = f"unix://{settings.RUN_DIR}/nobody.sock"
    with Server(stream.Stream()) as server:
        assert Reader(server, viewer).status == 503


@pytest.mark.slow
def test_a_closed_page_is_removed_from_the_hub(server: Server, viewer: str, live_redis: redis.Redis) -> None:
    for _ in range(5):
        with Reader(server, viewer, stream_position()) as reader:
            reader.until_live()
    wait_until(lambda: all(client["cmd"] != "xread" for client in live_redis.client_list()), 10, "the reader to end")


def test_one_reader_of_redis_feeds_all_pages(
    server: Server, team: HostingAccount, viewer: str, live_redis: redis.Redis
) -> None:
    readers = [Reader(server, viewer, stream_position()) for _ in range(8)]
    for reader in readers:
        reader.until_live()
    time.sleep(0.1)
    assert sum(client["cmd"] == "xread" for client in live_redis.client_list()) == 1
    key = publish(team)
    assert [reader.next()["data"]["key"] for reader in readers] == [key] * 8
    for reader in readers:
        reader.__exit__()


@pytest.mark.slow
def test_a_stop_signal_does_not_wait_for_open_streams(live_redis: redis.Redis, team: HostingAccount) -> None:
    script = (
        "import django, sys; django.setup()\n"
        "from dashboard import live as stream\n"
        "stream._find_reader = lambda scope: (1, {1})\n"  # the users of this test are in its own database
        "import uvicorn\n"
        "uvicorn.run(stream.application, port=int(sys.argv[1]), lifespan='off', timeout_graceful_shutdown=15)\n"
    )
    port = free_port()
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "dashboard.settings"}
    process = subprocess.Popen([sys.executable, "-c", script, str(port)], env=environment)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20, "uvicorn")
        reader = Reader(port, "", stream_position())
        assert reader.until_live() == []
        began = time.monotonic()
        process.terminate()
        assert reader.next() == {}
        process.wait(10)
        assert quiet_seconds(time.monotonic() - began) < 2
    finally:
        process.kill()
        process.wait()


def test_no_event_is_lost_or_repeated_under_load(
    server: Server, team: HostingAccount, viewer: str, live_redis: redis.Redis
) -> None:
    publish(team)
    fields = first_fields(live_redis)
    position = stream_position()
    seen: list[Any] = []

    def write() -> None:
        for number in range(600):
            live_redis.xadd(STREAM, fields | {b"reason": b"%d" % number})
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    while len(seen) < 600:
        with Reader(server, viewer, "0", last_event_id=position) as reader:
            for _ in range(40):
                event = reader.next()
                if event["event"] == "badge":
                    position = event["id"]
                    seen.append(int(event["data"]["html"].split('title="')[1].split('"')[0]))
                if len(seen) == 600:
                    break
    writer.join()
    assert seen == list(range(600))


def test_streams_of_one_session_that_open_together_are_checked_once(
    live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []

    def find(scope: Any) -> tuple[int, set[int]]:
        checked.append(scope)
        return 1, {1}

    monkeypatch.setattr(stream, "_find_reader", find)
    with Server(stream.Stream()) as server:
        readers = [Reader(server, "sessionid=one", stream_position()) for _ in range(stream.MAX_CONNECTIONS_PER_USER)]
        assert {reader.status for reader in readers} == {200}
        assert Reader(server, "sessionid=one").status == 429
        assert len(checked) <= 2, "the session was checked for each stream"
        assert Reader(server, "sessionid=another").status == 429
        for reader in readers:
            reader.__exit__()


def test_recent_events_answer_what_a_page_missed() -> None:
    recent = stream.RecentEvents()
    recent.restart((5, 0))
    events = [stream.Event((6, number), 1, b"") for number in range(3)]
    for event in events:
        recent.add(event)
    assert recent.since("6-0") == (events[1:], (6, 2))
    assert recent.since("5-0") == (events, (6, 2))
    assert recent.since("6-2") == ([], (6, 2))
    for unknown in ("4-9", "6-3", "", "0", "x-1"):
        assert recent.since(unknown) is None, unknown
    recent.read_at -= stream.BLOCK_SECONDS + 2  # Redis may be gone
    assert recent.since("6-0") is None


def test_recent_events_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_REPLAYED_EVENTS", 2)
    recent = stream.RecentEvents()
    recent.restart((0, 0))
    for number in range(1, 5):
        recent.add(stream.Event((1, number), 1, b""))
    assert recent.since("1-1") is None
    found = recent.since("1-2")
    assert found
    assert [event.position for event in found[0]] == [(1, 3), (1, 4)]

"""Badges, and the live state in Redis that delivers them to pages."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from deployments.accounts.call_pool import CALL_POOL, MAX_CALLS_PER_ACCOUNT
from deployments.live import events, redis
from deployments.live.badges import badge_of, badges_of
from deployments.live.transitions import transition
from deployments.mirror import follow_logs, refresh
from deployments.models import HostingAccount, Operation, RegisteredModel, Service
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles.mms import MMS
from tests.support.clock import quiet_seconds
from tests.support.lifecycle import account_at, cluster_of, image_of, register

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def account(live_redis: Redis) -> HostingAccount:
    return account_at("http://127.0.0.1:1")


def read_events(live_redis: Redis, after: str = "-") -> list[events.LiveEvent]:
    found: Any = live_redis.xrange(events.STREAM, after if after == "-" else f"({after}")
    return [events.decode(fields) for _, fields in found]


def test_every_change_of_state_is_published_and_stored(account: HostingAccount, live_redis: Redis) -> None:
    operation = register(account)
    before = events.stream_position()
    started = time.perf_counter()
    assert transition(operation, State.FAILED, error_message="no <b>space</b>")
    took = time.perf_counter() - started
    [event] = read_events(live_redis, before)
    assert event.account_id == account.pk
    assert event.badge == badge_of(operation)
    assert event.badge.reason == "no <b>space</b>"
    assert event.refresh == [f"operation-{operation.pk}", f"model-{operation.model_id}", "models"]
    kept: Any = live_redis.hgetall(f"live:operation:{operation.pk}")
    assert events.decode(kept).badge == event.badge
    assert live_redis.ttl(f"live:operation:{operation.pk}") > 0
    assert took < 0.2


@contextmanager
def without_redis(settings: Any) -> Iterator[None]:
    there = settings.REDIS_URL
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    redis.connection.cache_clear()
    yield
    settings.REDIS_URL = there
    redis.connection.cache_clear()
    redis.reset_outage()


def test_a_lost_event_makes_all_pages_fetch_again(account: HostingAccount, live_redis: Redis, settings: Any) -> None:
    operation = register(account)
    with without_redis(settings):
        transition(operation, State.SENDING, sent_at=timezone.now())
    before = events.stream_position()
    transition(operation, State.FAILED)
    resync, event = read_events(live_redis, before)
    assert resync.badge is None
    assert event.badge is not None
    assert event.badge.state == "failed"


def test_so_does_the_next_event_of_an_account(account: HostingAccount, live_redis: Redis, settings: Any) -> None:
    with without_redis(settings):
        events.publish_account(account.pk)
    before = events.stream_position()
    events.publish_account(account.pk)
    events.publish_account(account.pk)
    everybody, *told = read_events(live_redis, before)
    assert everybody == events.LiveEvent(0, None, [])
    assert told == [events.LiveEvent(account.pk, None, ["account"])] * 2


def test_the_stream_has_a_bound(account: HostingAccount, live_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAM_ENTRIES", 500)
    services = [Service(account=account, name=f"s{n}", mms_id=f"id{n}") for n in range(100)]
    Service.objects.bulk_create(services)
    for _ in range(10):
        events.publish(services)
    assert 500 <= live_redis.xlen(events.STREAM) < 700


def test_the_badge_of_a_row_is_its_open_operations(account: HostingAccount) -> None:
    service = Service.objects.create(account=account, name="iris", mms_id="s1", health="healthy", state="Succeeded")
    assert (badge_of(service).state, badge_of(service).key) == ("healthy", f"service-{service.pk}")
    chosen: dict[str, Any] = {"service": service, "image": image_of(account), "cluster": cluster_of(account)}
    operation = submit.update_service(account, "ann", **chosen)
    assert (badge_of(service).state, badge_of(service).key) == ("queued", f"operation-{operation.pk}")
    transition(operation, State.FAILED, error_message="no room")
    assert badge_of(service).state == "healthy", "the old revision serves on"
    assert "no room" in badge_of(service).reason


def test_the_badge_of_a_row_that_was_never_created_shows_the_reason(account: HostingAccount) -> None:
    operation = register(account)
    transition(operation, State.FAILED, error_message="no such URL")
    badge = badge_of(RegisteredModel.objects.get())
    assert (badge.state, badge.reason) == ("failed", "no such URL")


def test_fifty_badges_cost_one_query(account: HostingAccount) -> None:
    for n in range(50):
        register(account, name=f"m{n}")
    rows = list(RegisteredModel.objects.select_related("account"))
    with CaptureQueriesContext(connection) as counted:
        badges = badges_of(rows)
    assert len(counted) == 1
    assert {badge.state for badge in badges} == {"queued"}
    asked = list(Operation.objects.select_related("account"))
    with CaptureQueriesContext(connection) as counted:
        badges_of(asked)
    assert len(counted) == 0


def test_stale_information_shows_its_age(account: HostingAccount) -> None:
    seen = timezone.now() - timedelta(minutes=1)
    service = Service.objects.create(account=account, name="iris", mms_id="s1", health="healthy", seen_at=seen)
    assert badge_of(service).stale_since is None
    account.error = "out of reach"
    assert badge_of(service).stale_since == seen
    account.error = ""
    service.seen_at = timezone.now() - timedelta(minutes=3)
    assert badge_of(service).stale_since == service.seen_at


def test_a_badge_has_an_expiry(account: HostingAccount) -> None:
    seen = timezone.now() - timedelta(seconds=100)
    service = Service.objects.create(account=account, name="iris", mms_id="s1", health="healthy", seen_at=seen)
    badge = badge_of(service)
    assert badge.until == seen + timedelta(seconds=150)
    assert badge.valid_seconds in {50, 49}
    service.seen_at = timezone.now() - timedelta(minutes=10)
    assert 25 <= (badge_of(service).valid_seconds or 0) <= 30, "stale data is checked again, in case it was refreshed"
    operation = register(account)
    assert transition(operation, State.SENDING, sent_at=timezone.now())
    assert 100 < (badge_of(operation).valid_seconds or 0) <= 120
    transition(operation, State.FAILED)
    assert badge_of(operation).valid_seconds is None, "what is over stays so"


@pytest.mark.parametrize(
    ("state", "silent", "stale"),
    [("sending", 119, False), ("sending", 125, True), ("running", 65, True), ("uncertain", 155, True)],
)
def test_an_operation_without_a_worker_shows_since_when(
    account: HostingAccount, state: str, silent: int, stale: bool
) -> None:
    heard = timezone.now() - timedelta(seconds=silent)
    operation = register(account)
    Operation.objects.update(state=state, sent_at=heard, checked_at=None)
    operation = Operation.objects.select_related("account").get()
    assert badge_of(operation).stale_since == (heard if stale else None)


def test_the_last_contact_of_an_operation_is_the_latest_of_its_times(account: HostingAccount) -> None:
    """It was probed long ago, sent again, and accepted just now."""
    now, long_ago = timezone.now(), timezone.now() - timedelta(hours=1)
    operation = register(account)
    Operation.objects.update(state="not_started", checked_at=long_ago, sent_at=now, accepted_at=now)
    assert badge_of(Operation.objects.select_related("account").get(pk=operation.pk)).stale_since is None


def test_a_queued_operation_shows_that_no_worker_claims_it(account: HostingAccount) -> None:
    operation = register(account)
    badge = badge_of(operation)
    assert (badge.label, badge.reason) == ("Queued", "")
    assert (badge.valid_seconds or 0) <= 21, "an open page must show it within half a minute"
    operation.next_poll_at = timezone.now() - timedelta(seconds=21)
    badge = badge_of(operation)
    assert badge.label == "Queued, no worker"
    assert "workers" in badge.reason
    assert badge.state == "queued"
    operation.account.reached_at = timezone.now() - timedelta(seconds=10)
    assert badge_of(operation).label == "Queued", "there are workers, and much to do"
    assert "Queued behind other operations" in badge_of(operation).reason


def test_an_interest_expires(live_redis: Redis) -> None:
    events.record_interest("account:7")
    live_redis.zadd("interest", {"account:8": time.time() - 1, "service:7": time.time() + 9})
    assert events.current_interests("account:") == {"7"}


def test_an_expired_lock_does_not_release_its_successor(live_redis: Redis) -> None:
    slow = redis.acquire_lock("list", seconds=90, fallback=False)
    assert slow
    assert not redis.acquire_lock("list", seconds=90, fallback=False)
    live_redis.delete("claim:list")
    successor = redis.acquire_lock("list", seconds=90, fallback=False)
    redis.release_lock("list", slow)
    assert not redis.acquire_lock("list", seconds=90, fallback=False)
    redis.release_lock("list", successor)
    assert redis.acquire_lock("list", seconds=90, fallback=False)


def test_log_lines_are_read_from_a_position_on(live_redis: Redis) -> None:
    key = "log:operation:x"
    assert events.read_log(key) == events.LogPart([], "0", None)
    events.append_log(key, ["one", "two"], 8)
    first = events.read_log(key)
    assert (first.lines, first.reported) == (["one", "two"], True)
    events.append_log(key, ["three"], 14)
    assert events.read_log(key, first.position).lines == ["three"]
    assert events.read_log(key, "nonsense").lines == []
    redis.reset_outage()  # Redis rejected the position, which counts as an outage


@pytest.mark.serial
def test_nothing_waits_for_a_redis_that_hangs(settings: Any, transactional_db: None) -> None:
    """A server that accepts connections and never responds costs a page one second, once."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings.REDIS_URL = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        redis.connection.cache_clear()
        try:
            started = time.perf_counter()
            assert events.stream_position() == "0"
            assert quiet_seconds(time.perf_counter() - started) < 2.5
            started = time.perf_counter()
            events.record_interest("account:1")
            assert events.current_interests("account:") == set()
            assert quiet_seconds(time.perf_counter() - started) < 0.1
        finally:
            redis.connection.cache_clear()
            redis.reset_outage()


@pytest.fixture
def mms() -> Iterator[MMS]:
    with MMS(extensions=True) as server:
        yield server


def test_a_services_log_is_followed_while_it_is_viewed(mms: MMS, live_redis: Redis) -> None:
    account = account_at(mms.url)
    remote = mms.add_service("iris", revisions=[{"number": 2}])
    refresh.refresh(account.pk, [Service])
    service = Service.objects.get()
    mms.logs[remote["id"]] = b"hello\n"
    follow_logs.follow_logs()
    assert not mms.calls("GET", "/logs")
    events.record_log_interest("service", service.pk)
    for _ in range(500):  # ten seconds: other tests run beside it
        follow_logs.follow_logs()
        if events.read_log(events.service_log_key(service)).lines:
            break
        time.sleep(0.02)
    assert events.read_log(events.service_log_key(service)).lines == ["hello"]
    assert mms.calls("GET", "/logs")[0].query["revision"] == ["2"]


def test_the_log_of_an_ended_operation_is_restored_after_redis_was_emptied(mms: MMS, live_redis: Redis) -> None:
    account = account_at(mms.url)
    operation = register(account)
    transition(operation, State.SENDING)
    transition(operation, State.FAILED, mms_operation_id="op-1")
    mms.logs["op-1"] = b"step 1\nno space"
    live_redis.flushall()
    key = events.operation_log_key(operation)
    events.record_log_interest("operation", operation.pk)
    for _ in range(500):  # ten seconds: other tests run beside it
        follow_logs.follow_logs()
        time.sleep(0.02)
        mark = events.log_mark(key)
        if mark and mark.is_complete:
            break
    assert events.read_log(key).lines == ["step 1", "no space"]
    while CALL_POOL.free_slots(account.pk) < MAX_CALLS_PER_ACCOUNT:
        time.sleep(0.01)
    asked = len(mms.requests)
    follow_logs.follow_logs()
    time.sleep(0.1)
    assert len(mms.requests) == asked

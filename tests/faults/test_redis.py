"""Redis restarted, paused for two minutes, emptied, and full: no data is lost, pages answer, and workers continue."""

import html
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.doubles.mms import MMS
from tests.faults.load import PASSWORD, Person, RemoteAccount, operations, unsettled
from tests.site import Site, wait_until
from tests.support.lifecycle import present
from tests.twins import twins

pytestmark = pytest.mark.slow
PAGE_SECONDS = 6.0  # a page may take the timeout of Redis once
AGAIN_SECONDS = 60.0  # until workers consume again after Redis is back


@pytest.fixture(scope="module")
def mms() -> Iterator[MMS]:
    with MMS(auto=True) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("redis") / "data").start()
    site.manage("create_user", "ada", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    yield site
    site.stop()


@pytest.fixture(scope="module")
def person(site: Site) -> Person:
    return Person(site)


@pytest.fixture(scope="module")
def far(site: Site, mms: MMS) -> RemoteAccount:
    return RemoteAccount.at(site, mms, "far")


@pytest.fixture
def link(site: Site) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(site.data / "run" / "redis.sock"), socket_timeout=5)


def pids(site: Site) -> dict[str, int]:
    return {name: site.program(f"site:{name}").pid for name in ("worker", "mms-worker", "beat", "web")}


def slowest_page(person: Person, far: RemoteAccount, times: int = 10) -> float:
    """Load some pages, a second apart. Each must load in time. Return the seconds of the slowest."""
    slowest = 0.0
    for _ in range(times):
        for path in (far.url, f"{far.url}models/", f"{far.url}operations/"):
            status, took, text = person.look(path)
            assert status == 200, (path, status, text[:500])
            slowest = max(slowest, took)
        time.sleep(1)
    assert slowest < PAGE_SECONDS
    return round(slowest, 1)


def assert_cause_is_named(site: Site, person: Person, far: RemoteAccount, cause: str) -> None:
    """Check /healthz and the pages of an account. The programs whose heartbeats can't be read aren't blamed."""
    status, parts = site.health()
    assert (status, parts["redis"]) == (503, cause)
    programs = ("beat", "worker of queue celery", "worker of queue mms")
    assert {parts[name] for name in programs} == {f"unknown: {cause}"}
    page = html.unescape(person.look(f"{far.url}models/")[2])
    assert f"<strong>{cause}.</strong>" in page

    def is_named() -> bool:
        page = html.unescape(person.look(f"{far.url}models/")[2])
        if 'data-state="queued"' not in page:  # done by a task that a busy worker had received before
            assert far.register(person, f"queued-{uuid4().hex[:8]}").acknowledged
        return f"{cause}, so this can't be queued." in page

    wait_until(is_named, 60, "the badge to name the cause")
    assert "Check that the workers are running" not in page


def log_lines(site: Site) -> dict[str, int]:
    """Return the number of lines in the logs of the scheduler and the workers."""
    return {
        name: len((site.data / "log" / f"{name}.log").read_text().splitlines())
        for name in ("beat", "worker", "mms-worker")
    }


def is_done(site: Site, name: str) -> Callable[[], Any]:
    return lambda: [row for row in operations(site) if row["about"] == name and row["state"] == "succeeded"]


def back_again(site: Site, person: Person, far: RemoteAccount, mms: MMS, names: list[str]) -> float:
    """Return the seconds until earlier requests and a new one are done, each exactly once."""
    began = time.monotonic()
    assert far.register(person, names[-1]).acknowledged
    for name in names:
        wait_until(is_done(site, name), AGAIN_SECONDS, f"the end of {name}")
    took = time.monotonic() - began
    made = [model["name"] for model in mms.models.values()]
    assert [made.count(name) for name in names] == [1] * len(names)
    wait_until(site.works, 60, f"health: {site.health()}")
    return took


@twins("times", 4, 20)
def test_redis_restarted_repeatedly(
    site: Site, person: Person, far: RemoteAccount, mms: MMS, record: dict[str, Any], times: int
) -> None:
    before, names = pids(site), []
    for number in range(times):
        site.supervisorctl("restart", "redis")
        names.append(f"restart-{times}-{number}")
        assert far.register(person, names[-1]).acknowledged
    record["seconds until all was done"] = round(
        back_again(site, person, far, mms, [*names, f"restart-{times}-last"]), 1
    )
    assert pids(site) == before, "nothing else was restarted"


@twins("seconds", 20, 120)
def test_redis_paused(
    site: Site, person: Person, far: RemoteAccount, mms: MMS, record: dict[str, Any], seconds: int
) -> None:
    before, names = pids(site), [f"paused-{seconds}-{number}" for number in range(3)]
    server = site.program("redis")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        paused_at = time.monotonic()
        assert far.register(person, names[0]).acknowledged
        record["slowest page meanwhile"] = slowest_page(person, far)
        assert_cause_is_named(site, person, far, "Redis can't be reached")
        time.sleep(max(0.0, seconds - (time.monotonic() - paused_at)))
        assert far.register(person, names[1]).acknowledged
    finally:
        os.kill(server.pid, signal.SIGCONT)
    took = back_again(site, person, far, mms, names)
    record["seconds until all was done"] = round(took, 1)
    assert pids(site) == before, "workers must continue without a restart"


@twins("times", 5, 20)
def test_redis_emptied(
    site: Site, person: Person, far: RemoteAccount, mms: MMS, link: redis.Redis, record: dict[str, Any], times: int
) -> None:
    names = []
    for number in range(times):
        names.append(f"emptied-{times}-{number}")
        assert far.register(person, names[-1]).acknowledged
        link.flushall()
        time.sleep(0.1)
    slowest_page(person, far, 1)
    record["seconds until all was done"] = round(
        back_again(site, person, far, mms, [*names, f"emptied-{times}-last"]), 1
    )


@twins("pages", 8, 30)
def test_redis_full(
    site: Site, person: Person, far: RemoteAccount, mms: MMS, link: redis.Redis, record: dict[str, Any], pages: int
) -> None:
    before, names = pids(site), [f"full-{pages}-{number}" for number in range(3)]
    lines, began = log_lines(site), time.monotonic()
    limit = link.config_get("maxmemory")["maxmemory"]
    link.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            link.set("anything", "x")
        assert far.register(person, names[0]).acknowledged
        record["slowest page meanwhile"] = slowest_page(person, far, pages)
        assert_cause_is_named(site, person, far, "Redis is full")
        minutes = (time.monotonic() - began) / 60 + 1
        for name, count in log_lines(site).items():  # one handler of Celery, and one of Django
            assert count - lines[name] <= 2 * minutes, (site.data / "log" / f"{name}.log").read_text()[-5000:]
        assert far.register(person, names[1]).acknowledged
    finally:
        link.config_set("maxmemory", present(limit))
    took = back_again(site, person, far, mms, names)
    record["seconds until all was done"] = round(took, 1)
    assert pids(site) == before


def test_without_any_worker_the_page_says_so_within_thirty_seconds(
    site: Site, person: Person, far: RemoteAccount, mms: MMS, record: dict[str, Any]
) -> None:
    site.supervisorctl("stop", "site:worker")
    try:
        began = time.monotonic()
        assert far.register(person, "untaken").acknowledged

        def says_so() -> bool:
            return "Queued, no worker" in person.look(f"{far.url}models/")[2]

        assert not says_so(), "it was requested only a moment ago"
        wait_until(says_so, 30, "the page to report a missing worker")
        record["seconds until it was said"] = round(time.monotonic() - began, 1)
    finally:
        site.supervisorctl("start", "site:worker")
    wait_until(is_done(site, "untaken"), AGAIN_SECONDS, "the end of it")
    assert [model["name"] for model in mms.models.values()].count("untaken") == 1
    assert not unsettled(site)
